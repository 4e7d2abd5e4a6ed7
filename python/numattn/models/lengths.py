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


def refuse_both(lengths: ArrayLike | None, attention_mask: ArrayLike | None) -> None:
    """Raise ValueError if the real tokens are told in two ways."""
    if lengths is not None and attention_mask is not None:
        raise ValueError("give lengths or attention_mask, not both")


def places_of_mask(
    attention_mask: ArrayLike, shape: tuple[int, ...]
) -> tuple[Int64Array, Int64Array]:
    """Return lengths (B,) and first columns (B,) of the tokens in a mask (B, S), or raise.

    The tokens of a row, which are its nonzeros, stand together at its beginning or at its end.
    """
    real = np.asarray(attention_mask) != 0
    if real.shape != shape:
        raise ValueError(f"attention_mask {real.shape} must fit token_ids {shape}")
    lengths = np.asarray(real.sum(axis=1, dtype=np.int64))
    column = np.arange(shape[1])
    at_the_front = (real == (column < lengths[:, np.newaxis])).all(axis=1)
    at_the_end = (real == (column >= shape[1] - lengths[:, np.newaxis])).all(axis=1)
    if not (at_the_front | at_the_end).all():
        raise ValueError("attention_mask must have all ones of a row together at one end")
    return lengths, np.where(at_the_front, 0, shape[1] - lengths)


def lengths_of_mask(attention_mask: ArrayLike, shape: tuple[int, ...]) -> Int64Array:
    """Return the lengths (B,) that a mask (B, S) of padding on the right stands for, or raise."""
    lengths, start = places_of_mask(attention_mask, shape)
    if start.any():
        raise ValueError("attention_mask must be ones and then zeros in each row: pad on the right")
    return lengths
