"""Attention over a cache whole, in chunks and step by step: alike, and the same bits when repeated.

At the level of models, tests/test_decoders.py says so; of modules, tests/test_mha_cache.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import numattn as na
from caches import HEADS, VALUE_WIDTH, WIDTH, both, contiguous, paged
from cases import DTYPES
from numattn.cache import Cache
from tolerance import assert_same_bits, expect

LENGTH = 70
CHUNKS = (1, 16, 23, LENGTH)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"window": (20, None)},
    "scores": {"scale": 0.3, "softcap": 5.0, "sinks": np.linspace(-1, 1, 2 * HEADS)},
    "alibi": {"alibi_slopes": np.linspace(0.1, 0.4, 2 * HEADS)},
}


def inputs(rng: np.random.Generator, dtype: Any) -> list[NDArray[Any]]:
    shapes = ((2 * HEADS, WIDTH), (HEADS, WIDTH), (HEADS, VALUE_WIDTH))
    return [
        rng.standard_normal((2, heads, LENGTH, width), np.float32).astype(dtype)
        for heads, width in shapes
    ]


def read(cache: Cache, given: list[NDArray[Any]], chunk: int, **options: Any) -> NDArray[Any]:
    parts = [
        cache.attend(0, *(x[:, :, start : start + chunk] for x in given), **options)
        for start in range(0, LENGTH, chunk)
    ]
    return np.concatenate(parts, axis=2)


@both
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("chunk", CHUNKS)
def test_any_chunks_are_as_the_whole_and_the_same_ones_the_same_bits(
    isa: str,
    rng: np.random.Generator,
    make: Callable[..., Cache],
    chunk: int,
    name: str,
    dtype: str,
) -> None:
    given, options = inputs(rng, DTYPES[dtype]), OPTIONS[name]
    first = read(make(2, dtype=DTYPES[dtype]), given, chunk, num_threads=1, **options)
    expect(*given, is_causal=True, **options).check(first)
    for num_threads in (1, 2, 3, None):
        cache = make(2, dtype=DTYPES[dtype])
        again = read(cache, given, chunk, num_threads=num_threads, **options)
        assert_same_bits(again, first, f"{num_threads} threads")


@both
def test_neither_rows_beside_it_nor_capacity_change_a_row(
    isa: str, rng: np.random.Generator, make: Callable[..., Cache]
) -> None:
    given = inputs(rng, np.float32)
    together = read(make(2), given, 16)
    for row in range(2):
        alone = read(make(1), [x[row : row + 1] for x in given], 16)
        assert_same_bits(alone[0], together[row])
    roomy = contiguous(2, capacity=500) if make is contiguous else paged(2, pages=200)
    assert_same_bits(read(roomy, given, 16), together)


def test_a_cut_and_the_same_tokens_again(isa: str, rng: np.random.Generator) -> None:
    """What was cut off leaves no trace."""
    given = inputs(rng, np.float32)
    for cache in (na.KVCache(1, 2, HEADS, WIDTH, value_dim=VALUE_WIDTH), paged(2)):
        expected = read(cache, given, 16)
        cache.truncate(32)
        again = [
            cache.attend(0, *(x[:, :, start : start + 16] for x in given))
            for start in range(32, LENGTH, 16)
        ]
        assert_same_bits(np.concatenate(again, axis=2), expected[:, :, 32:])
