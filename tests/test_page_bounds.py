"""Bounds of pages that a cache keeps, beside those made anew, whatever becomes of its pages."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import numattn as na
from caches import HEADS, LAYERS, WIDTH, contents, contiguous, paged, tokens
from cases import DTYPES
from numattn import approx
from tolerance import assert_same_bits

PAGE = 3


def assert_right(cache: na.PagedKVCache) -> None:
    """Check both layers: of every page that a row has filled, the least and the largest keys."""
    for layer in range(LAYERS):
        bounds, lengths = cache.page_bounds(layer), cache.layer_lengths(layer)
        held = contents(cache, layer)
        for row, table in enumerate(cache.block_table()):
            k = held[row][0].swapaxes(0, 1)  # (length, Hkv, D)
            for place in range(lengths[row] // PAGE):
                page = k[place * PAGE : (place + 1) * PAGE]
                assert_same_bits(bounds.low[table[place]], page.min(axis=0))
                assert_same_bits(bounds.high[table[place]], page.max(axis=0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_done_to_a_cache(dtype: str, seed: int) -> None:
    """Tokens come and go, pages are shared, copied on writing, given back and taken again."""
    rng = np.random.default_rng(seed)
    cache = paged(2, pages=60, page_size=PAGE, dtype=DTYPES[dtype])
    for _ in range(60):
        act = rng.integers(0, 8)
        if act < 4:
            count = int(rng.integers(1, 9))
            k, v = (x.astype(cache.dtype) for x in tokens(rng, 2, count))
            counts = rng.integers(0, count + 1, 2)
            if (cache.lengths + counts).max() <= 40:
                for layer in range(LAYERS if act else 1):  # one layer alone, taken back
                    cache.append(layer, k, v, counts=counts)
                    if not act:
                        assert_right(cache)
                        cache.truncate(cache.lengths)
        elif act < 6:
            cache.truncate(np.maximum(cache.lengths - rng.integers(0, 7, 2), 0))
        elif act == 6:
            cache.fork(rng.integers(0, 2, 2))
        else:
            cache.free([int(rng.integers(0, 2))])
        assert_right(cache)
    for other in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert_right(other)


def test_a_step_by_them(rng: np.random.Generator) -> None:
    """The result is that of bounds made anew, and few pages are looked at for it."""
    cache = paged(2, pages=400, page_size=PAGE)
    cache.append(0, *tokens(rng, 2, 500))
    for _ in range(7):
        held = cache.append(0, *tokens(rng, 2, 1))
        q = rng.standard_normal((2, 2 * HEADS, 1, WIDTH), np.float32)
        given = (q, held.k_pages, held.v_pages, held.block_table, held.kv_lens, 20)
        kept = cache.page_bounds(0)
        wanted = approx.top_pages(*given, bounds=approx.page_bounds(held.k_pages))
        assert_same_bits(approx.top_pages(*given, bounds=kept), wanted)
    assert cache.page_bounds(0).low is kept.low


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="layer must be in 0 … 1, not 2"):
        paged(1).page_bounds(2)
    with pytest.raises(ValueError, match="storage 'int8' has no bounds"):
        paged(1, storage="int8").page_bounds(0)
    assert not hasattr(contiguous(1), "page_bounds")
