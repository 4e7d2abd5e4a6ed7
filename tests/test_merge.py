"""`merge_states`: the parts of a softmax make the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal
from numattn import reference
from tolerance import assert_same_bits


@pytest.mark.parametrize("cuts", [(40,), (10, 40), (10, 10, 40), (1, 2, 39, 40)])
def test_parts_make_the_whole(isa: str, rng: np.random.Generator, cuts: Any) -> None:
    q, k, v = normal(rng, (2, 3, 6, 16)), normal(rng, (2, 3, 40, 16)), normal(rng, (2, 3, 40, 8))
    parts = []
    for begin, end in zip((0, *cuts), (*cuts, 40), strict=True):
        seen = slice(begin, end)
        parts.append(na.attention(q, k[:, :, seen], v[:, :, seen], return_lse=True))
    o, lse = na.merge_states(*zip(*parts, strict=True))
    exact_o, exact_lse = reference.attention(q, k, v, return_lse=True)
    assert o.dtype == np.float32 and lse.dtype == np.float32
    np.testing.assert_allclose(o, exact_o, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(lse, exact_lse, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_empty_parts_are_neutral(rng: np.random.Generator, dtype: str) -> None:
    o = normal(rng, (2, 5, 4)).astype(DTYPES[dtype])
    lse = normal(rng, (2, 5))
    none, never = np.full_like(o, 3), np.full((2, 5), -np.inf, np.float32)
    merged, total = na.merge_states([none, o, none], [never, lse, never])
    assert merged.dtype == o.dtype
    np.testing.assert_array_equal(merged.view(np.uint8), o.view(np.uint8))
    np.testing.assert_array_equal(total, lse)
    merged, total = na.merge_states([none, none], [never, never])
    assert (merged == 0).all() and np.isneginf(total).all()


def test_huge_sums_do_not_overflow() -> None:
    ones = np.ones((1, 1, 2), np.float32)
    o, lse = na.merge_states([ones, 3 * ones], [np.full((1, 1), 3e38, np.float32)] * 2)
    np.testing.assert_array_equal(o, 2 * ones)
    np.testing.assert_array_equal(lse, np.float32(3e38))


def test_against_the_reference(rng: np.random.Generator) -> None:
    outs, lses = list(normal(rng, (3, 4, 5, 6))), list(10 * normal(rng, (3, 4, 5)))
    for got, exact in zip(
        na.merge_states(outs, lses), reference.merge_states(outs, lses), strict=True
    ):
        np.testing.assert_allclose(got, exact, rtol=1e-5, atol=1e-6)


def test_wrong_parts() -> None:
    o, lse = np.ones((2, 3, 4), np.float32), np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="at least one, not 0 and 0"):
        na.merge_states([], [])
    with pytest.raises(ValueError, match="not 2 and 1"):
        na.merge_states([o, o], [lse])
    with pytest.raises(ValueError, match=r"part 1 must have an output of shape \(2, 3, 4\)"):
        na.merge_states([o, o[:1]], [lse, lse[:1]])
    with pytest.raises(TypeError, match="outs must have one dtype, not float32 and float16"):
        na.merge_states([o, o.astype(np.float16)], [lse, lse])
    with pytest.raises(TypeError, match="outs must be floating-point, not int64"):
        na.merge_states([o.astype(np.int64)], [lse])


@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_part_without_keys_is_neutral_whatever_its_output(
    dtype: str, junk: float, rng: np.random.Generator
) -> None:
    """Its memory may never have been written."""
    o, lse = normal(rng, (2, 5, 8), dtype), normal(rng, (2, 5))
    empty, nothing = np.full_like(o, junk), np.full_like(lse, -np.inf)
    for order in (1, -1):
        merged = na.merge_states([o, empty][::order], [lse, nothing][::order])
        assert_same_bits(merged[0], o)
        assert_same_bits(merged[1], lse)
        exact, _ = reference.merge_states([o, empty][::order], [lse, nothing][::order])
        np.testing.assert_array_equal(exact, o.astype(np.float64))
    merged = na.merge_states([empty, empty], [nothing, nothing])
    assert (merged[0] == 0).all() and np.isneginf(merged[1]).all()


def test_a_nan_that_has_weight_is_kept(rng: np.random.Generator) -> None:
    """Even where the weight is rounded to 0: the part has keys, and they are not numbers."""
    o, lse = normal(rng, (1, 3, 4)), np.zeros((1, 3), np.float32)
    other = np.full_like(o, np.nan)
    for low in (0.0, -50.0, -1e4):
        merged, _ = na.merge_states([o, other], [lse, np.full_like(lse, low)])
        assert np.isnan(merged).all()


def test_states_of_packed_sequences(rng: np.random.Generator) -> None:
    """Their outputs have heads behind positions, their log-sum-exps before."""
    q, k, v = normal(rng, (3, 7, 2, 8))
    parts = [
        na.attention_varlen(q, k[keys], v[keys], [0, 7], [0, len(k[keys])], return_lse=True)
        for keys in (slice(3), slice(3, 7))
    ]
    outs, lses = zip(*parts, strict=True)
    with pytest.raises(ValueError, match=r"give o.swapaxes\(0, 1\)"):
        na.merge_states(outs, lses)
    merged, lse = na.merge_states([o.swapaxes(0, 1) for o in outs], lses)
    whole, whole_lse = na.attention_varlen(q, k, v, [0, 7], [0, 7], return_lse=True)
    np.testing.assert_allclose(merged.swapaxes(0, 1), whole, atol=1e-6)
    np.testing.assert_allclose(lse, whole_lse, atol=1e-6)
