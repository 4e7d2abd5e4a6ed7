"""Activations by themselves, with the bits that they have behind a projection."""

from __future__ import annotations

from typing import Literal

from numpy.typing import ArrayLike

from numattn import _core
from numattn._aligned import empty
from numattn._arguments import as_array, as_output, flag, in_kind_of, thread_count
from numattn._dtypes import check_floating
from numattn._memory import require_apart
from numattn._names import Array, Output


def gelu(
    x: ArrayLike,
    *,
    tanh: bool = False,
    out: Output | None = None,
    num_threads: int | None = None,
) -> Array:
    """``x · Phi(x)``, Phi the normal distribution function.

    Parameters
    ----------
    x : array of any shape
        float32, float16 or bfloat16, any strides.
    tanh : bool
        Whether it is the approximation ``x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))``.
    out : array of x's shape and dtype, optional
        Where the result goes; may be x itself.
    num_threads : int, optional
        Upper limit for this call.

    Returns
    -------
    array of x's shape and dtype
        Bitwise what :class:`numattn.Linear` makes of the same float32 sums, rounded.

    Raises
    ------
    TypeError, ValueError, MemoryError
        Before anything is written.

    Notes
    -----
    Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016).

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> na.gelu(np.array([-1, 0, 1], np.float32)).round(4)
    array([-0.1587,  0.    ,  0.8413], dtype=float32)
    """
    return _activated(x, "gelu_tanh" if flag("tanh", tanh) else "gelu", out, num_threads)


def silu(x: ArrayLike, *, out: Output | None = None, num_threads: int | None = None) -> Array:
    """``x / (1 + exp(−x))``, also called swish.

    Parameters
    ----------
    x : array of any shape
        float32, float16 or bfloat16, any strides.
    out : array of x's shape and dtype, optional
        Where the result goes; may be x itself.
    num_threads : int, optional
        Upper limit for this call.

    Returns
    -------
    array of x's shape and dtype
        Bitwise what :class:`numattn.Linear` makes of the same float32 sums, rounded.

    Raises
    ------
    TypeError, ValueError, MemoryError
        Before anything is written.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> na.silu(np.array([-1, 0, 1], np.float32)).round(4)
    array([-0.2689,  0.    ,  0.7311], dtype=float32)
    """
    return _activated(x, "silu", out, num_threads)


def _activated(
    x: ArrayLike,
    activation: Literal["gelu", "gelu_tanh", "silu"],
    out: Output | None,
    num_threads: int | None,
) -> Array:
    given = as_array("x", x)
    check_floating("x", given)
    written_to = None if out is None else as_output(out)
    if written_to is not None:
        require_apart(written_to, {"x": given}, may_be=("x",))
        if written_to.shape != given.shape or written_to.dtype != given.dtype:
            raise ValueError(
                f"out must have x's shape {given.shape} and dtype {given.dtype}, "
                f"not {written_to.shape} and {written_to.dtype}"
            )
        if not written_to.flags.writeable:
            raise ValueError("out is read-only")
    result = empty(given.shape, given.dtype) if written_to is None else written_to
    flat = given.reshape(-1)
    contiguous = result.flags.c_contiguous
    written = result.reshape(-1) if contiguous else empty(flat.shape, result.dtype)
    _core.activate(flat, activation, written, thread_count(num_threads))
    if not contiguous:
        result[...] = written.reshape(result.shape)
    return in_kind_of(x, result, out)
