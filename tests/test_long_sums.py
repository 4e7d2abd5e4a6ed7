"""Sums over very many keys: their error does not grow with the number, and folds leave no trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal, unit_inputs
from tolerance import HIGH, UNIT_ROUNDOFF, assert_same_bits, expect

# Keys of a chunk, after which the state of a block is folded: in vector registers, and in the tile
# unit, of bfloat16 and of two parts.
FOLD, TILE_FOLD, PARTS_FOLD = 4608, 8192, 1024
SMALLEST = {"float32": 2.0**-149, "bfloat16": 2.0**-133}
MANY_ROWS = 129  # of a key head: as many as are not split along the keys


def chain_bound(rows: int, keys: int, **options: Any) -> float:
    """Return the relative error of a sum of equal numbers, all of whose roundings go one way.

    The i-th of n additions rounds a sum of i terms, by at most u of it: all of them together by
    u·n/2 of the whole. There is one chain within a tile, one of the tiles of a split or between two
    folds, and a last rounding of their sum; then the division and the sum of the weights, which is
    exact here. 4 for those, weights and scores.
    """
    plan = na.plan((1, 1, rows, 8), (1, 1, keys, 8), **options)
    tiles = (plan.split_keys if plan.is_split else FOLD) / plan.key_block
    return UNIT_ROUNDOFF["float32"] * ((plan.key_block + tiles) / 2 + 4)


def mean_error(rows: int, keys: int, dtype: str = "float32", **options: Any) -> float:
    """Return how far, relatively, the mean of equal values is from them."""
    q, k = np.zeros((1, 1, rows, 8), np.float32), np.zeros((1, 1, keys, 8), np.float32)
    number = np.linspace(0.1, 1, 16).astype(DTYPES[dtype])
    v = np.ascontiguousarray(np.broadcast_to(number, (1, 1, keys, 16)))
    o = na.attention(q.astype(DTYPES[dtype]), k.astype(DTYPES[dtype]), v, **options)
    exact = number.astype(np.float64)
    return float(np.abs(o.astype(np.float64) / exact - 1).max())


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "keys"), [(MANY_ROWS, 1 << 18), (1, 1 << 20), (20, 1 << 18)])
def test_equal_weights(isa: str, rows: int, keys: int) -> None:
    assert mean_error(rows, keys) <= chain_bound(rows, keys)


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "keys"), [(MANY_ROWS, 1 << 18), (1, 1 << 20)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_equal_weights_of_16_bits(isa: str, dtype: str, rows: int, keys: int) -> None:
    """Nothing but the rounding of the result."""
    assert mean_error(rows, keys, dtype) <= UNIT_ROUNDOFF[dtype]


@pytest.mark.slow
def test_equal_weights_in_parts(isa: str) -> None:
    """As far off as of few keys. Added up as single floats they were at 1.4 times that."""
    few, many = (mean_error(MANY_ROWS, keys, precision="high") for keys in (1 << 12, 1 << 18))
    assert many <= 1.2 * few <= HIGH


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, MANY_ROWS])
@pytest.mark.parametrize("kind", ["random", "rising", "falling"])
def test_other_weights(isa: str, rng: np.random.Generator, kind: str, rows: int) -> None:
    """Of positive values: there is a sum to err in. Rising scores move the peak at every fold."""
    keys = 1 << 17
    q, k, v = (normal(rng, (1, 1, n, 8)) for n in (rows, keys, keys))
    v = np.abs(v)
    if kind != "random":
        q[...], k[...] = 0, 0
        q[..., 0] = 1
        k[0, 0, :, 0] = np.linspace(0, 3, keys) * (1 if kind == "rising" else -1)
    o = na.attention(q, k, v)[0, 0, :4].astype(np.float64)
    scores = q[0, 0, :4].astype(np.float64) @ k[0, 0].T.astype(np.float64) / np.sqrt(8)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    exact = weights @ v[0, 0].astype(np.float64) / weights.sum(axis=1, keepdims=True)
    assert np.abs(o / exact - 1).max() <= chain_bound(rows, keys)


# Keys around the first folds.
KEYS = (FOLD - 1, FOLD, FOLD + 1, FOLD + 97, TILE_FOLD, TILE_FOLD + 1, 2 * FOLD, 2 * FOLD + 1)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"is_causal": True},
    "window": {"window": (FOLD + 300, 10)},
    "short window": {"window": (300, 0)},
    "softcap": {"softcap": 3.0},
    "sinks": {"sinks": np.array([2.0], np.float32)},
    "lengths": {"kv_lens": np.array([FOLD + 5])},
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("keys", KEYS)
def test_keys_around_a_fold(isa: str, rng: np.random.Generator, keys: int, dtype: str) -> None:
    q, k, v = unit_inputs(rng, (1, 1, 1), (MANY_ROWS, keys), (8, 9), dtype)
    options: dict[str, Any] = {"is_causal": True, "q_offset": keys - MANY_ROWS + 1}
    o, lse = na.attention(q, k, v, return_lse=True, **options)
    expect(q, k, v, **options).check(o, lse)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_that_see_parts(isa: str, rng: np.random.Generator, name: str, dtype: str) -> None:
    """Rows on both sides of a fold, of a mask that hides whole stretches from some of them."""
    rows, keys = 130, 2 * FOLD + 400
    q, k, v = unit_inputs(rng, (1, 1, 1), (rows, keys), (8, 9), dtype)
    mask = rng.random((rows, keys)) < 0.9
    mask[::3, : 2 * FOLD] = False
    mask[1::3, FOLD:] = False
    mask[5] = False
    for offset in (FOLD - 50, 2 * FOLD - 60):
        for extra in ({}, {"mask": mask}):
            options = {**OPTIONS[name], **extra, "q_offset": offset}
            o, lse = na.attention(q, k, v, return_lse=True, **options)
            expect(q, k, v, **options).check(o, lse)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("precision", ["highest", "high"])
def test_a_row_is_the_same_in_any_block(
    isa: str, rng: np.random.Generator, precision: Any, dtype: str
) -> None:
    """However many folds its block goes through before the row's first key and after its last."""
    rows, keys = 160, 2 * FOLD + PARTS_FOLD
    q, k, v = unit_inputs(rng, (1, 1, 1), (rows, keys), (8, 9), dtype)
    # Where such a number comes before keys of more weight and value 0, the sum is −0.
    v[..., 0] = np.where(np.arange(keys) % 200 < 100, -SMALLEST[dtype], 0)
    # Rows far apart: those of a block span many folds, and each sees two stretches of few keys, of
    # rising weight. What is masked for all rows of a block is not even visited.
    begins = rng.integers(0, keys - 200, (rows, 2))
    begins[:6, 0] = [0, FOLD, 2 * FOLD, TILE_FOLD, FOLD - 200, keys - 200]
    begins[7] = [PARTS_FOLD - 200, PARTS_FOLD + 100]
    begins.sort(axis=1)
    distance = np.arange(keys) - begins[..., None]
    seen = ((distance >= 0) & (distance < 200)).any(axis=1)
    rising = np.broadcast_to(np.linspace(0, 99, keys, dtype=np.float32), (rows, keys))
    bias = np.where(seen | (np.arange(rows)[:, None] < 100), rising, -np.inf).astype(np.float32)
    mask = seen | (np.arange(rows)[:, None] >= 100)
    given: dict[str, Any] = {"precision": precision, "return_lse": True}
    whole = na.attention(q, k, v, bias=bias, mask=mask, **given)
    wide = np.zeros((1, 1, keys, 18), v.dtype)
    wide[..., ::2] = v
    order = rng.permutation(rows)
    # In another order, in other blocks, and (of any other stride) in blocks of twice the size.
    for chosen, values in ((order, wide[..., ::2]), (order[:MANY_ROWS], v), ([7] * MANY_ROWS, v)):
        part = na.attention(
            q[:, :, chosen], k, values, bias=bias[chosen], mask=mask[chosen], **given
        )
        for got, expected in zip(part, whole, strict=True):
            assert_same_bits(got, expected[:, :, chosen])


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_stays_what_it_is(
    isa: str, rng: np.random.Generator, dtype: str
) -> None:
    """An infinity that was folded is no NaN, and neither reaches rows that do not see it."""
    rows, keys = 120, 2 * FOLD + 2350
    q, k, v = unit_inputs(rng, (1, 1, 1), (rows, keys), (8, 9), dtype)
    special = ((10, np.inf), (FOLD + 10, -np.inf), (2 * FOLD + 10, np.nan), (keys - 1, np.inf))
    clean = v.copy()
    for column, (key, number) in enumerate(special):
        v[0, 0, key, column], clean[0, 0, key, column] = number, 0
    for options in ({}, {"is_causal": True, "q_offset": keys - 60}, {"window": (None, FOLD - 60)}):
        sees = na.reference.attention_weights(q, k, **options)[0, 0] > 0
        expected = na.attention(q, k, clean, **options).astype(np.float32)
        for column, (key, number) in enumerate(special):
            expected[0, 0, sees[:, key], column] = number
        got = na.attention(q, k, v, **options).astype(np.float32)
        np.testing.assert_array_equal(got, expected)


def test_interrupts_and_threads_leave_no_trace(isa: str, rng: np.random.Generator) -> None:
    """A block is visited in stretches that are no folds."""
    q, k, v = unit_inputs(rng, (1, 2, 2), (MANY_ROWS, 14_000), (48, 48), "float32")
    assert_same_bits(na.attention(q, k, v, num_threads=1), na.attention(q, k, v, num_threads=2))
    assert_same_bits(na.attention(q[:, 1:], k[:, 1:], v[:, 1:]), na.attention(q, k, v)[:, 1:])
