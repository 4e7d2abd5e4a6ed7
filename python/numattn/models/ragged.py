"""Where sequences stand that lie one after the other, and how they get there from padded rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Int64Array


@dataclass(frozen=True)
class Ragged:
    """N sequences of T tokens in all: sequence i has the places starts[i] … starts[i + 1] − 1.

    Examples
    --------
    >>> two = Ragged.of_lengths([2, 1])
    >>> two.starts, two.positions()
    (array([0, 2, 3]), array([0, 1, 0]))
    >>> two.padded(np.array([7, 8, 9]), 3)
    array([[7, 8, 0],
           [9, 0, 0]])
    """

    starts: Int64Array
    """(N + 1,): prefix sums of the lengths."""

    @classmethod
    def of_lengths(cls, lengths: Iterable[int] | Int64Array) -> Ragged:
        """Return where sequences of those lengths stand."""
        each = np.asarray(lengths, dtype=np.int64)
        starts = np.zeros(each.size + 1, dtype=np.int64)
        np.cumsum(each, out=starts[1:])
        return cls(starts)

    @classmethod
    def of_rows(cls, shape: tuple[int, ...], lengths: Int64Array | None) -> Ragged:
        """Return where the tokens of rows (B, S) stand, lengths[b] of each; None for all S."""
        if lengths is None:
            return cls(np.arange(shape[0] + 1, dtype=np.int64) * shape[1])
        return cls.of_lengths(lengths)

    @property
    def lengths(self) -> Int64Array:
        """Return the tokens of each sequence (N,)."""
        return np.diff(self.starts)

    @property
    def count(self) -> int:
        """Return T."""
        return int(self.starts[-1])

    def positions(self) -> Int64Array:
        """Return the position of each token in its sequence (T,)."""
        return np.arange(self.count) - np.repeat(self.starts[:-1], self.lengths)

    def packed(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return the tokens (T, ...) of padded rows (N, S, ...), which stand first in each.

        Where there is no padding, it is a view.
        """
        width = rows.shape[1]
        if self.count == rows.shape[0] * width:
            return rows.reshape(self.count, *rows.shape[2:])
        tokens: NDArray[Any] = rows[self._real(width)]
        return tokens

    def padded(self, tokens: NDArray[Any], width: int) -> NDArray[Any]:
        """Return tokens (T, ...) as rows (N, width, ...) that end in zeros.

        Where there is no padding, it is a view.
        """
        shape = (self.starts.size - 1, width, *tokens.shape[1:])
        if self.count == shape[0] * width:
            return tokens.reshape(shape)
        rows = np.zeros(shape, dtype=tokens.dtype)
        rows[self._real(width)] = tokens
        return rows

    def _real(self, width: int) -> NDArray[np.bool_]:
        """Return which places of rows (N, width) hold a token."""
        return np.arange(width) < self.lengths[:, np.newaxis]
