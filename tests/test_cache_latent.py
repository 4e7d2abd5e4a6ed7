"""Caches whose values are the first elements of keys (multi-head latent attention): held once."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal
from numattn.cache import Cache
from tolerance import assert_same_bits, expect

Array = np.ndarray[Any, Any]
LAYERS, HEADS, WIDTH, LATENT = 2, 16, 40, 32


def contiguous(batch: int, **options: Any) -> na.KVCache:
    return na.KVCache(LAYERS, batch, 1, WIDTH, value_dim=LATENT, shared_values=True, **options)


def paged(batch: int, **options: Any) -> na.PagedKVCache:
    return na.PagedKVCache(
        LAYERS, batch, 1, WIDTH, value_dim=LATENT, shared_values=True, pages=64, page_size=3,
        **options,
    )  # fmt: skip


both = pytest.mark.parametrize("make", [contiguous, paged])


def steps(cache: Cache, q: Array, k: Array, **options: Any) -> list[Array]:
    """Return what each of a prompt of 5 tokens and single ones gives; tokens (B, ..., S, D)."""
    parts = [slice(0, 5), *(slice(i, i + 1) for i in range(5, k.shape[2]))]
    return [cache.attend(0, q[:, :, part], k[:, :, part], **options) for part in parts]


def data(rng: np.random.Generator, batch: int, count: int, dtype: str) -> tuple[Array, Array]:
    return (
        normal(rng, (batch, HEADS, count, WIDTH), dtype),
        normal(rng, (batch, 1, count, WIDTH), dtype),
    )


@both
@pytest.mark.parametrize("storage", [None, "int8"])
@pytest.mark.parametrize("dtype", [*DTYPES])
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_steps_are_those_of_attention(
    isa: str, make: Callable[..., Cache], storage: Any, dtype: str, layout: Any,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    q, k = data(rng, 2, 9, dtype)
    cache = make(2, dtype=DTYPES[dtype], storage=storage)
    held, scale = (k, None) if storage is None else na.quantize(k)
    first = 0
    for last in (5, 6, 9):
        new = [x[:, :, first:last] for x in (q, k)]
        if layout == "bshd":
            new = [x.swapaxes(1, 2) for x in new]
        o = cache.attend(0, *new, layout=layout)
        scales = None if scale is None else scale[:, :, :last]
        expected = na.attention(
            q[:, :, first:last], held[:, :, :last], held[:, :, :last, :LATENT], is_causal=True,
            q_offset=first, k_scale=scales, v_scale=scales,
        )  # fmt: skip
        assert_same_bits(o if layout == "bhsd" else o.swapaxes(1, 2), expected)
        first = last


@both
def test_append_returns_a_view_of_keys(
    make: Callable[..., Cache], rng: np.random.Generator
) -> None:
    q, k = data(rng, 2, 6, "float32")
    cache = make(2)
    attend = na.attention if isinstance(cache, na.KVCache) else na.attention_paged
    held = cache.append(1, k, counts=[6, 4])
    assert np.shares_memory(held[0], held[1]) and held[1].shape[-1] == LATENT
    o = attend(q, **held._asdict(), is_causal=True)  # type: ignore[operator]
    expect(q[:1], k[:1], k[:1, ..., :LATENT], is_causal=True).check(o[:1])


@both
@pytest.mark.parametrize("storage", [None, "int8"])
def test_memory_is_held_once(make: Callable[..., Cache], storage: Any) -> None:
    cache = make(1, storage=storage)
    k = np.ones((1, 1, 192, WIDTH), np.float32)
    for layer in range(LAYERS):
        cache.append(layer, k)
    per_token = WIDTH * 4 if storage is None else WIDTH + 4
    assert cache.nbytes == LAYERS * 192 * per_token


@both
@pytest.mark.parametrize("storage", [None, "int8"])
def test_forked_cut_copied_and_pickled(
    make: Callable[..., Cache], storage: Any, rng: np.random.Generator
) -> None:
    q, k = data(rng, 2, 12, "float32")
    cache = make(2, storage=storage)
    cache.append(0, k[:, :, :7])
    cache.append(1, k[:, :, :7])
    cache.fork([1, 0, 1])
    cache.truncate([7, 5, 4])
    others = [copy.deepcopy(cache), pickle.loads(pickle.dumps(cache, protocol=5))]
    new_q, new_k = (x[[1, 0, 1], :, 7:8] for x in (q, k))
    o = cache.attend(0, new_q, new_k)
    for row, (source, length) in enumerate([(1, 7), (0, 5), (1, 4)]):
        alone = make(1, storage=storage)
        alone.append(0, k[source : source + 1, :, :length])
        one = slice(row, row + 1)
        assert_same_bits(o[one], alone.attend(0, new_q[one], new_k[one]))
    for other in others:
        assert other.shared_values
        assert_same_bits(other.attend(0, new_q, new_k), o)
        assert other.lengths.tolist() == [7, 5, 4]


def test_windows_and_slack_keep_what_is_seen(rng: np.random.Generator) -> None:
    q, k = data(rng, 1, 40, "float32")
    cache = contiguous(1, window=6, slack=2, sink_tokens=2)
    for first, o in zip([0, *range(5, 40)], steps(cache, q, k), strict=True):
        last = first + o.shape[2]
        expected = expect(
            q[:, :, first:last], k[:, :, :last], k[:, :, :last, :LATENT], is_causal=True,
            q_offset=first, window=(6, None), sink_tokens=2,
        )  # fmt: skip
        expected.check(o)
    assert cache._stores[0].capacity < 30
    cache.truncate(38)
    again = cache.attend(0, q[:, :, 38:39], k[:, :, 38:39])
    expected = expect(
        q[:, :, 38:39], k[:, :, :39], k[:, :, :39, :LATENT], is_causal=True, q_offset=38,
        window=(6, None), sink_tokens=2,
    )  # fmt: skip
    expected.check(again)


@both
def test_rows_with_several_tokens_each(
    make: Callable[..., Cache], rng: np.random.Generator
) -> None:
    """Which are attended to row by row."""
    q, k = data(rng, 2, 6, "float32")
    o = make(2).attend(0, q, k, counts=[6, 3])
    for row, count in enumerate((6, 3)):
        one = slice(row, row + 1)
        alone = make(1).attend(0, q[one, :, :count], k[one, :, :count])
        assert_same_bits(o[one, :, :count], alone)


@both
def test_appended_are_views_of_the_cache_itself(
    make: Callable[..., Cache], rng: np.random.Generator
) -> None:
    _, k = data(rng, 1, 3, "float32")
    cache = make(1)
    held = cache.append(0, k)
    tokens = held[0][:, :, :3] if isinstance(cache, na.KVCache) else held[0][:1].swapaxes(1, 2)
    cache.append(0, tokens)
    got = cache.append(0, k[:, :, :0])
    if isinstance(cache, na.KVCache):
        assert_same_bits(got.k, np.concatenate([k, k], 2))
    else:
        rows = got.k_pages[got.block_table[0]].reshape(6, WIDTH)
        assert_same_bits(rows, np.tile(k[0, 0], (2, 1)))


@both
def test_bad_input(make: Callable[..., Cache], rng: np.random.Generator) -> None:
    q, k = data(rng, 1, 2, "float32")
    cache = make(1)
    message = "v must not be given: the values of this cache are the first 32 elements of k"
    with pytest.raises(TypeError, match=message):
        cache.append(0, k, k[..., :LATENT])
    with pytest.raises(TypeError, match=message):
        cache.attend(0, q, k, k[..., :LATENT])
    with pytest.raises(ValueError, match=r"k must have shape \(1, 1, S, 40\) in this cache"):
        cache.append(0, k[..., :LATENT])
    with pytest.raises(ValueError, match="k must have shape"):
        cache.append(0, np.float32(1))  # type: ignore[arg-type]
    assert cache.lengths.tolist() == [0]
    with pytest.raises(ValueError, match="value_dim must be head_dim 40 at most .* not 41"):
        na.KVCache(1, 1, 1, 40, value_dim=41, shared_values=True)
    with pytest.raises(ValueError, match="wide_keys has no meaning with shared_values"):
        make(1, storage="int8", wide_keys=np.zeros(WIDTH, bool))
    with pytest.raises(TypeError, match="shared_values must be"):
        na.KVCache(1, 1, 1, 40, shared_values="no")  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [na.KVCache, lambda *a: na.PagedKVCache(*a, pages=2)])
def test_other_caches_want_values(make: Any, rng: np.random.Generator) -> None:
    cache = make(1, 1, 1, 8)
    k = normal(rng, (1, 1, 2, 8))
    with pytest.raises(TypeError, match="v must be given: the cache stores keys and values apart"):
        cache.append(0, k)
    with pytest.raises(TypeError, match="v must be given"):
        cache.layer(0).attend(k, k)
