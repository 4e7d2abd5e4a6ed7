"""Attention of an encoder: each sequence to itself, all of it or a window."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numattn import attention, attention_varlen

from ..arrays import Float32Array
from ..ragged import Ragged

Heads = NDArray[Any]


def attend(
    query: Heads,
    key: Heads,
    value: Heads,
    sequences: Ragged,
    out: Heads,
    num_threads: int | None,
    window: int | None = None,
    bias: Float32Array | None = None,
) -> None:
    """Attend within each sequence.

    Parameters
    ----------
    query, key, value : arrays (T, H, D)
        Of all tokens.
    sequences : Ragged
        Where each sequence stands.
    out : array (T, H, D)
        Where the result goes.
    num_threads : int, optional
        Upper limit.
    window : int, optional
        How far a token sees to both sides.
    bias : float32 array (H, S, S), optional
        Added to scores, by positions in the sequence; S is the length of the longest.
    """
    sides = None if window is None else (window, window)
    if bias is None:
        starts = sequences.starts
        attention_varlen(
            query, key, value, starts, starts, window=sides, out=out, num_threads=num_threads
        )
        return
    for begin, end in pairwise(sequences.starts.tolist()):
        here, length = slice(begin, end), end - begin
        attention(
            query[np.newaxis, here],
            key[np.newaxis, here],
            value[np.newaxis, here],
            bias=bias[:, :length, :length],
            window=sides,
            layout="bshd",
            out=out[np.newaxis, here],
            num_threads=num_threads,
        )
