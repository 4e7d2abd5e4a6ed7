"""Numbers that a caller gives for the rows of a cache: one for each, one for all, or indices."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from numattn._arguments import INT64, integer_array
from numattn._names import Int64Array


def per_row(name: str, value: ArrayLike, batch: int) -> Int64Array:
    """Return one number, or one for each row, as (B,)."""
    if type(value) is np.ndarray and value.dtype is INT64 and value.flags.c_contiguous:
        if value.shape == (batch,):  # the usual case, told quickly
            return value
    given = integer_array(name, value, scalar=True)
    if np.ndim(value) == 1 and given.shape != (batch,):
        raise ValueError(f"{name} must have shape ({batch},), not {given.shape}")
    return np.ascontiguousarray(np.broadcast_to(given, (batch,)))


def new_tokens(counts: ArrayLike | None, most: int | None, batch: int) -> Int64Array:
    """Return new tokens per row, (B,); `most` is the S that they cannot exceed."""
    if counts is None:
        return np.full(batch, most or 0, dtype=np.int64)
    given = per_row("counts", counts, batch)
    if given.min() < 0 or (most is not None and given.max() > most):
        limit = "0 or more" if most is None else f"in 0 … {most}"
        raise ValueError(f"counts must be {limit}, not {given.tolist()}")
    return given


def kept_lengths(lengths: ArrayLike, batch: int) -> Int64Array:
    """Return the argument of `truncate` as (B,)."""
    limits = per_row("lengths", lengths, batch)
    if limits.min() < 0:
        raise ValueError(f"lengths must be 0 or more, not {limits.tolist()}")
    return limits


def row_indices(name: str, rows: ArrayLike, batch: int) -> Int64Array:
    """Return indices of rows, one or more, all of which exist."""
    indices = integer_array(name, rows, scalar=False)
    if indices.size == 0:
        raise ValueError(f"{name} must name at least one row")
    if indices.min() < 0 or indices.max() >= batch:
        raise ValueError(f"{name} must be in 0 … {batch - 1}, not {indices.tolist()}")
    return indices
