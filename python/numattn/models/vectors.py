"""Vectors as they come, batch by batch, and their lengths."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .arrays import Float32Array


class Rows:
    """An array of rows of `width` numbers, for which room is made as they come.

    If there are as many as expected, nothing is ever copied.
    """

    def __init__(self, expected: int, width: int) -> None:
        self._array = np.zeros((expected, width), dtype=np.float32)
        self._count = 0

    def add(self, count: int, places: NDArray[np.intp], rows: Float32Array) -> None:
        """Add so many rows: those given at their places among them, and otherwise zeros."""
        begin, self._count = self._count, self._count + count
        if self._count > len(self._array):
            self._resize(max(self._count, len(self._array) * 3 // 2))
        self._array[begin + places] = rows

    def whole(self) -> Float32Array:
        """Return all rows. No more can be added."""
        self._resize(self._count)
        return self._array

    def _resize(self, count: int) -> None:
        if count != len(self._array):
            # Nobody else has seen it: it need not be copied.
            self._array.resize((count, self._array.shape[1]), refcheck=False)


def of_length_one(vectors: Float32Array) -> Float32Array:
    """Return vectors (n, E) scaled in place to length 1, but for those of length 0.

    The sum of each is made by itself, whatever stands beside it.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(norms > 0, norms, 1)
    return vectors
