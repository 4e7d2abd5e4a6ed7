"""What storing a weight in a narrower type makes of it, and the names of precisions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .arrays import Float64Array


def as_stored(weight: ArrayLike, dtype: DTypeLike | None) -> Float64Array:
    """Return a weight as float64, rounded to bfloat16 first if that is what stores it.

    Raises
    ------
    ValueError
        If the dtype is neither float32 (which None means too) nor bfloat16.
    """
    stored = np.asarray(weight).astype(np.float64)
    return round_to_bfloat16(stored) if storage_name(dtype) == "bfloat16" else stored


def storage_name(dtype: DTypeLike | None) -> str:
    """Return "float32" or "bfloat16"; a dtype is known by its name, NumPy having no bfloat16."""
    if dtype is None:
        return "float32"
    if isinstance(dtype, str) and dtype == "bfloat16":
        return "bfloat16"
    try:
        name: str = np.dtype(dtype).name
    except (TypeError, ValueError):
        name = repr(dtype)
    if name not in ("float32", "bfloat16"):
        raise ValueError(f"dtype must be float32 or bfloat16, not {name}")
    return name


def round_to_bfloat16(x: Float64Array) -> Float64Array:
    """Return the nearest bfloat16 numbers, of two equally near ones the even, as float64.

    bfloat16 has 8 bits of significand and the exponents of float32: numbers in [2^(e-1), 2^e) lie
    2^(e-8) apart, those below the least normal one, 2^-126, as far apart as those just above it,
    and from 2^128 on there is only infinity.
    """
    _, exponent = np.frexp(x)
    step = np.ldexp(1.0, np.maximum(exponent, -125) - 8)
    rounded: Float64Array = np.asarray(np.rint(x / step) * step)
    rounded[np.abs(rounded) >= 2.0**128] *= np.inf
    return rounded


def widened(k: Float64Array, wide: ArrayLike | None) -> Float64Array:
    """Return keys (B, Hkv, S, D) of (B, Hkv, S, D + E) whose wide channels lie in two columns.

    The number of channel wide[h, e] is ``k[..., wide[h, e]] + 256 · k[..., D + e]``.
    """
    if wide is None:
        return k
    channels = np.asarray(wide)
    width = k.shape[-1] - channels.shape[1]
    numbers: Float64Array = k[..., :width].copy()
    for head, column in np.argwhere(channels >= 0):
        numbers[:, head, :, channels[head, column]] += 256 * k[:, head, :, width + column]
    return numbers


def check_precision(precision: str) -> None:
    """Raise ValueError for a precision of another name than "highest" or "high"."""
    if not isinstance(precision, str) or precision not in ("highest", "high"):
        raise ValueError(f"precision must be 'highest' or 'high', not {precision!r}")
