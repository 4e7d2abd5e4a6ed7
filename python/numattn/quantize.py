"""Keys and values as 8-bit integers, with a scale for each token and head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn._arguments import as_array
from numattn._names import Array, Float32Array

LARGEST = 127  # the integers are symmetric: −128 is not used


def quantize(x: ArrayLike) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Integers and scales that stand for x: ``x ≈ integers · scale``, one scale for a last axis.

    ``scale = max |x| / 127`` and ``integers = round(x / scale)``, so that no element errs by more
    than ``scale / 2 = max |x| / 254``. A row that holds an infinity or a NaN gets the scale NaN.
    Below 2e-36 the scale, a subnormal number, is rounded, upwards if 127 of it would not do.

    Parameters
    ----------
    x : array of shape (..., D)
        float32, float16 or bfloat16.

    Returns
    -------
    integers : int8 array of shape (..., D)
    scale : float32 array of shape (...)

    Raises
    ------
    TypeError
        x has another dtype.
    ValueError
        x has no axis.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> integers, scale = na.quantize(np.array([[1.27, -0.5], [0, 0]], np.float32))
    >>> integers, scale
    (array([[127, -50],
           [  0,   0]], dtype=int8), array([0.01, 0.  ], dtype=float32))
    """
    array = as_array("x", x)
    if array.dtype.name not in ("float32", "float16", "bfloat16"):
        raise TypeError(f"x must be float32, float16 or bfloat16, not {array.dtype}")
    if array.ndim == 0:
        raise ValueError("x must have at least one axis, not shape ()")
    numbers = array.astype(np.float32, copy=False)
    peak = np.abs(numbers).max(axis=-1, initial=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(np.isfinite(peak), peak / np.float32(LARGEST), np.float32(np.nan))
        scale = np.where(
            np.rint(peak / scale) > LARGEST, np.nextafter(scale, np.float32(np.inf)), scale
        )
        integers = np.nan_to_num(np.rint(numbers / scale[..., np.newaxis]), nan=0)
    return integers.astype(np.int8), scale


FORMATS: dict[str, Callable[[ArrayLike], tuple[Array, Float32Array]]] = {"int8": quantize}
"""Forms in which a cache stores tokens (..., D): what makes numbers (..., D) of them, of a dtype
that attention reads, and the scales (...) by which it multiplies these."""

Storage: TypeAlias = Literal["int8"] | None
"""The name of one of them, or None for tokens as they come."""
