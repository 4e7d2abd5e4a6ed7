"""How many tokens of each row are real: lengths, and masks that say the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .arrays import Int64Array


def check_lengths(values: ArrayLike, shape: tuple[int, ...]) -> Int64Array | None:
    """Return lengths (B,) of rows (B, S) as int64, None if every row is full, or raise."""
    lengths = np.asarray(values)
    if lengths.shape != shape[:1]:
        raise ValueError(f"lengths must be ({shape[0]},), not {lengths.shape}")
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"lengths must be integers, not {lengths.dtype}")
    if not np.all((lengths >= 0) & (lengths <= shape[1])):
        raise ValueError(f"lengths must be in 0 … {shape[1]}, not {lengths.tolist()}")
    return None if np.all(lengths == shape[1]) else lengths.astype(np.int64, copy=False)


def lengths_of_mask(attention_mask: ArrayLike, shape: tuple[int, ...]) -> Int64Array:
    """Return the lengths (B,) that a mask (B, S) of padding on the right stands for, or raise."""
    real = np.asarray(attention_mask) != 0
    if real.shape != shape:
        raise ValueError(f"attention_mask {real.shape} must fit token_ids {shape}")
    lengths = np.asarray(real.sum(axis=1, dtype=np.int64))
    if not np.array_equal(real, np.arange(shape[1]) < lengths[:, np.newaxis]):
        raise ValueError("attention_mask must be ones and then zeros in each row: pad on the right")
    return lengths
