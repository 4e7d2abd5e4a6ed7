"""`attend` of both caches beside `append` and attention: the same bits, and the same care."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numattn as na
from caches import HEADS, VALUE_WIDTH, WIDTH, Array, both, contents, contiguous, paged, tokens
from numattn.cache import Cache
from tolerance import assert_same_bits


def attention_of(cache: Cache, q: Array, held: Any, **score: Any) -> Array:
    attend = na.attention if isinstance(cache, na.KVCache) else na.attention_paged
    o: Array = attend(q, is_causal=True, **held._asdict(), **score)
    return o


def queries(rng: np.random.Generator, batch: int, count: int) -> Array:
    return rng.standard_normal((batch, 2 * HEADS, count, WIDTH), np.float32)


@both
@pytest.mark.parametrize("options", [{}, {"storage": "int8"}, {"dtype": "bfloat16"}])
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("score", [{}, {"scale": 0.3, "softcap": 5.0, "window": (4, 0)}])
def test_attend_is_append_and_attention(
    isa: str,
    make: Callable[..., Cache],
    options: dict[str, Any],
    layout: str,
    score: dict[str, Any],
    rng: np.random.Generator,
) -> None:
    """Bit by bit, and both caches then hold the same; tokens have any strides."""
    mine, other = make(3, **options), make(3, **options)
    for size, counts in ((5, [5, 0, 3]), (1, None), (1, [1, 1, 0]), (1, None), (7, None)):
        k, v, q = (x.astype(mine.dtype) for x in (*tokens(rng, 3, size), queries(rng, 3, size)))
        if layout == "bshd":
            k, v, q = (x.swapaxes(1, 2) for x in (k, v, q))
        k = np.repeat(k, 2, axis=3)[..., ::2]
        got = mine.attend(1, q, k, v, counts=counts, layout=layout, **score)
        held = other.append(1, k, v, counts=counts, layout=layout)
        if size == 1 or counts is None:
            expected = attention_of(other, q, held, layout=layout, **score)
        else:  # each row by itself, and 0 for what is no token of it
            expected = np.zeros_like(got)
            for row, count in enumerate(counts):
                real = (slice(row, row + 1), *[slice(None)] * (layout == "bhsd"), slice(count))
                own = held.row(row)
                expected[real] = attention_of(other, q[real], own, layout=layout, **score)
        assert_same_bits(got, expected)
        assert mine.layer_lengths(1).tolist() == other.layer_lengths(1).tolist()
    k, q = k[:, :, :0], q[:, :, :0]
    if layout == "bhsd" and "storage" not in options:
        for one, two in zip(contents(mine, 1), contents(other, 1), strict=True):
            assert_same_bits(one[0], two[0])
            assert_same_bits(one[1], two[1])


@pytest.mark.parametrize("window", [None, 5])
def test_a_long_walk_of_single_tokens(window: int | None, rng: np.random.Generator) -> None:
    """Through growth and moves of a window, every step against all tokens at once."""
    cache, k, v = contiguous(2, window=window), *tokens(rng, 2, 90)
    q = queries(rng, 2, 90)
    for n in range(90):
        at = slice(n, n + 1)
        got = cache.attend(0, q[:, :, at], k[:, :, at], v[:, :, at])
        first = 0 if window is None else max(n - window, 0)
        expected = na.attention(q[:, :, at], k[:, :, first : n + 1], v[:, :, first : n + 1])
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@both
def test_out_lies_apart_from_the_cache_and_from_the_tokens(
    make: Callable[..., Cache], rng: np.random.Generator
) -> None:
    cache = make(2)
    k, v = tokens(rng, 2, 3)
    q = queries(rng, 2, 3)
    cache.append(0, k, v)
    wide = np.zeros((2, 2 * HEADS, 3, VALUE_WIDTH), np.float32)
    assert cache.attend(0, q, k, v, out=wide) is wide
    assert cache.layer_lengths(0).tolist() == [6, 6]
    held = cache.append(0, k[:, :, :0], v[:, :, :0])
    memory = held.v if isinstance(held, na.cache.Cached) else held.v_pages
    inside = np.lib.stride_tricks.as_strided(
        memory, (2, 2 * HEADS, 3, VALUE_WIDTH), (0, 0, 0, memory.itemsize), writeable=True
    )
    for bad, name in ((inside, "v"), (np.broadcast_to(q[..., :VALUE_WIDTH], wide.shape), "q")):
        with pytest.raises(ValueError, match=f"out overlaps {name}"):
            cache.attend(0, q, k, v, out=bad)
    with pytest.raises(TypeError, match="out must be a NumPy array"):
        cache.attend(0, q, k, v, out=[0.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="out must have shape"):
        cache.attend(0, q, k, v, out=wide[:, :, :2])
    assert cache.layer_lengths(0).tolist() == [6, 6]


@both
def test_attend_refuses_in_the_words_of_attention(
    make: Callable[..., Cache], rng: np.random.Generator
) -> None:
    cache = make(2)
    k, v = tokens(rng, 2, 1)
    q = queries(rng, 2, 1)
    cache.attend(0, q, k, v)
    name = type(cache).__name__
    for act, error, message in (
        (lambda: cache.attend(0, q, k, v, sacle=1.0), TypeError,
         rf"{name}.attend\(\) got an unexpected keyword argument 'sacle'. Did you mean 'scale'"),
        (lambda: cache.attend(0, q, k, v, scale="1"), TypeError, "scale must be a real number"),
        (lambda: cache.attend(0, q, k, v, softcap=-1.0), ValueError, "softcap must be positive"),
        (lambda: cache.attend(0, q, k, v, window=3), ValueError, "window must be a pair"),
        (lambda: cache.attend(0, q, k, v, num_threads=0), ValueError, "num_threads must be at"),
        (lambda: cache.attend(0, q, k, v, counts=[2, 1]), ValueError,
         r"counts must be in 0 … 1, not \[2, 1\]"),
        (lambda: cache.attend(0, q, k, v, counts=[-1, 1]), ValueError, r"not \[-1, 1\]"),
        (lambda: cache.attend(0, q[..., :4], k, v), ValueError, "same head dimension"),
        (lambda: cache.attend(0, q.astype(np.float16), k, v), TypeError, "must have one dtype"),
        (lambda: cache.attend(0, q, k, v, sinks=[1.0]), ValueError, "sinks must have one logit"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            act()
        assert cache.layer_lengths(0).tolist() == [1, 1]
    if isinstance(cache, na.PagedKVCache):
        assert cache.free_pages == 62


def test_rows_may_attend_to_tokens_that_are_views_of_the_cache(rng: np.random.Generator) -> None:
    for make in (lambda: contiguous(2, capacity=32), lambda: paged(2, page_size=16)):
        cache, expected = make(), make()
        k, v = tokens(rng, 2, 6)
        q = queries(rng, 2, 6)
        held = cache.append(0, k, v)
        expected.append(0, k, v)
        if isinstance(held, na.cache.Cached):
            views = held.k[::-1], held.v[::-1]
        else:
            views = tuple(pool[1::-1, :6].swapaxes(1, 2) for pool in (held.k_pages, held.v_pages))
        copies = [x.copy() for x in views]
        for the_cache in (cache, expected):
            the_cache.truncate(2)
        got = cache.attend(0, q, *views)
        assert_same_bits(got, expected.attend(0, q, *copies))


def test_memory_is_shared_by_layers_of_a_size_and_goes_with_the_last() -> None:
    """Blocks of 64-byte pieces; growth takes new ones, and nobody keeps the old."""
    cache = na.KVCache(3, 1, 1, 16, capacity=4)
    new = np.ones((1, 1, 1, 16), np.float32)
    held = [cache.append(layer, new, new) for layer in range(3)]
    bases = {id(each.k.base) for each in held} | {id(each.v.base) for each in held}
    assert len(bases) == 1
    starts = [each.k.ctypes.data for each in held]
    assert starts[1] - starts[0] == starts[2] - starts[1] == 2 * 4 * 64
    assert all(start % 64 == 0 for start in starts)
    blocks = cache._stores[0].memory._blocks
    block = next(iter(blocks.values()))[0]
    assert block() is not None
    del held
    for _ in range(4):
        for layer in range(3):
            cache.append(layer, new, new)
    assert block() is None


def test_large_layers_lie_on_huge_pages() -> None:
    cache = na.KVCache(2, 1, 1, 64, capacity=1 << 15)
    new = np.ones((1, 1, 1, 64), np.float32)
    held = [cache.append(layer, new, new) for layer in range(2)]
    assert all(each.k.ctypes.data % (2 << 20) == 0 for each in held)
    assert held[0].k.base is not held[1].k.base
    pool = na.PagedKVCache(2, 1, 1, 64, pages=1 << 11)
    assert pool.append(0, new, new).k_pages.ctypes.data % (2 << 20) == 0
