"""What na.KVCache and na.PagedKVCache refuse, and that they are then as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numattn as na
from caches import both, contents, contiguous, paged, tokens
from numattn.cache import Cache
from tolerance import assert_same_bits


@both
def test_a_failed_attend_leaves_the_layer_as_it_was(
    make: Callable[..., Cache], rng: np.random.Generator
) -> None:
    cache = make(2)
    k, v = tokens(rng, 2, 3)
    cache.append(0, k, v)
    with pytest.raises(ValueError, match="scale"):
        cache.attend(0, k, k, v, scale=float("nan"))
    with pytest.raises(ValueError):
        cache.attend(0, k[..., :3], k, v)
    assert cache.layer_lengths(0).tolist() == [3, 3]
    if isinstance(cache, na.PagedKVCache):
        assert cache.free_pages == 62


@both
@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda c, k, v: c.append(2, k, v), ValueError, "layer must be in 0 … 1, not 2"),
        (lambda c, k, v: c.append(-1, k, v), ValueError, "layer must be in 0 … 1, not -1"),
        (lambda c, k, v: c.append(0.0, k, v), TypeError, "layer must be an integer"),
        (lambda c, k, v: c.append(0, k[:1], v), ValueError, r"k must have shape \(2, 2, S, 8\) in"),
        (lambda c, k, v: c.append(0, k, k), ValueError, r"v must have shape \(2, 2, S, 5\) "),
        (lambda c, k, v: c.append(0, k[0], v), ValueError, r"not \(2, 3, 8\)"),
        (lambda c, k, v: c.append(0, k[:, :, :2], v), ValueError, "must hold as many tokens"),
        (lambda c, k, v: c.append(0, k, v, layout="bshd"), ValueError, r"\(2, S, 2, 8\) in"),
        (lambda c, k, v: c.append(0, k, v, layout="sbhd"), ValueError, "layout must be"),
        (lambda c, k, v: c.append(0, k.astype(np.float16), v), TypeError, "k has dtype float16, "),
        (lambda c, k, v: c.append(0, k, v, counts=[4, 0]), ValueError, "counts must be in 0 … 3"),
        (lambda c, k, v: c.append(0, k, v, counts=[-1, 0]), ValueError, "counts must be in 0 … 3"),
        (lambda c, k, v: c.append(0, k, v, counts=[1]), ValueError, r"counts must have shape \(2"),
        (lambda c, k, v: c.append(0, k, v, counts=[1.0, 1.0]), TypeError, "counts must hold integ"),
        (lambda c, k, v: c.append(0, *[np.concatenate([x] * 4, 2) for x in (k, v)]), ValueError,
         r"at most 10 tokens a row \(max_length\), and row 0 would have 12"),
        (lambda c, k, v: c.reserve([1, 11]), ValueError, "and row 1 would have 11"),
        (lambda c, k, v: c.reserve(-1), ValueError, "counts must be 0 or more"),
        (lambda c, k, v: c.truncate(-1), ValueError, r"lengths must be 0 or more, not \[-1"),
        (lambda c, k, v: c.truncate([1]), ValueError, r"lengths must have shape \(2,\), "),
        (lambda c, k, v: c.fork([0, 2]), ValueError, r"indices must be in 0 … 1, not \[0, 2\]"),
        (lambda c, k, v: c.fork([]), ValueError, "indices must name at least one row"),
        (lambda c, k, v: c.fork(0), ValueError, "indices must be one-dimensional"),
    ],
)  # fmt: skip
def test_bad_input(
    make: Callable[..., Cache],
    act: Callable[..., Any],
    error: type[Exception],
    message: str,
    rng: np.random.Generator,
) -> None:
    cache = make(2, max_length=10)
    k, v = tokens(rng, 2, 3)
    with pytest.raises(error, match=message):
        act(cache, k, v)
    assert cache.lengths.tolist() == [0, 0] and cache.batch == 2
    cache.append(0, k, v)
    assert_same_bits(contents(cache, 0)[1][0], k[1])


@both
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers must be 1 or more, not 0"),
        ({"batch": 0}, "batch must be 1 or more"),
        ({"kv_heads": -1}, "kv_heads must be 1 or more, not -1"),
        ({"value_dim": 0}, "value_dim must be 1 or more"),
        ({"max_length": 0}, "max_length must be 1 or more"),
        ({"dtype": np.float64}, "dtype must be float32, float16 or bfloat16, not float64"),
        ({"dtype": np.int8}, "dtype must be float32, float16 or bfloat16, not int8"),
        ({"dtype": "none such"}, "dtype must be .*, not 'none such'"),
    ],
)
def test_bad_sizes(make: Callable[..., Cache], change: dict[str, Any], message: str) -> None:
    kind = type(make(1))
    given = {"layers": 1, "batch": 1, "kv_heads": 1, "head_dim": 1}
    given |= {"pages": 1} if kind is na.PagedKVCache else {}
    with pytest.raises(ValueError, match=message):
        kind(**{**given, **change})


def test_bad_sizes_of_each() -> None:
    with pytest.raises(ValueError, match="capacity must be 0 or more, not -1"):
        contiguous(1, capacity=-1)
    with pytest.raises(ValueError, match="window must be 0 or more, or None, not -1"):
        contiguous(1, window=-1)
    with pytest.raises(ValueError, match="window must have one entry for each of 2 layers, not 3"):
        contiguous(1, window=[1, 2, 3])
    with pytest.raises(ValueError, match="page_size must be 1 or more, not 0"):
        paged(1, page_size=0)
    with pytest.raises(ValueError, match="pages must be 1 or more, not 0"):
        paged(1, pages=0)
    with pytest.raises(ValueError, match="rows must be in 0 … 0"):
        paged(1).block_table([1])


@pytest.mark.parametrize(
    ("capacity", "error"), [(1 << 44, MemoryError), (1 << 58, ValueError), (1 << 70, ValueError)]
)
def test_memory_that_cannot_be_had(
    capacity: int, error: type[Exception], rng: np.random.Generator
) -> None:
    """More than there is, and sizes whose product, or which themselves, pass 64 bits."""
    k, v = tokens(rng, 1, 2)
    with pytest.raises(error):
        contiguous(1, capacity=capacity).append(0, k, v)
    with pytest.raises((MemoryError, ValueError)):
        paged(1, pages=capacity)
    cache = contiguous(1)
    cache.append(0, k, v)
    cache._stores[0].first_capacity = 1 << 44  # the next growth fails
    with pytest.raises(MemoryError):
        cache.append(0, k, v)
    assert cache.layer_lengths(0) == [2]
    assert_same_bits(contents(cache, 0)[0][0], k[0])


@both
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_queries_are_those_of_the_new_tokens(
    make: Callable[..., Cache], layout: str, rng: np.random.Generator
) -> None:
    """Fewer would be taken for the first of them, more for tokens that are not there."""
    cache = make(2)
    cache.append(0, *tokens(rng, 2, 4))
    k, v = tokens(rng, 2, 3)
    q = np.concatenate((k, k), 2)
    k, v, q = (x if layout == "bhsd" else x.swapaxes(1, 2) for x in (k, v, q))
    for count in (0, 1, 2, 4, 6):
        part = q[:, :, :count] if layout == "bhsd" else q[:, :count]
        with pytest.raises(ValueError, match=f"q must hold as many tokens .*, 3, not {count}: "):
            cache.attend(0, part, k, v, layout=layout)
        assert cache.layer_lengths(0).tolist() == [4, 4]
