"""Weights in MXFP4: numbers of four bits, with one power of two for each 32 of a row.

(Open Compute Project, Microscaling Formats, 2023.) A byte holds two of them, the first in its lower
half. They are floats exactly, in float32 and in bfloat16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import Float32Array

BLOCK = 32
BIAS = 127  # of the exponents
HALVES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=np.float32)
VALUES = np.concatenate([HALVES, -HALVES])


def dequantised(blocks: NDArray[np.uint8], scales: NDArray[np.uint8]) -> Float32Array:
    """Return the numbers (..., 32·G) that bytes (..., G, 16) with exponents (..., G) stand for.

    >>> dequantised(np.full((1, 16), 0x72, np.uint8), np.array([128], np.uint8))[:3]
    array([ 2., 12.,  2.], dtype=float32)
    """
    numbers = np.empty((*blocks.shape, 2), dtype=np.float32)
    np.take(VALUES, blocks & 0x0F, out=numbers[..., 0])
    np.take(VALUES, blocks >> 4, out=numbers[..., 1])
    exponents: NDArray[Any] = scales.astype(np.int32) - BIAS
    with np.errstate(over="ignore"):
        np.ldexp(numbers, exponents[..., np.newaxis, np.newaxis], out=numbers)
    return numbers.reshape(*blocks.shape[:-2], -1)
