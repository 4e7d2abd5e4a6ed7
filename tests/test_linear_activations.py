"""Activations of results that are rounded to bfloat16, whose tails are cheaper than float32's."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import numattn as na
from cases import normal
from numattn import reference
from tolerance import UNIT_ROUNDOFF

ACTIVATIONS = (None, "relu", "gelu", "gelu_tanh", "silu")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@pytest.mark.parametrize("activation", ACTIVATIONS[1:])
def test_activations_of_bfloat16_results_over_their_whole_range(isa: str, activation: str) -> None:
    """Beside the rounding of the result, a tenth of one in the tail; nothing beyond it.

    In the tail y = −t · s(−t), whose polynomials err by 2.3e-4 + 7.5e-5 of it; x itself is rounded
    before, so it is given as bfloat16.
    """
    x = np.concatenate([np.linspace(-40, 40, 4001), np.linspace(-9, 9, 4001), [-1e30, -1e4, 1e4]])
    x = x.astype(BFLOAT16)
    got = na.Linear(np.ones((33, 1), np.float32), dtype="bfloat16")(
        x[:, np.newaxis], activation=activation
    )
    assert got.dtype == BFLOAT16
    got = got.astype(np.float64)
    assert (got == got[:, :1]).all()  # whatever stands beside a feature
    exact = reference.Linear([[1.0]])(x[:, np.newaxis].astype(np.float64), activation=activation)
    # The last term is gelu's tail where it has ended, 8 · Phi(−8) at most, and what is subnormal.
    bound = (UNIT_ROUNDOFF["bfloat16"] + 3.1e-4) * np.abs(exact) + 5.1e-15
    error = np.abs(got[:, :1] - exact)
    assert (error <= bound).all(), (error / bound).max()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_and_infinity_of_bfloat16_results(isa: str, activation: str | None) -> None:
    x = np.array([[np.nan, 1.0], [np.inf, 0.0], [-np.inf, 0.0], [1.0, 2.0]], BFLOAT16)
    weight = np.array([[1.0, 0.0]] * 40, np.float32)
    for rows in (1, 9):  # by rows and in tiles, where these differ
        got = na.Linear(weight, dtype="bfloat16")(np.repeat(x, rows, 0), activation=activation)
        got = got.astype(np.float64).reshape(4, rows, 40)
        assert np.isnan(got[0]).all()
        assert (got[1] == np.inf).all()
        limit = -np.inf if activation is None else 0.0
        # gelu's tail ends at −8 · Phi(−8).
        assert (np.isnan(got[2]) | (got[2] == limit) | (np.abs(got[2]) <= 5.1e-15)).all()


def test_the_error_of_gelu_in_bfloat16_is_that_of_rounding(
    isa: str, rng: np.random.Generator
) -> None:
    """The coarser polynomials of the tail add nothing: 1.65e-3 of the norm with either."""
    x, weight = normal(rng, (96, 384), "bfloat16"), normal(rng, (96, 384)) / np.sqrt(384)
    weight = weight.astype(BFLOAT16).astype(np.float32)
    linear = na.Linear(weight, dtype="bfloat16")
    exact = reference.Linear(weight)(x.astype(np.float64), activation="gelu")
    rounded = exact.astype(BFLOAT16).astype(np.float64)
    got = linear(x, activation="gelu").astype(np.float64)
    assert np.linalg.norm(got - exact) <= 1.001 * np.linalg.norm(rounded - exact)
    large = np.abs(exact) > 1e-4
    relative = np.abs(got - exact)[large] / np.abs(exact)[large]
    assert relative.max() <= UNIT_ROUNDOFF["bfloat16"] + 3.1e-4
