"""y = activation(x·Wᵀ + b) · factor + residual, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .arrays import Float64Array
from .storage import (
    LARGEST_ACTIVATION,
    LARGEST_WEIGHT,
    as_stored,
    check_precision,
    storage_name,
    to_bytes,
    to_integers,
)


def relu(x: Float64Array) -> Float64Array:
    """Return max(x, 0)."""
    return np.maximum(x, 0.0)


def gelu(x: Float64Array) -> Float64Array:
    """Return x·Φ(x), with Φ the normal distribution function (Hendrycks and Gimpel, 2016)."""
    erf = np.array([math.erf(value) for value in (x / math.sqrt(2)).ravel()], dtype=np.float64)
    return 0.5 * x * (1 + erf.reshape(x.shape))


def gelu_tanh(x: Float64Array) -> Float64Array:
    """Return 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))), the same paper's approximation."""
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


def silu(x: Float64Array) -> Float64Array:
    """Return x / (1 + exp(−x)) (also called swish)."""
    return np.asarray(x / (1 + np.exp(-x)))


ACTIVATIONS: dict[str, Callable[[Float64Array], Float64Array]] = {
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": silu,
}


class Linear:
    """A dense layer in float64, activation(x·Wᵀ + b) · factor + residual, as `numattn.Linear`'s.

    Parameters
    ----------
    weight : array (out_features, in_features)
    bias : array (out_features,), optional
    dtype : None, float32, bfloat16, int8 or w8a8
        What stores the weight: with bfloat16 (its name, or any dtype of that name) each of its
        numbers is rounded to bfloat16 first. With int8 each row of the weight, and each row of x,
        becomes integers with a scale, as `numattn.reference.storage.to_integers` says: x's of 16
        bits, with w8a8 of 8.
        Everything is computed in float64 all the same.
    precision : "highest" or "high"
        Accepted so that calls can be compared; the reference always computes in float64.

    Raises
    ------
    ValueError
        If the weight is not a matrix, the bias does not fit it, or the dtype or the precision is
        another one.

    Examples
    --------
    >>> Linear([[1.0, 2.0]], [3.0])([10.0, 100.0]).tolist()
    [213.0]
    """

    def __init__(
        self,
        weight: ArrayLike,
        bias: ArrayLike | None = None,
        *,
        dtype: DTypeLike | None = None,
        precision: str = "highest",
    ) -> None:
        check_precision(precision)
        self.weight = as_stored(weight, dtype)
        self._quantized = None
        self._in_bytes = storage_name(dtype) == "w8a8"
        if storage_name(dtype) in ("int8", "w8a8"):
            self._quantized = to_integers(weight, LARGEST_WEIGHT)
        if self.weight.ndim != 2:
            raise ValueError(f"weight must be (out_features, in_features), not {self.weight.shape}")
        self.out_features, self.in_features = self.weight.shape
        self.bias: Float64Array = np.zeros(self.out_features)
        if bias is not None:
            self.bias = np.asarray(bias).astype(np.float64)
        if self.bias.shape != (self.out_features,):
            raise ValueError(f"bias {self.bias.shape} does not fit weight {self.weight.shape}")

    def __call__(
        self,
        x: ArrayLike,
        *,
        activation: str | None = None,
        factor: ArrayLike | None = None,
        residual: ArrayLike | None = None,
        out: NDArray[Any] | None = None,
        num_threads: int | None = None,
    ) -> NDArray[Any]:
        """Return activation(x·Wᵀ + b) · factor + residual.

        Parameters
        ----------
        x : array (..., in_features)
        activation : None, "relu", "gelu", "gelu_tanh" or "silu"
        factor : array (..., out_features), optional
            Multiplied by what the activation gives.
        residual : array (..., out_features), optional
            Added last.
        out : array (..., out_features), optional
            Receives the result, cast to its dtype.
        num_threads : int, optional
            Accepted so that calls can be compared; the reference ignores it.

        Returns
        -------
        float64 array (..., out_features), or `out`

        Raises
        ------
        ValueError
            If the activation is unknown or the shapes do not fit.
        """
        if activation is not None and activation not in ACTIVATIONS:
            raise ValueError(f"activation must be None or of {[*ACTIVATIONS]}, not {activation!r}")
        with np.errstate(all="ignore"):
            y = self._products(x) + self.bias
            if activation is not None:
                y = ACTIVATIONS[activation](y)
            if factor is not None:
                y = y * np.asarray(factor).astype(np.float64)
            if residual is not None:
                y = y + np.asarray(residual).astype(np.float64)
        if out is None:
            return y
        np.copyto(out, y, casting="unsafe")
        return out

    def _products(self, x: ArrayLike) -> Float64Array:
        """Return x·Wᵀ; that of integers exactly, before their scales."""
        if self._quantized is None:
            return np.asarray(np.asarray(x).astype(np.float64) @ self.weight.T)
        weight, weight_scale = self._quantized
        rows, scale = to_bytes(x) if self._in_bytes else to_integers(x, LARGEST_ACTIVATION)
        return np.asarray((rows @ weight.T) * scale * weight_scale.T)
