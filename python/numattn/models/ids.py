"""Token ids as callers give them: checked, and int64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import Int64Array


def check_ids(name: str, values: ArrayLike, limit: int, *, ndim: int = 2) -> Int64Array:
    """Return ids of 0 … limit − 1 as int64 (B, S), or (S,) where `ndim` is 1, or raise.

    Raises
    ------
    TypeError
        If they are not integers.
    ValueError
        If they have another number of dimensions, or one is out of range.
    """
    ids: NDArray[Any] = np.asarray(values)
    if ids.ndim != ndim:
        raise ValueError(f"{name} must be {'(B, S)' if ndim == 2 else '(S,)'}, not {ids.shape}")
    if ids.dtype.kind not in "iu":
        if ids.size == 0:  # nothing has no type
            return np.zeros(ids.shape, dtype=np.int64)
        raise TypeError(f"{name} must be integers, not {ids.dtype}")
    if ids.size and not (0 <= ids.min() and ids.max() < limit):
        raise ValueError(f"{name} must be in 0 … {limit - 1}, not {ids.min()} … {ids.max()}")
    return ids.astype(np.int64, copy=False)
