"""What storing a weight in a narrower type makes of it, and the names of precisions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .arrays import Float64Array

LARGEST_WEIGHT = 127
LARGEST_ACTIVATION = 256 * 127 + 127
"""Of the integers that stand for the inputs of a layer with int8 weights: two signed bytes, each at
most 127, make it."""


def as_stored(weight: ArrayLike, dtype: DTypeLike | None) -> Float64Array:
    """Return a weight as float64, rounded first to what stores it: bfloat16, or integers.

    Raises
    ------
    ValueError
        If the dtype is neither float32 (which None means too) nor bfloat16, int8 or w8a8.
    """
    stored = np.asarray(weight).astype(np.float64)
    name = storage_name(dtype)
    if name == "bfloat16":
        return round_to_bfloat16(stored)
    if name in ("int8", "w8a8"):
        integers, scale = to_integers(weight, LARGEST_WEIGHT)
        return integers * scale
    return stored


def storage_name(dtype: DTypeLike | None) -> str:
    """Return "float32", "bfloat16", "int8" or "w8a8", by name, since NumPy has not all of them."""
    if dtype is None:
        return "float32"
    if isinstance(dtype, str) and dtype in ("bfloat16", "w8a8"):
        return dtype
    try:
        name: str = np.dtype(dtype).name
    except (TypeError, ValueError):
        name = repr(dtype)
    if name not in ("float32", "bfloat16", "int8"):
        raise ValueError(f"dtype must be float32, bfloat16, int8 or w8a8, not {name}")
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


def to_integers(rows: ArrayLike, largest: int) -> tuple[Float64Array, Float64Array]:
    """Return integers up to ±largest and scales (..., 1) whose product stands for rows (..., n).

    integer = round(x / power · (largest / peak)) and scale = peak / largest · power, for the row's
    peak = max |x| / power. Every operation is one of float32, rounded once, since the integers
    depend on it. `power` is 2^∓60 for rows that are all below 2^-60 or reach above 2^60, whose
    scales float32 might not hold, and 1 for all others. The integers of a row of zeros are 0 and
    its scale is 0; those of a row with an infinity or a NaN are 0 and its scale is NaN.
    """
    x, low, high, power = bounds(rows)
    return quantized(x, np.maximum(high, -low), power, largest, -largest, largest)


def to_bytes(rows: ArrayLike) -> tuple[Float64Array, Float64Array]:
    """Return 256 integers at most, 0 among them, and scales (..., 1), as `to_integers` does.

    integer = round(x / power · (255 / extent)) and scale = extent / 255 · power, for the row's
    extent = (max x − min x) / power with 0 beside its numbers; they lie from −zero to 255 − zero,
    with zero = round(−min x / power · (255 / extent)), the byte that stands for 0.
    """
    x, low, high, power = bounds(rows)
    extent, steps = high - low, np.float32(255)
    with np.errstate(all="ignore"):
        zero = np.rint(-low * (steps / extent))
    return quantized(x, extent, power, 255, -zero, steps - zero)


def bounds(rows: ArrayLike) -> tuple[NDArray[np.float32], ...]:
    """Return x, and of each row what it and 0 lie between, divided by its power, and that."""
    x = np.asarray(rows).astype(np.float32)
    low = x.min(axis=-1, keepdims=True, initial=0)
    high = x.max(axis=-1, keepdims=True, initial=0)
    peak = np.maximum(high, -low)
    power = np.where(peak < 2.0**-60, 2.0**-60, np.where(peak > 2.0**60, 2.0**60, 1.0))
    power = power.astype(np.float32)
    return x, low / power, high / power, power


def quantized(
    x: NDArray[np.float32],
    extent: NDArray[np.float32],
    power: NDArray[np.float32],
    steps: int,
    least: float | NDArray[np.float32],
    most: float | NDArray[np.float32],
) -> tuple[Float64Array, Float64Array]:
    """Return the integers of x between two bounds, for so many steps of an extent, and scales."""
    with np.errstate(all="ignore"):
        integers = np.rint(x * (np.float32(1) / power) * (np.float32(steps) / extent))
        integers = np.clip(integers, least, most)
        scale = (extent / np.float32(steps)).astype(np.float64) * power
    good = (extent > 0) & np.isfinite(extent)
    scale = np.where(np.isfinite(extent), scale, np.nan)
    return np.where(good, integers, 0).astype(np.float64), scale


def check_precision(precision: str) -> None:
    """Raise ValueError for a precision of another name than "highest" or "high"."""
    if not isinstance(precision, str) or precision not in ("highest", "high"):
        raise ValueError(f"precision must be 'highest' or 'high', not {precision!r}")
