"""Queries, keys and values of heads: projections of x, and of a context."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from numattn._arguments import bounded_integer
from numattn._dtypes import STORED, as_dtype, storage_name
from numattn._names import Precision
from numattn.linear import Linear

Array = NDArray[Any]


class ProjectedContext(NamedTuple):
    """Keys and values of a context: what cross-attention reads of it, whatever asks.

    Made by :meth:`numattn.MultiHeadAttention.project_context`.
    """

    k: Array
    """(B, Sk, Hkv, D) or (Sk, Hkv, D)"""
    v: Array
    """(B, Sk, Hkv, Dv) or (Sk, Hkv, Dv)"""


class Heads:
    """The weights of queries, keys and values, checked, and packed when they are first needed.

    Most modules only ever serve one of the two kinds of call: self- or cross-attention.

    Parameters
    ----------
    num_heads : int
    num_kv_heads : int or None
    wq, wk, wv, bq, bk, bv, dtype, precision
        As for :class:`numattn.MultiHeadAttention`.
    """

    def __init__(
        self,
        num_heads: int,
        num_kv_heads: int | None,
        weights: dict[str, ArrayLike],
        biases: dict[str, ArrayLike | None],
        dtype: DTypeLike | None,
        precision: Precision,
    ) -> None:
        self.num_heads = bounded_integer("num_heads", num_heads)
        self.num_kv_heads = bounded_integer(
            "num_kv_heads", self.num_heads if num_kv_heads is None else num_kv_heads
        )
        self._weights = {name: _matrix(name, weight) for name, weight in weights.items()}
        self._biases = biases
        self._check()
        self.storage = storage_name(dtype)
        # What queries, keys and values are projected into; None for x's dtype.
        self._dtype = None if self.storage == "float32" else as_dtype(self.storage, STORED)
        self._precision: Precision = precision
        self._joint: Linear | None = None
        self._separate: tuple[Linear, Linear] | None = None

    @property
    def head_dim(self) -> int:
        """D."""
        return int(self._weights["wq"].shape[0]) // self.num_heads

    @property
    def value_dim(self) -> int:
        """Dv."""
        return int(self._weights["wv"].shape[0]) // self.num_kv_heads

    def _check(self) -> None:
        if self.num_heads < 1 or self.num_kv_heads < 1 or self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads must be a positive multiple of num_kv_heads, "
                f"not {self.num_heads} and {self.num_kv_heads}"
            )
        heads = {"wq": self.num_heads, "wk": self.num_kv_heads, "wv": self.num_kv_heads}
        widths = {}
        for name, weight in self._weights.items():
            widths[name], rest = divmod(weight.shape[0], heads[name])
            if rest or not widths[name]:
                raise ValueError(
                    f"{name} of shape {weight.shape} does not divide into {heads[name]} heads"
                )
        for name, weight in self._weights.items():
            given = self._biases[name]
            if given is not None and np.shape(given) != weight.shape[:1]:
                raise ValueError(
                    f"{name.replace('w', 'b')} must have shape ({weight.shape[0]},) "
                    f"like the rows of {name}, not {np.shape(given)}"
                )
        if widths["wq"] != widths["wk"]:
            raise ValueError(
                f"wq and wk must give heads of one size, not {widths['wq']} and {widths['wk']}"
            )
        if self._weights["wk"].shape[1] != self._weights["wv"].shape[1]:
            raise ValueError(
                f"wk and wv must have the same number of columns, not shapes "
                f"{self._weights['wk'].shape} and {self._weights['wv'].shape}"
            )

    def of_self(self, x: Array, num_threads: int | None) -> tuple[Array, Array]:
        """Queries and then keys (..., S, Hq + Hkv, D), and values: views of one array."""
        if self._joint is None:
            self._joint = self._packed("wq", "wk", "wv")
        joined = applied(self._joint, x, self._dtype, num_threads)
        values = joined.shape[-1] - self._weights["wv"].shape[0]
        return (
            _heads(joined[..., :values], self.num_heads + self.num_kv_heads),
            _heads(joined[..., values:], self.num_kv_heads),
        )

    def queries(self, x: Array, num_threads: int | None) -> Array:
        """q of shape (..., Sq, Hq, D) for cross-attention."""
        return _heads(applied(self._cross()[0], x, self._dtype, num_threads), self.num_heads)

    def context(self, context: Array, num_threads: int | None) -> ProjectedContext:
        """Keys and values of a context: views of one array."""
        joined = applied(self._cross()[1], context, self._dtype, num_threads)
        keys = self._weights["wk"].shape[0]
        return ProjectedContext(
            _heads(joined[..., :keys], self.num_kv_heads),
            _heads(joined[..., keys:], self.num_kv_heads),
        )

    def _cross(self) -> tuple[Linear, Linear]:
        if self._separate is None:
            self._separate = (self._packed("wq"), self._packed("wk", "wv"))
        return self._separate

    def _packed(self, *names: str) -> Linear:
        """One projection for several weights that read the same rows."""
        weights = [self._weights[name] for name in names]
        columns = {weight.shape[1] for weight in weights}
        if len(columns) > 1:
            raise ValueError(
                f"x cannot serve as context: wq and wk have shapes "
                f"{self._weights['wq'].shape} and {self._weights['wk'].shape}"
            )
        biases = [self._biases[name] for name in names]
        bias = None
        if any(given is not None for given in biases):
            bias = np.concatenate(
                [
                    np.zeros(len(weight), np.float32) if given is None else np.asarray(given)
                    for weight, given in zip(weights, biases, strict=True)
                ]
            )
        return Linear(np.concatenate(weights), bias, dtype=self.storage, precision=self._precision)


def applied(
    projection: Linear, x: Array, dtype: np.dtype[Any] | None, num_threads: int | None
) -> Array:
    """The projection of x as an array of that dtype, or of x's."""
    out = None
    if dtype is not None and dtype != x.dtype:
        out = np.empty((*x.shape[:-1], projection.out_features), dtype)
    return projection(x, out=out, num_threads=num_threads)


def _matrix(name: str, weight: ArrayLike) -> Array:
    array = np.asarray(weight)
    if array.ndim != 2:
        raise ValueError(f"{name} must be a matrix (out_features, in_features), not {array.shape}")
    return array


def _heads(x: Array, heads: int) -> Array:
    """(..., S, H·D) as (..., S, H, D); the last axis is contiguous, so this is a view."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)
