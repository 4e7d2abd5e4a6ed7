"""Encodings of position against their formulas, the reference and transformers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal, unit_inputs
from numattn import reference
from tolerance import distance, float32_epsilon, norm

GOLDEN = Path(__file__).parent / "data" / "position_golden.npz"  # see make_position_golden.py


@pytest.mark.parametrize("n", [0, 1, 2, 17, 600])
@pytest.mark.parametrize("d", [1, 2, 3, 16, 33, 384])
@pytest.mark.parametrize("base", [10000.0, 500.0])
def test_each_entry(n: int, d: int, base: float) -> None:
    table = na.position.sinusoidal(n, d, base=base)
    assert table.shape == (n, d) and table.dtype == np.float32
    exact = np.empty((n, d))
    for pos in range(n):
        for i in range(d):
            angle = pos / base ** (2 * (i // 2) / d)
            exact[pos, i] = math.cos(angle) if i % 2 else math.sin(angle)
    # One rounding of a number up to 1: 2^-25; the angle's own error, some 2^-53·600, is lost in it.
    np.testing.assert_allclose(table, exact, atol=3.1e-8, rtol=0)


def test_far_positions_keep_their_angle() -> None:
    """Angles computed in float32 would be wrong by 0.004 here."""
    table = na.position.sinusoidal(100_001, 2)
    assert abs(float(table[100_000, 0]) - math.sin(100_000)) < 3.1e-8


def test_default_base_is_the_paper_s() -> None:
    default, explicit = (na.position.sinusoidal(9, 8, **o) for o in ({}, {"base": 10000.0}))
    np.testing.assert_array_equal(default, explicit)


def test_a_fixed_offset_is_a_rotation() -> None:
    """What makes the encoding useful (Vaswani et al., section 3.5)."""
    table = na.position.sinusoidal(50, 8).astype(np.float64)
    pairs = table.reshape(50, 4, 2)
    similarity = (pairs[:, np.newaxis] * pairs[np.newaxis]).sum(axis=3)
    for offset in (1, 7):
        along = similarity[np.arange(50 - offset), np.arange(offset, 50)]
        np.testing.assert_allclose(along, np.broadcast_to(along[0], along.shape), atol=3e-7)


@pytest.mark.parametrize(("n", "d", "named"), [(-1, 4, "-1"), (4, 0, "0"), (4, -2, "-2")])
def test_sizes_out_of_range_are_named(n: int, d: int, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        na.position.sinusoidal(n, d)


# --- patches ----------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (14, 14), (0, 4), (4, 0)])
@pytest.mark.parametrize("d", [4, 8, 24, 192])
@pytest.mark.parametrize("base", [10000.0, 50.0])
def test_patches_agree_with_the_reference(grid: tuple[int, int], d: int, base: float) -> None:
    table = na.position.sinusoidal_2d(*grid, d, base=base)
    exact = reference.sinusoidal_2d(*grid, d, base=base)
    assert table.shape == exact.shape == (grid[0] * grid[1], d) and table.dtype == np.float32
    np.testing.assert_allclose(table, exact, atol=3.1e-8, rtol=0)


def test_patches_agree_with_transformers() -> None:
    with np.load(GOLDEN) as golden:
        np.testing.assert_allclose(
            na.position.sinusoidal_2d(5, 7, 24), golden["patches"], atol=6e-8, rtol=0
        )


def test_halves_of_a_patch_are_its_row_and_its_column() -> None:
    table = na.position.sinusoidal_2d(5, 7, 16).reshape(5, 7, 16)
    for half, axis in ((table[..., :8], 1), (table[..., 8:], 0)):
        np.testing.assert_array_equal(half, np.broadcast_to(half.take([0], axis), half.shape))


@pytest.mark.parametrize(
    ("sizes", "named"), [((-1, 4, 8), "-1"), ((4, -3, 8), "-3"), ((4, 4, 6), "6"), ((4, 4, 0), "0")]
)
def test_patches_out_of_range_are_named(sizes: tuple[int, int, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        na.position.sinusoidal_2d(*sizes)


# --- learned tables -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3)])
def test_rows_of_a_learned_table(
    rng: np.random.Generator, dtype: str, shape: tuple[int, ...]
) -> None:
    table = normal(rng, (11, 6), dtype)
    positions = rng.integers(0, 11, shape)
    rows = na.position.learned(table, positions)
    assert rows.dtype == table.dtype and rows.shape == (*shape, 6)
    np.testing.assert_array_equal(rows.astype(float), reference.learned(table, positions))


@pytest.mark.parametrize("wrong", [-1, 11, 10**9, -(2**63)])
def test_positions_that_are_not_in_a_learned_table(wrong: int) -> None:
    with pytest.raises(ValueError, match=f"position {wrong} .* 11 rows"):
        na.position.learned(np.zeros((11, 2), np.float32), [0, wrong, 3])


def test_learned_tables_of_other_kinds_are_refused() -> None:
    table = np.zeros((4, 2), np.float32)
    with pytest.raises(TypeError, match=r"table.*float64.*astype"):
        na.position.learned(table.astype(float), [0])
    with pytest.raises(TypeError, match=r"positions.*float64"):
        na.position.learned(table, [0.5])
    with pytest.raises(ValueError, match=r"table.*\(4,\)"):
        na.position.learned(table[:, 0], [0])


# --- ALiBi ----------------------------------------------------------------------------------------


def test_slopes_agree_with_the_published_ones() -> None:
    with np.load(GOLDEN) as golden:
        heads, expected = golden["alibi_heads"], golden["alibi_slopes"]
    got = np.concatenate([na.position.alibi_slopes(int(count)) for count in heads])
    # transformers raises a float32 ratio to powers up to 64: each step errs by 2^-24.
    np.testing.assert_allclose(got, expected, rtol=65 * 2.0**-24)
    exact = np.concatenate([reference.alibi_slopes(int(count)) for count in heads])
    np.testing.assert_allclose(got, exact, rtol=2.0**-24)


def test_slopes_of_eight_heads_are_the_paper_s() -> None:
    np.testing.assert_array_equal(na.position.alibi_slopes(8), 0.5 ** np.arange(1, 9))


def test_slopes_are_what_attention_takes(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (1, 6, 6), (20, 20))
    slopes = na.position.alibi_slopes(6)
    expected = reference.attention(q, k, v, is_causal=True, alibi_slopes=slopes)
    got = na.attention(q, k, v, is_causal=True, alibi_slopes=slopes)
    assert distance(got, expected) <= float32_epsilon(20) * norm(expected)


@pytest.mark.parametrize("heads", [0, -8])
def test_no_slopes_for_no_heads(heads: int) -> None:
    with pytest.raises(ValueError, match=str(heads)):
        na.position.alibi_slopes(heads)
