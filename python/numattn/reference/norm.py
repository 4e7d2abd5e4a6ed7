"""Layer normalisation, and that by the root mean square, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import Float64Array


def layer_norm(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    out: NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> NDArray[Any]:
    """Normalise the last axis: (x − mean) / sqrt(variance + eps)·weight + bias, in float64.

    Parameters
    ----------
    x : array (..., N)
    weight : array (N,)
    bias : array (N,), optional
    eps : float
        Added to the (biased) variance.
    out : array (..., N), optional
        Receives the result, cast to its dtype.
    num_threads : int, optional
        Accepted so that calls can be compared; the reference ignores it.

    Returns
    -------
    float64 array (..., N), or `out`

    Notes
    -----
    Ba, Kiros and Hinton, Layer Normalization, 2016.

    Examples
    --------
    >>> layer_norm([1.0, 3.0], [1.0, 1.0], eps=0.0).tolist()
    [-1.0, 1.0]
    """
    x, weight = np.asarray(x).astype(np.float64), np.asarray(weight).astype(np.float64)
    with np.errstate(all="ignore"):
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred**2).mean(axis=-1, keepdims=True)
        y: Float64Array = centred / np.sqrt(variance + eps) * weight
        if bias is not None:
            y = y + np.asarray(bias).astype(np.float64)
    if out is None:
        return y
    np.copyto(out, y, casting="unsafe")
    return out


def rms_norm(
    x: ArrayLike,
    weight: ArrayLike,
    *,
    eps: float = 1e-6,
    out: NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> NDArray[Any]:
    """Normalise the last axis by its root mean square: x / sqrt(mean(x²) + eps)·weight, in float64.

    Parameters
    ----------
    x : array (..., N)
    weight : array (N,)
    eps : float
        Added to the mean of the squares.
    out : array (..., N), optional
        Receives the result, cast to its dtype.
    num_threads : int, optional
        Accepted so that calls can be compared; the reference ignores it.

    Returns
    -------
    float64 array (..., N), or `out`

    Notes
    -----
    Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.

    Examples
    --------
    >>> rms_norm([3.0, 4.0], [1.0, 2.0], eps=0.0).round(3).tolist()
    [0.849, 2.263]
    """
    x, weight = np.asarray(x).astype(np.float64), np.asarray(weight).astype(np.float64)
    with np.errstate(all="ignore"):
        y: Float64Array = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * weight
    if out is None:
        return y
    np.copyto(out, y, casting="unsafe")
    return out
