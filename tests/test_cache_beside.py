"""Caches whose rows share one pool: `PagedKVCache.beside` and `join`."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

import numattn as na
from tiny_decoders import load, random_ids, write_folder
from tolerance import assert_same_bits

LAYERS, HEADS, WIDTH = 2, 2, 8


def cache_of(pages: int = 12, batch: int = 1) -> na.PagedKVCache:
    return na.PagedKVCache(LAYERS, batch, HEADS, WIDTH, pages=pages, page_size=4)


def fill(cache: na.PagedKVCache, count: int, value: float) -> None:
    tokens = np.full((cache.batch, HEADS, count, WIDTH), value, np.float32)
    for layer in range(LAYERS):
        cache.append(layer, tokens, tokens)


def held(cache: na.PagedKVCache, row: int) -> list[float]:
    """Return the tokens of a row, of which each is one number throughout."""
    nothing = np.empty((cache.batch, HEADS, 0, WIDTH), np.float32)
    cached = cache.append(1, nothing, nothing)
    pages = np.asarray(cached.k_pages)[cached.block_table[row]]
    return pages.reshape(-1, HEADS, WIDTH)[: cache.lengths[row], 0, 0].tolist()


def test_rows_move_without_a_copy() -> None:
    cache = cache_of()
    fill(cache, 6, 1)
    other = cache.beside(2)
    assert (other.batch, other.lengths.tolist(), other.free_pages) == (2, [0, 0], 10)
    fill(other, 3, 2)
    fill(cache, 1, 3)
    assert cache.free_pages == other.free_pages == 8
    tables = [cache.block_table().tolist()[0], *other.block_table().tolist()]
    assert len({page for table in tables for page in table}) == 4
    cache.join(other)
    assert cache.lengths.tolist() == [7, 3, 3] and other.lengths.tolist() == [0, 0]
    assert cache.free_pages == 8
    assert [table[0] for table in cache.block_table().tolist()] == [table[0] for table in tables]
    fill(cache, 2, 4)
    fill(other, 1, 5)
    assert held(cache, 0) == [1] * 6 + [3, 4, 4]
    assert held(cache, 1) == held(cache, 2) == [2, 2, 2, 4, 4]
    assert held(other, 1) == [5]


def test_pages_of_either_are_free_for_both() -> None:
    cache = cache_of(4)
    other = cache.beside(1)
    fill(other, 16, 1)
    with pytest.raises(MemoryError, match="1 more are needed, and 0 of 4"):
        fill(cache, 1, 2)
    other.free([0])
    fill(cache, 16, 2)
    assert cache.free_pages == 0
    cache.free([0])
    assert other.free_pages == 4


def test_rows_that_share_pages_do_so_after_joining() -> None:
    cache = cache_of()
    other = cache.beside(1)
    fill(other, 6, 1)
    other.fork([0, 0])
    cache.join(other)
    fill(cache, 1, 2)
    assert held(cache, 1) == held(cache, 2) == [1] * 6 + [2]
    cache.fork([1])
    assert held(cache, 0) == [1] * 6 + [2] and cache.free_pages == 10


def test_what_cannot_be_joined() -> None:
    cache = cache_of()
    with pytest.raises(ValueError, match="beside"):
        cache.join(cache)
    with pytest.raises(ValueError, match="beside"):
        cache.join(cache_of())
    with pytest.raises(ValueError, match="beside"):
        cache.join(copy.deepcopy(cache.beside(1)))
    with pytest.raises(ValueError, match="batch must be 1 or more"):
        cache.beside(0)


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
def test_a_row_goes_on_with_the_same_bits(
    family: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Read beside others, then joined to them: the logits are those of a row alone."""
    model = load(write_folder(tmp_path, family), family)
    prompts = [random_ids(rng, 1, length) for length in (9, 4, 13)]
    pool = model.new_paged_cache(1, pages=40, page_size=4)
    alone = [model.new_cache(1) for _ in prompts]
    running = pool.beside(1)
    model(prompts[0], cache=running)
    for prompt in prompts[1:]:
        reading = pool.beside(1)
        model(prompt, cache=reading)
        running.join(reading)
    for prompt, cache in zip(prompts, alone, strict=True):
        model(prompt, cache=cache)
    for _ in range(3):
        tokens = random_ids(rng, 3, 1)
        logits = model(tokens, cache=running)
        for row, cache in enumerate(alone):
            assert_same_bits(logits[row], model(tokens[row : row + 1], cache=cache)[0])
