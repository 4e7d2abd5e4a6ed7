"""Normalisation by the root mean square."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Float32Array: TypeAlias = NDArray[np.float32]


def rms_norm(x: Float32Array, weight: Float32Array, eps: float) -> Float32Array:
    """Return x / sqrt(mean(x²) + eps) · weight over the last axis, in float32.

    (Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.)

    Examples
    --------
    >>> rms_norm(np.array([3, 4], np.float32), np.ones(2, np.float32), 0.0).round(3)
    array([0.849, 1.131], dtype=float32)
    """
    scale = np.mean(np.square(x), axis=-1, keepdims=True)
    scale += np.float32(eps)
    np.sqrt(scale, out=scale)
    result: Float32Array = x / scale
    result *= weight
    return result
