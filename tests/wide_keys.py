"""Keys with channels that are far larger than the others, and the table that names these."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cases import normal

Array = NDArray[Any]

# Of two key heads, which channels are large: of both ends, and of other number in each head.
TABLE = np.array([[3, 7, 31, -1, -1, -1, -1, -1], [0, -1, 30, -1, -1, -1, -1, -1]])
HEADS, WIDTH = 2, 32
PAIRS = WIDTH // 2


def flags() -> NDArray[np.bool_]:
    """Return (Hkv, D), True where a channel is large."""
    return np.asarray((TABLE[..., np.newaxis] == np.arange(WIDTH)).any(axis=1))


def outliers(rng: np.random.Generator, size: float) -> Array:
    """Return (Hkv, D): 0 but for the large channels, which are of about that size."""
    return np.where(flags(), size * (1 + 0.3 * normal(rng, (HEADS, WIDTH))), 0).astype(np.float32)


def numbers(k8: Array, k_scale: Array, table: Array = TABLE) -> Array:
    """Return the float64 numbers (B, Hkv, S, D) that integers with wide channels stand for."""
    width = k8.shape[-1] - table.shape[1]
    whole = k8[..., :width].astype(np.float64)
    for head, row in enumerate(table):
        for column, channel in enumerate(row):
            if channel >= 0:
                whole[:, head, :, channel] += 256.0 * k8[:, head, :, width + column]
    return np.asarray(whole * k_scale[..., np.newaxis].astype(np.float64))
