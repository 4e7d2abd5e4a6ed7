"""Which tokens of a cache move where some of them are kept and those between are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from numattn._arguments import integer_array
from numattn._names import Int64Array

from .row_numbers import kept_lengths


class Move(NamedTuple):
    """Tokens of a row that are to stand one after the other."""

    row: int
    start: int
    """The position of the first then."""
    source: Int64Array
    """(n,): the positions that they have."""


def moves_of(
    starts: ArrayLike, places: Sequence[ArrayLike], lengths: Int64Array
) -> tuple[Int64Array, list[Move]]:
    """Return how many tokens rows of lengths[b] keep, (B,), and which of them move.

    The arguments are those of `Cache.keep_only`.
    """
    begins = kept_lengths(starts, lengths.size)
    if len(places) != lengths.size:
        raise ValueError(f"places must be for each of {lengths.size} rows, not {len(places)}")
    limits, moves = begins.copy(), []
    for row, (given, start, length) in enumerate(
        zip(places, begins.tolist(), lengths.tolist(), strict=True)
    ):
        own = np.empty(0, np.int64)
        if np.size(given):
            own = integer_array(f"places[{row}]", given, scalar=False)
        if own.ndim != 1 or (own < 0).any() or (np.diff(own) <= 0).any():
            raise ValueError(f"places[{row}] must be numbers from 0 on in order, not {given!r}")
        if own.size and start + int(own[-1]) >= length:
            raise ValueError(
                f"places[{row}] names token {start + int(own[-1])}, and the row has {length}"
            )
        limits[row] += own.size
        still = int((own == np.arange(own.size)).sum())  # which stay where they are
        if still < own.size:
            moves.append(Move(row, start + still, start + own[still:]))
    return limits, moves
