"""Attention of an encoder: each sequence to itself, all of it or a window."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numattn._steps import Steps

from ..arrays import Float32Array, Int64Array
from ..ragged import Ragged

Heads = NDArray[Any]


def attend(
    steps: Steps,
    query: Heads,
    key: Heads,
    value: Heads,
    sequences: Ragged,
    out: Heads,
    window: int | None = None,
    bias: Float32Array | None = None,
) -> None:
    """Attend within each sequence, as a step.

    Parameters
    ----------
    steps : Steps
        To which this is added.
    query, key, value : arrays (T, H, D)
        Of all tokens.
    sequences : Ragged
        Where each sequence stands.
    out : array (T, H, D)
        Where the result goes.
    window : int, optional
        How far a token sees to both sides.
    bias : float32 array (H, S, S), optional
        Added to scores, by positions in the sequence; S is the length of the longest.
    """
    sides = None if window is None else (window, window)
    if bias is None:
        steps.attention_varlen(query, key, value, sequences.starts, out, window=sides)
        return
    # attention_varlen takes no bias. Sequences of one length that follow one another, as batches
    # sorted by length have them, are rows of one call, with the bits that each has alone: 64 of 16
    # tokens in 12 heads of 64 take 3.4 ms on a thread, one by one 7.2, and 3.1 without a bias; 64
    # of 8 … 47 tokens 15 ms, 17 and 10.
    for first, last, length in runs_of_one_length(sequences.lengths):
        here = slice(int(sequences.starts[first]), int(sequences.starts[last]))
        shape = (last - first, length, *query.shape[1:])
        steps.attention(
            query[here].reshape(shape),
            key[here].reshape(shape),
            value[here].reshape(shape),
            out[here].reshape(shape),
            bias=bias[:, :length, :length],
            window=sides,
        )


def runs_of_one_length(lengths: Int64Array) -> list[tuple[int, int, int]]:
    """Return the runs of lengths that are the same: [first, last), and which length.

    >>> runs_of_one_length(np.array([5, 5, 3, 5]))
    [(0, 2, 5), (2, 3, 3), (3, 4, 5)]
    """
    edges = [0, *(np.flatnonzero(np.diff(lengths)) + 1).tolist(), len(lengths)]
    return [(first, last, int(lengths[first])) for first, last in pairwise(edges) if first < last]
