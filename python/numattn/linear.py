"""Projections with weights packed once."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from numattn import _core
from numattn._arguments import thread_count
from numattn.attention import _overlap

Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]
Array = NDArray[Any]


def as_float_vector(name: str, value: ArrayLike) -> NDArray[np.float32]:
    """A contiguous float32 vector from one of float32, float16 or bfloat16."""
    array = np.asarray(value)
    if array.dtype == np.float32:  # the usual case, told quickly
        return np.ascontiguousarray(array)
    if array.dtype.name not in ("float32", "float16", "bfloat16") or not array.dtype.isnative:
        raise TypeError(
            f"{name} has dtype {array.dtype}; it must be float32, float16 or bfloat16 in native "
            "byte order: cast it with .astype(np.float32)"
        )
    return np.ascontiguousarray(array, dtype=np.float32)


class Linear:
    """``y = activation(x · weightᵀ + bias) + residual`` with the weight packed at construction.

    Parameters
    ----------
    weight : array of shape (out_features, in_features)
        float32, float16 or bfloat16, any strides; not kept.
    bias : array of shape (out_features,), optional
    dtype : dtype, optional
        How the packed weight is stored: float32, which is also the default.

    Attributes
    ----------
    in_features, out_features : int

    Raises
    ------
    TypeError
        A dtype is not supported.
    ValueError
        Shapes do not fit, or ``dtype`` is not available for storage.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> double = na.Linear(2 * np.eye(3, dtype=np.float32))
    >>> double(np.array([[1, -2, 3]], np.float32), activation="relu")
    array([[2., 0., 6.]], dtype=float32)
    """

    __slots__ = ("_packed", "in_features", "out_features")

    def __init__(
        self, weight: ArrayLike, bias: ArrayLike | None = None, *, dtype: DTypeLike | None = None
    ) -> None:
        if dtype is not None and np.dtype(dtype) != np.float32:
            raise ValueError(f"dtype must be float32, the storage type, not {np.dtype(dtype)}")
        self._packed = _core.PackedLinear(
            np.asarray(weight), None if bias is None else as_float_vector("bias", bias)
        )
        self.in_features: int = self._packed.in_features
        self.out_features: int = self._packed.out_features

    def __repr__(self) -> str:
        return f"Linear(in_features={self.in_features}, out_features={self.out_features})"

    def __call__(
        self,
        x: ArrayLike,
        *,
        activation: Activation | None = None,
        residual: ArrayLike | None = None,
        out: Array | None = None,
        num_threads: int | None = None,
    ) -> Array:
        """Project the last axis of ``x``.

        Parameters
        ----------
        x : array of shape (..., in_features)
            float32, float16 or bfloat16; sums are float32.
        activation : {None, "relu", "gelu", "gelu_tanh", "silu"}
            "gelu" is the exact one, ``x · Phi(x)``; "gelu_tanh" its tanh approximation.
        residual : array of shape (..., out_features), optional
            Added after the activation; x's dtype. May be ``out`` itself.
        out : array of shape (..., out_features), optional
            Where the result goes; x's dtype, apart from x.
        num_threads : int, optional
            Upper limit for this call.

        Returns
        -------
        array of shape (..., out_features), x's dtype
            Bitwise the same for any number of threads and whatever rows stand beside a row.

        Raises
        ------
        TypeError, ValueError, MemoryError
            Before anything is written.
        """
        rows = np.asarray(x)
        if rows.ndim == 0:
            raise ValueError("x must have at least one dimension")
        addition = None if residual is None else np.asarray(residual)
        shape = (*rows.shape[:-1], self.out_features)
        _check_companion("residual", addition, shape)
        if out is not None:
            _check_companion("out", out, shape)
            if _overlap(out, rows):
                raise ValueError("out overlaps x: the result needs memory of its own")
            if addition is not None and _crosses(out, addition):
                raise ValueError("out overlaps residual without being the same array")
        result: Array = self._packed.run(
            as_matrix(rows),
            activation or "",
            None if addition is None else as_matrix(addition),
            None if out is None else as_output_matrix(out),
            thread_count(num_threads),
        )
        return result.reshape(shape) if out is None else out


def as_matrix(array: Array) -> Array:
    """All axes but the last as one: (..., n) → (rows, n)."""
    if array.ndim == 2:
        return array
    if array.shape[-1] == 0:
        return array.reshape(math.prod(array.shape[:-1]), 0)
    return array.reshape(-1, array.shape[-1])


def as_output_matrix(out: Array) -> Array:
    """The same without a copy, since the result must arrive in ``out``."""
    matrix = as_matrix(out)
    if not np.may_share_memory(matrix, out) and out.size:
        raise ValueError(
            f"out of shape {out.shape} and strides {out.strides} cannot be seen as a matrix: "
            "its leading dimensions must be contiguous with one another"
        )
    return matrix


def _check_companion(name: str, array: Array | None, shape: tuple[int, ...]) -> None:
    if array is None:
        return
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, not {type(array).__name__}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, not {array.shape}")


def _crosses(out: Array, residual: Array) -> bool:
    """Whether the two share memory other than element by element."""
    if out is residual or not np.may_share_memory(out, residual):
        return False
    same = (
        out.__array_interface__["data"] == residual.__array_interface__["data"]
        and out.strides == residual.strides
    )
    return not same and _overlap(out, residual)
