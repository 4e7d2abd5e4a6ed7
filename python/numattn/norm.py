"""Normalisation layers around attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from numpy.typing import ArrayLike

from numattn import _core
from numattn._arguments import as_array, as_output, in_kind_of, real, thread_count
from numattn._memory import require_apart
from numattn._names import Array, Output
from numattn.linear import as_float_vector, as_matrix, as_output_matrix


def layer_norm(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    out: Output | None = None,
    num_threads: int | None = None,
) -> Array:
    """Layer normalisation over the last axis.

    ``y = (x - mean) / sqrt(variance + eps) · weight + bias``, in two passes in float32. Rows whose
    squares float32 does not hold, beyond 1e19 or below 1e-15, are scaled by a power of two first.

    Parameters
    ----------
    x : array of shape (..., n)
        float32, float16 or bfloat16.
    weight, bias : arrays of shape (n,)
    eps : float
        Added to the variance: 0, or a number that float32 holds.
    out : array of x's shape and dtype, optional
        May be x itself.
    num_threads : int, optional
        Upper limit for this call.

    Returns
    -------
    array of x's shape and dtype

    Raises
    ------
    TypeError, ValueError, MemoryError
        Before anything is written.

    Notes
    -----
    Ba, Kiros and Hinton, "Layer Normalization" (2016).

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> na.layer_norm(np.array([[1, 2, 3]], np.float32), np.ones(3, np.float32)).round(3)
    array([[-1.225,  0.   ,  1.225]], dtype=float32)
    """
    vectors = {
        "weight": as_float_vector("weight", weight),
        "bias": None if bias is None else as_float_vector("bias", bias),
    }
    return _normalised(_core.layer_norm, x, vectors, eps, out, num_threads)


def rms_norm(
    x: ArrayLike,
    weight: ArrayLike,
    *,
    eps: float = 1e-6,
    out: Output | None = None,
    num_threads: int | None = None,
) -> Array:
    """Normalisation by the root mean square over the last axis.

    ``y = x / sqrt(mean(x²) + eps) · weight``, in float32. Rows whose squares float32 does not hold
    are scaled by a power of two first.

    Parameters
    ----------
    x : array of shape (..., n)
        float32, float16 or bfloat16.
    weight : array of shape (n,)
        Gemma's files hold it less 1.
    eps : float
        Added to the mean of the squares: 0, or a number that float32 holds.
    out : array of x's shape and dtype, optional
        May be x itself.
    num_threads : int, optional
        Upper limit for this call.

    Returns
    -------
    array of x's shape and dtype
        Bitwise the same for any number of threads and any strides.

    Raises
    ------
    TypeError, ValueError, MemoryError
        Before anything is written.

    Notes
    -----
    Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019).

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> na.rms_norm(np.array([[3, 4]], np.float32), np.ones(2, np.float32)).round(3)
    array([[0.849, 1.131]], dtype=float32)
    """
    vectors: dict[str, Array | None] = {"weight": as_float_vector("weight", weight)}
    return _normalised(_core.rms_norm, x, vectors, eps, out, num_threads)


def _normalised(
    kernel: Callable[..., Array],
    x: ArrayLike,
    vectors: Mapping[str, Array | None],
    eps: float,
    out: Output | None,
    num_threads: int | None,
) -> Array:
    """What a kernel of the core makes of x, row by row, with vectors as long as a row."""
    rows = as_array("x", x)
    if rows.ndim == 0:
        raise ValueError("x must have at least one dimension")
    written = None if out is None else as_output(out)
    if written is not None:
        if written.shape != rows.shape:
            raise ValueError(f"out must have x's shape {rows.shape}, not {written.shape}")
        require_apart(written, {"x": rows, **vectors}, may_be=("x",))
    result = kernel(
        as_matrix(rows),
        *vectors.values(),
        real("eps", eps),
        None if written is None else as_output_matrix(written),
        thread_count(num_threads),
    )
    if out is None and rows.ndim != 2:
        result = result.reshape(rows.shape)
    return in_kind_of(x, result, out)
