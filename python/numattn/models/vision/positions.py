"""A table of positions on a grid of patches, resampled to another grid.

Bicubic, by torch.nn.functional.interpolate(mode="bicubic", align_corners=False): each axis is a
product with a matrix of few numbers a row. Without `antialias` a row has four, those of Keys'
kernel with a = −0.75, and what lies outside repeats the edge; with it, a = −0.5, the kernel is as
much wider as the grid becomes smaller, and what lies outside does not count. SigLIP 2 has a
bilinear kernel, with antialiasing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..arrays import Float32Array

Weights = NDArray[np.float64]
# (places before, after) → the matrix (after, before) of an axis.
AxisWeights: TypeAlias = Callable[[int, int], Weights]


def cubic(x: NDArray[np.float64], a: float) -> Weights:
    """Return Keys' kernel of distances (Keys, 1981)."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def plain_weights(before: int, after: int) -> Weights:
    """Return the matrix (after, before) of an axis without antialiasing."""
    place = (np.arange(after) + 0.5) * (before / after) - 0.5
    first = np.floor(place).astype(np.int64) - 1
    taps = first[:, np.newaxis] + np.arange(4)
    matrix = np.zeros((after, before))
    rows = np.repeat(np.arange(after), 4)
    # Several taps may stand on the edge.
    weights = cubic(place[:, np.newaxis] - taps, -0.75)
    np.add.at(matrix, (rows, np.clip(taps, 0, before - 1).ravel()), weights.ravel())
    return matrix


def antialiased_weights(before: int, after: int) -> Weights:
    """Return the matrix (after, before) of an axis with antialiasing."""
    scale = before / after
    wide = max(scale, 1.0)
    centre = (np.arange(after)[:, np.newaxis] + 0.5) * scale
    first = np.maximum((centre - 2 * wide + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + 2 * wide + 0.5).astype(np.int64), before)
    column = np.arange(before)
    weights = cubic((column - centre + 0.5) / wide, -0.5)
    weights[(column < first) | (column >= last)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def bilinear_weights(before: int, after: int) -> Weights:
    """Return the matrix (after, before) of an axis, of a triangle with antialiasing."""
    scale = before / after
    centre = (np.arange(after)[:, np.newaxis] + 0.5) * scale - 0.5
    weights = np.maximum(0.0, 1 - np.abs(np.arange(before) - centre) / max(scale, 1.0))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def resampled(
    table: Float32Array, before: tuple[int, int], after: tuple[int, int], weights: AxisWeights
) -> Float32Array:
    """Return a table (before[0] · before[1], E) as one of (after[0] · after[1], E)."""
    rows, columns = (weights(old, new) for old, new in zip(before, after, strict=True))
    grid = table.reshape(*before, -1).astype(np.float64)
    spread = np.tensordot(rows, grid, axes=(1, 0))  # (after[0], before[1], E)
    full = np.tensordot(columns, spread, axes=(1, 1)).swapaxes(0, 1)
    return np.ascontiguousarray(full, dtype=np.float32).reshape(after[0] * after[1], -1)
