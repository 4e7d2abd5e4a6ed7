"""Rule 3: excluded keys weigh exactly 0; NaN reaches exactly the rows that attend it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, SCORE_FEATURES, normal, score_feature, unit_inputs
from numattn import reference
from relative_cases import STEPS, score_step
from tolerance import assert_same_bits, expect

HEADS, LENGTHS, DIMS = (2, 4, 2), (50, 70), (20, 24)
FULL = (HEADS[0], HEADS[1], *LENGTHS)
# First, last, and both sides of vector and block borders.
KEYS = (0, 1, 15, 16, 31, 47, 48, 63, 64, 69)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("feature", SCORE_FEATURES)
def test_nan_key_reaches_the_rows_that_attend_it(
    isa: str, rng: np.random.Generator, feature: str, dtype: str
) -> None:
    q, k, v = unit_inputs(rng, HEADS, LENGTHS, DIMS, dtype)
    options = score_feature(feature, rng, FULL)
    reached = 0
    for j in KEYS:
        poisoned = k.copy()
        poisoned[0, 1, j, 7] = np.nan
        expected = expect(q, poisoned, v, **options)
        expected.check(*na.attention(q, poisoned, v, return_lse=True, **options))
        # Key head 1 serves the query heads 2 and 3.
        assert not np.isnan(expected.o[1]).any() and not np.isnan(expected.o[0, :2]).any()
        reached += np.isnan(expected.o[0, 2:]).any()
    assert reached >= len(KEYS) // 2  # kv_lens may exclude the second half for all rows


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "feature", [name for name in SCORE_FEATURES if name not in ("mask", "all")]
)
def test_nan_value_reaches_its_column_of_the_rows_that_attend_it(
    isa: str, rng: np.random.Generator, feature: str, dtype: str
) -> None:
    q, k, v = unit_inputs(rng, HEADS, LENGTHS, DIMS, dtype)
    options = score_feature(feature, rng, FULL)
    for poison in (np.nan, np.inf, -np.inf):
        for j in KEYS:
            poisoned = v.copy()
            poisoned[1, 0, j, 5] = poison
            expected = expect(q, k, poisoned, **options)
            expected.check(*na.attention(q, k, poisoned, return_lse=True, **options))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("feature", SCORE_FEATURES)
def test_nan_query_stays_in_its_row(
    isa: str, rng: np.random.Generator, feature: str, dtype: str
) -> None:
    q, k, v = unit_inputs(rng, HEADS, LENGTHS, DIMS, dtype)
    options = score_feature(feature, rng, FULL)
    for i in (0, 15, 16, 47, 48, 49):
        poisoned = q.copy()
        poisoned[1, 3, i, 0] = np.nan
        expected = expect(poisoned, k, v, **options)
        expected.check(*na.attention(poisoned, k, v, return_lse=True, **options))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("which", ["k", "v"])
def test_causal_diagonal_inside_a_block(
    isa: str, rng: np.random.Generator, which: str, dtype: str
) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 2), (70, 70), (16, 16), dtype)
    clean = na.attention(q, k, v, is_causal=True)
    for j in range(0, 70, 3):
        poisoned = {"k": k.copy(), "v": v.copy()}
        poisoned[which][:, :, j] = np.nan
        o = na.attention(q, poisoned["k"], poisoned["v"], is_causal=True)
        assert np.isnan(o[:, :, j:]).all()
        np.testing.assert_array_equal(o[:, :, :j], clean[:, :, :j])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("query_len", [1, 4])
def test_decode_over_many_keys(
    isa: str, rng: np.random.Generator, query_len: int, dtype: str
) -> None:
    q, k, v = unit_inputs(rng, (1, 8, 2), (query_len, 3000), (64, 64), dtype)
    for j in (0, 255, 256, 1023, 1024, 2047, 2998, 2999):
        for which in ("k", "v"):
            poisoned = {"k": k.copy(), "v": v.copy()}
            poisoned[which][0, 1, j, 9] = np.nan
            expected = expect(q, poisoned["k"], poisoned["v"])
            expected.check(*na.attention(q, poisoned["k"], poisoned["v"], return_lse=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [LENGTHS, (1, 700)])
@pytest.mark.parametrize("how", ["mask", "bias"])
def test_excluded_key_weighs_exactly_nothing(
    isa: str, rng: np.random.Generator, how: str, lengths: tuple[int, int], dtype: str
) -> None:
    q, k, v = unit_inputs(rng, HEADS, lengths, DIMS, dtype)
    keep = rng.random((2, 1, *lengths)) < 0.6
    keep[..., 1::4] = False
    options: dict[str, Any] = {"mask": keep}
    if how == "bias":
        options = {"bias": np.where(keep, normal(rng, keep.shape), np.float32(-np.inf))}
    clean = na.attention(q, k, v, return_lse=True, **options)
    for poison in (np.nan, np.inf, -np.inf):
        poisoned = k.copy()
        poisoned[:, :, 1::4] = poison
        got = na.attention(q, poisoned, v, return_lse=True, **options)
        for x, expected in zip(got, clean, strict=True):
            assert_same_bits(x, expected)
        weights = na.attention_weights(q, poisoned, **options)
        assert (weights[..., 1::4] == 0).all()
        assert_same_bits(weights, na.attention_weights(q, k, **options))


@pytest.mark.parametrize("step", [name for name in STEPS if name != "mask"])
def test_mask_hides_a_nan_score_beside_other_steps(
    isa: str, rng: np.random.Generator, step: str
) -> None:
    q, k, v = unit_inputs(rng, HEADS, LENGTHS, DIMS)
    options = {"mask": np.arange(70) % 4 != 1, **score_step(step, rng, FULL, DIMS)}
    clean = na.attention(q, k, v, **options)
    k[:, :, 1::4] = np.nan
    assert_same_bits(na.attention(q, k, v, **options), clean)


def test_nan_in_bias_and_sinks_is_not_swallowed(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, HEADS, LENGTHS, DIMS)
    bias = normal(rng, FULL)
    bias[0, 1, 33, 40] = np.nan
    o, lse = na.attention(q, k, v, bias=bias, return_lse=True)
    expect(q, k, v, bias=bias).check(o, lse)
    assert np.isnan(o[0, 1, 33]).all() and np.isnan(o).sum() == DIMS[1]
    sinks = np.array([0.0, np.nan, 0.0, 0.0], np.float32)
    o, lse = na.attention(q, k, v, sinks=sinks, return_lse=True)
    expect(q, k, v, sinks=sinks).check(o, lse)
    assert np.isnan(o[:, 1]).all() and np.isnan(lse[:, 1]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_weights_reach_exactly_their_rows(
    isa: str, rng: np.random.Generator, dtype: str
) -> None:
    q, k, _ = unit_inputs(rng, HEADS, LENGTHS, DIMS, dtype)
    k[0, 0, 30] = np.nan
    got = na.attention_weights(q, k, is_causal=True)
    expected = reference.attention_weights(q, k, is_causal=True)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
