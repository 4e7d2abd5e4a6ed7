"""`position.sinusoidal` against the formula of the paper."""

from __future__ import annotations

import math

import numpy as np
import pytest

import numattn as na


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
