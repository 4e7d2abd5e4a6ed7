"""Layers of two parts of bfloat16, as AMX packs them, wherever they are used."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from cases import normal
from numattn import _core
from tolerance import Array, assert_same_bits, linear_epsilon

COLUMNS, STEP = 48, 32


def split_panels(weight: Array) -> tuple[Array, Array]:
    """Return panels [part][k / 2][column][k mod 2], padded with zeros, and the weight they hold."""
    rows, depth = weight.shape
    padded = np.zeros((-(-rows // COLUMNS) * COLUMNS, -(-depth // STEP) * STEP), np.float32)
    padded[:rows, :depth] = weight
    high = padded.astype(ml_dtypes.bfloat16)
    low = (padded - high.astype(np.float32)).astype(ml_dtypes.bfloat16)
    parts = np.stack([high, low], axis=1).view(np.uint16)
    pairs = parts.reshape(-1, COLUMNS, 2, padded.shape[1] // 2, 2).transpose(0, 2, 3, 1, 4)
    held = (high.astype(np.float64) + low.astype(np.float64))[:rows, :depth]
    return np.ascontiguousarray(pairs).reshape(pairs.shape[0], -1), held


@pytest.mark.parametrize("depth", [1, 31, 64, 127, 128, 129, 300])
def test_sums_of_both_parts(isa: str, rng: np.random.Generator, depth: int) -> None:
    for rows in (1, 48, 70):
        panels, held = split_panels(normal(rng, (rows, depth)))
        layer = _core.PackedLinear.of_panels("split", rows, depth, panels, None)
        x = normal(rng, (70, depth))
        got = layer.run(x, "", None, None, None, 0)
        exact = x.astype(np.float64) @ held.T
        size = np.linalg.norm(x) * np.linalg.norm(held)
        # Where a unit multiplies parts, low by low is left out: 2^-16 of a product at most.
        assert np.linalg.norm(got - exact) <= (linear_epsilon(depth) + 2.0**-16) * size
        for count in (1, 2, 7, 65):
            assert_same_bits(layer.run(x[:count], "", None, None, None, 0), got[:count])


def test_weights_are_both_parts(rng: np.random.Generator) -> None:
    """To more than one of them has: this is not the error of bfloat16."""
    panels, held = split_panels(normal(rng, (50, 40)))
    layer = _core.PackedLinear.of_panels("split", 50, 40, panels, None)
    got = layer.run(np.eye(40, dtype=np.float32), "", None, None, None, 0)
    np.testing.assert_allclose(got, held.T, rtol=2.0**-15)
