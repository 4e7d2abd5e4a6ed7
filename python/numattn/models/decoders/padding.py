"""Batches of sequences of several lengths, padded on the right or on the left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import Int64Array
from ..lengths import check_lengths, places_of_mask, refuse_both


@dataclass(frozen=True)
class Padding:
    """Where the tokens of each row stand: counts[b] of them, from column start[b] on."""

    counts: Int64Array
    start: Int64Array

    @classmethod
    def of(
        cls, shape: tuple[int, int], lengths: ArrayLike | None, attention_mask: ArrayLike | None
    ) -> Padding:
        """Return what lengths (B,), or a mask (B, S) of nonzeros for tokens, say of rows (B, S).

        Raises
        ------
        TypeError
            If lengths are not integers.
        ValueError
            If both are given, one does not fit the shape, or the tokens of a row stand neither at
            its beginning nor at its end.
        """
        batch, size = shape
        refuse_both(lengths, attention_mask)
        if attention_mask is not None:
            return cls(*places_of_mask(attention_mask, shape))
        counts = None if lengths is None else check_lengths(lengths, shape)
        if counts is None:
            counts = np.full(batch, size, dtype=np.int64)
        return cls(counts, np.zeros(batch, dtype=np.int64))

    def to_front(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return x (B, S, ...) with the tokens of each row first, and any others after them."""
        return self._moved(x, self.start)

    def to_place(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return x (B, S, ...), whose tokens are first, with each where it stood."""
        return self._moved(x, -self.start)

    def _moved(self, x: NDArray[Any], by: Int64Array) -> NDArray[Any]:
        if not by.any():
            return x
        column = (np.arange(x.shape[1]) + by[:, np.newaxis]) % x.shape[1]
        moved: NDArray[Any] = x[np.arange(x.shape[0])[:, np.newaxis], column]
        return moved
