"""`Cache.keep_only`: of guesses that branch, the tokens of one path are kept, and move together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import numattn as na


@pytest.mark.parametrize("storage", [None, "int8"])
@pytest.mark.parametrize("kind", ["contiguous", "paged"])
def test_tokens_that_are_kept(kind: str, storage: Any, rng: np.random.Generator) -> None:
    """Against rows that got those tokens alone; a row that shares its pages has its own then."""
    sizes: Any = {"layers": 2, "kv_heads": 2, "head_dim": 8, "storage": storage}
    if kind == "paged":
        sizes |= {"pages": 60, "page_size": 3}
    made = {"contiguous": na.KVCache, "paged": na.PagedKVCache}[kind]
    tokens = rng.normal(size=(2, 2, 3, 2, 11, 8)).astype(np.float32)  # layer, k or v, row
    starts, places = [4, 0, 11], [[0, 2, 3, 6], [1, 5, 10], []]
    cache, expected = made(batch=3, **sizes), made(batch=3, **sizes)
    counts = [len(each) + start for each, start in zip(places, starts, strict=True)]
    for layer, (k, v) in enumerate(tokens):
        cache.append(layer, k, v)
        wanted = np.zeros_like(k), np.zeros_like(v)
        for row, (start, place) in enumerate(zip(starts, places, strict=True)):
            which = [*range(start), *(start + each for each in place)]
            for target, source in zip(wanted, (k, v), strict=True):
                target[row, :, : len(which)] = source[row][:, which]
        expected.append(layer, *wanted, counts=counts)
    shared = None
    if kind == "paged":
        before = [each.copy() for each in values(cache, 0)]
        shared = cache.gather([(cache, 0), (cache, 1)])
    cache.keep_only(starts, places)
    assert cache.lengths.tolist() == counts
    for layer in range(2):
        for row, (one, other) in enumerate(
            zip(values(cache, layer), values(expected, layer), strict=True)
        ):
            np.testing.assert_array_equal(one, other, err_msg=str((layer, row)))
    if shared is not None:
        for one, other in zip(values(shared, 0), before, strict=False):
            np.testing.assert_array_equal(one, other)


def values(cache: Any, layer: int) -> list[NDArray[Any]]:
    """Return the keys and values of each row, side by side: (Hkv, length, 2 · D)."""
    q = np.zeros((cache.batch, 2, 0, 8), np.float32)
    held = cache.append(layer, q, q)
    if isinstance(cache, na.KVCache):
        arrays = [held.k, held.v]
        if held.k_scale is not None:
            arrays = [
                x * scale[..., None]
                for x, scale in zip(arrays, (held.k_scale, held.v_scale), strict=True)
            ]
        joined = np.concatenate(arrays, axis=3)
        return [joined[row][:, :length] for row, length in enumerate(cache.lengths)]
    rows = []
    for row, length in enumerate(cache.lengths):
        pages = held.block_table[row]
        arrays = [held.k_pages[pages], held.v_pages[pages]]
        if held.k_scale is not None:
            scales = (held.k_scale[pages], held.v_scale[pages])
            arrays = [x * scale[..., None] for x, scale in zip(arrays, scales, strict=True)]
        joined = np.concatenate(arrays, axis=3)
        flat = joined.reshape(-1, *joined.shape[2:])[:length]
        rows.append(flat.swapaxes(0, 1))
    return rows


def test_what_cannot_be_kept() -> None:
    cache = na.KVCache(layers=1, batch=2, kv_heads=1, head_dim=8)
    x = np.arange(80, dtype=np.float32).reshape(2, 1, 5, 8)
    cache.append(0, x, x)
    for starts, places, message in (
        ([1, 1], [[0]], "places must be for each of 2 rows, not 1"),
        ([1, 1], [[0], [4]], r"places\[1\] names token 5, and the row has 5"),
        ([1, 1], [[1, 0], []], r"places\[0\] must be numbers from 0 on in order"),
        ([1, 1], [[1, 1], []], r"places\[0\] must be numbers from 0 on in order"),
        ([1, 1], [[-1], []], r"places\[0\] must be numbers from 0 on in order"),
        ([-1, 1], [[], []], "lengths must be 0 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            cache.keep_only(starts, places)
        assert cache.lengths.tolist() == [5, 5]
    with pytest.raises(TypeError, match=r"places\[0\]"):
        cache.keep_only([1, 1], [[0.5], []])
    window = na.KVCache(layers=1, batch=1, kv_heads=1, head_dim=8, window=9)
    window.append(0, x[:1], x[:1])
    with pytest.raises(ValueError, match="a cache with windows"):
        window.keep_only([1], [[1]])
    assert window.lengths.tolist() == [5]
    window.keep_only([1], [[0, 1]])
    assert window.lengths.tolist() == [3]
    pages = na.PagedKVCache(1, batch=1, kv_heads=1, head_dim=8, pages=2, page_size=4)
    pages.append(0, x[:1], x[:1])
    other = pages.gather([(pages, 0)])
    with pytest.raises(MemoryError, match="out of pages"):
        pages.keep_only([0], [[1]])
    assert pages.lengths.tolist() == other.lengths.tolist() == [5]
