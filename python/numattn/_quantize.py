"""Keys and values as 8-bit integers, with a scale for each token and head."""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn._arguments import as_array, integers
from numattn._names import Array, Float32Array, Int64Array

LARGEST = 127  # the integers are symmetric: −128 is not used
LARGEST_WIDE = 127 * 256 + 127  # of a wide channel, whose second integer counts 256


def quantize(
    x: ArrayLike, *, wide: ArrayLike | None = None
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Integers and scales that stand for x: ``x ≈ integers · scale``, one scale for a last axis.

    ``scale = max |x| / 127`` and ``integers = round(x / scale)``, so that no element errs by more
    than ``scale / 2 = max |x| / 254``. A row that holds an infinity or a NaN gets the scale NaN.
    Below 2e-36 the scale, a subnormal number, is rounded, upwards if 127 of it would not do.

    Where a few channels of all rows are far larger than the others, as a projection's bias can make
    those of keys, the others are lost in that error. Such channels can be `wide`: they get a second
    integer, and the scale follows from the others alone.

    Parameters
    ----------
    x : array of shape (..., D)
        float32, float16 or bfloat16.
    wide : int array of shape (..., E), optional
        Wide channels, none twice in a row, −1 for none; broadcast against x but for the last axis.
        For keys (B, Hkv, S, D), a table (Hkv, E) of channels as attention's ``k_wide`` is given
        as ``[:, None]`` of it.

    Returns
    -------
    integers : int8 array of shape (..., D), or (..., D + E)
        With n = round(x / scale) for a wide channel e, columns ``wide[e]`` and D + e are l and h of
        ``n = l + 256 · h``, −128 ≤ l ≤ 127. Beyond ±32,639 scales, the scale grows.
    scale : float32 array of shape (...)

    Raises
    ------
    TypeError
        x has another dtype, or wide holds no integers.
    ValueError
        x has no axis, or wide does not fit it or names a channel that does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> integers, scale = na.quantize(np.array([[1.27, -0.5], [0, 0]], np.float32))
    >>> integers, scale
    (array([[127, -50],
           [  0,   0]], dtype=int8), array([0.01, 0.  ], dtype=float32))
    >>> na.quantize(np.array([1.27, -300.0], np.float32), wide=[1])  # −30,000 = −48 − 117 · 256
    (array([ 127,  -48, -117], dtype=int8), array(0.01, dtype=float32))
    """
    array = as_array("x", x)
    if array.dtype.name not in ("float32", "float16", "bfloat16"):
        raise TypeError(f"x must be float32, float16 or bfloat16, not {array.dtype}")
    if array.ndim == 0:
        raise ValueError("x must have at least one axis, not shape ()")
    numbers = array.astype(np.float32, copy=False)
    sizes = np.abs(numbers)
    if wide is None:
        scale = _scale_for(sizes.max(axis=-1, initial=0), LARGEST)
        return _rounded(numbers, scale, np.dtype(np.int8)), scale
    channels = _wide_channels(wide, array.shape)
    is_wide = (channels[..., np.newaxis] == np.arange(array.shape[-1])).any(axis=-2)
    scale = np.asarray(
        np.maximum(
            _scale_for(sizes.max(axis=-1, initial=0, where=~is_wide), LARGEST),
            _scale_for(sizes.max(axis=-1, initial=0, where=is_wide), LARGEST_WIDE),
        )
    )
    whole = _rounded(numbers, scale, np.dtype(np.int32))
    low = ((whole + 128) & 255) - 128
    high = np.take_along_axis((whole - low) >> 8, channels, axis=-1)
    high *= channels >= 0
    return np.concatenate([low, high], axis=-1, dtype=np.int8, casting="unsafe"), scale


def _scale_for(peak: Float32Array, largest: int) -> Float32Array:
    """Return the scale by which an integer of up to `largest` reaches the peak."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(np.isfinite(peak), peak / np.float32(largest), np.float32(np.nan))
        beyond = np.rint(peak / scale) > largest
    larger: Float32Array = np.nextafter(scale, np.float32(np.inf))
    return np.asarray(np.where(beyond, larger, scale))


def _rounded(numbers: Float32Array, scale: Float32Array, dtype: np.dtype[Any]) -> Array:
    """Return round(numbers / scale), 0 where the scale is 0 or NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        quotients = numbers / scale[..., np.newaxis]
    whole: Array = np.nan_to_num(np.rint(quotients), nan=0).astype(dtype)
    return whole


def _wide_channels(wide: ArrayLike, shape: tuple[int, ...]) -> Int64Array:
    """Return wide channels with as many axes as an array of that shape, checked."""
    channels = integers("wide", wide)
    if channels.ndim == 0:
        raise ValueError("wide must have at least one axis, not shape ()")
    rows = channels.shape[:-1]
    fits = len(rows) < len(shape) and all(
        own in (1, length) for own, length in zip(rows[::-1], shape[-2::-1], strict=False)
    )
    if not fits:
        raise ValueError(
            f"wide must be broadcast against x but for the last axis, and has shape "
            f"{channels.shape}, x {shape}"
        )
    if channels.size and not -1 <= channels.min() <= channels.max() < shape[-1] > 0:
        raise ValueError(
            f"wide must name channels in 0 … {shape[-1] - 1}, or −1, not "
            f"{channels.min()} … {channels.max()}"
        )
    ordered = np.sort(channels, axis=-1)
    if ((ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0)).any():
        raise ValueError("wide must name no channel twice in a row")
    return channels.reshape((1,) * (len(shape) - channels.ndim) + channels.shape)


class Pack(Protocol):
    """Makes of numbers (..., D) what stands for them: numbers (..., D + E) and scales (...)."""

    def __call__(
        self, x: ArrayLike, *, wide: ArrayLike | None = None
    ) -> tuple[Array, Float32Array]: ...


FORMATS: dict[str, Pack] = {"int8": quantize}
"""Forms in which a cache stores tokens: what makes numbers of a dtype that attention reads, and the
scales by which it multiplies these; channels that are `wide` lie as `quantize` lays them."""

Storage: TypeAlias = Literal["int8"] | None
"""The name of one of them, or None for tokens as they come."""
