"""Both kinds of cache, tokens for them, and what their rows hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import numattn as na
from numattn.cache import Cache
from tolerance import assert_same_bits

Array = NDArray[Any]
LAYERS, HEADS, WIDTH, VALUE_WIDTH = 2, 2, 8, 5
SIZES = {"kv_heads": HEADS, "head_dim": WIDTH, "value_dim": VALUE_WIDTH}


def contiguous(batch: int, **options: Any) -> na.KVCache:
    return na.KVCache(LAYERS, batch, **SIZES, **options)


def paged(batch: int, pages: int = 64, page_size: int = 3, **options: Any) -> na.PagedKVCache:
    return na.PagedKVCache(LAYERS, batch, **SIZES, pages=pages, page_size=page_size, **options)


both = pytest.mark.parametrize("make", [contiguous, paged])


def tokens(rng: np.random.Generator, batch: int, count: int) -> tuple[Array, Array]:
    """Return new keys and values (B, H, S, ...)."""
    return (
        rng.standard_normal((batch, HEADS, count, WIDTH), np.float32),
        rng.standard_normal((batch, HEADS, count, VALUE_WIDTH), np.float32),
    )


def contents(cache: Cache, layer: int) -> list[tuple[Array, Array]]:
    """Return what each row holds, (H, length, ...), by an append of nothing."""
    k = np.empty((cache.batch, HEADS, 0, WIDTH), cache.dtype)
    got = cache.append(layer, k, k[..., :VALUE_WIDTH])
    if isinstance(cache, na.KVCache):
        held = [(got.k[b, :, :n], got.v[b, :, :n]) for b, n in enumerate(got.kv_lens)]
    else:
        held = []
        for table, length in zip(got.block_table, got.kv_lens, strict=True):
            rows = [
                pages[table].reshape(-1, *pages.shape[2:])[:length].swapaxes(0, 1)
                for pages in (got.k_pages, got.v_pages)
            ]
            held.append((rows[0], rows[1]))
    return [(k.copy(), v.copy()) for k, v in held]


def assert_holds(cache: Cache, expected: list[list[tuple[Array, Array]]]) -> None:
    """Check layers of rows of (k, v), bit by bit."""
    for layer, rows in enumerate(expected):
        for got, wanted in zip(contents(cache, layer), rows, strict=True):
            assert_same_bits(got[0], wanted[0])
            assert_same_bits(got[1], wanted[1])
