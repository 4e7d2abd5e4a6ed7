"""Queries, keys and values as approximations compute with them, and results as callers get them.

All of them compute in float32 on (batch, head, position, element), whatever the dtype and the order
of the axes outside.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from numattn._aligned import empty
from numattn._arguments import as_array, in_kind_of, layout_name, real
from numattn._dtypes import check_floating
from numattn._names import Array, Float32Array, Layout

FLOAT32 = np.dtype(np.float32)


class Operands(NamedTuple):
    """What a call is about, in float32 and canonical order, and what its result is to be like."""

    q: Float32Array
    """(B, Hq, Sq, D)"""
    k: Float32Array
    """(B, Hkv, Sk, D)"""
    v: Float32Array
    """(B, Hkv, Sk, Dv)"""
    dtype: np.dtype[Any]
    layout: Layout
    one_entry: bool
    model: object
    """Of what kind results are: q, as the caller gave it."""

    @classmethod
    def of(cls, q: ArrayLike, k: ArrayLike, v: ArrayLike, layout: Layout) -> Operands:
        """Check what a caller gave.

        Raises
        ------
        TypeError
            A dtype is not supported, or they disagree.
        ValueError
            Shapes do not fit, or the layout is unknown.
        """
        if layout_name(layout) not in ("bhsd", "bshd"):
            raise ValueError(f"layout must be 'bhsd' or 'bshd', not {layout!r}")
        given = {"q": as_array("q", q), "k": as_array("k", k), "v": as_array("v", v)}
        axes = given["q"].ndim
        for name, array in given.items():
            check_floating(name, array)
            if array.dtype != given["q"].dtype:
                raise TypeError(f"{name} has dtype {array.dtype}, and q has {given['q'].dtype}")
            if array.ndim not in (3, 4) or array.ndim != axes:
                raise ValueError(f"{name} must have 3 or 4 dimensions as q, not {array.shape}")
        queries, keys, values = (canonical(array, layout) for array in given.values())
        check_shapes(queries, keys, values)
        return cls(queries, keys, values, given["q"].dtype, layout, axes == 3, q)

    @property
    def group(self) -> int:
        """Query heads that share a key head."""
        return int(self.q.shape[1] // self.k.shape[1])

    def grouped_queries(self) -> Float32Array:
        """q as (B, Hkv, group, Sq, D), a view."""
        batch, _, length, width = self.q.shape
        return self.q.reshape(batch, self.k.shape[1], self.group, length, width)

    def for_query_heads(self, x: Float32Array) -> Float32Array:
        """An array (B, Hkv, ...) of key heads as (B, Hq, ...)."""
        return x if self.group == 1 else np.repeat(x, self.group, axis=1)

    def result(self, o: Float32Array) -> Array:
        """(B, Hq, Sq, Dv) in the caller's dtype, order and number of axes."""
        rows = o.swapaxes(1, 2) if self.layout == "bshd" else o
        rows = rows[0] if self.one_entry else rows
        if rows.dtype == self.dtype and rows.flags.c_contiguous:
            return in_kind_of(self.model, rows)
        whole = empty(rows.shape, self.dtype)
        whole[...] = rows
        return in_kind_of(self.model, whole)


def canonical(array: Array, layout: Layout) -> Float32Array:
    """An array of heads as float32 (B, H, S, D)."""
    rows = array if array.ndim == 4 else array[np.newaxis]
    rows = rows.swapaxes(1, 2) if layout == "bshd" else rows
    return rows if rows.dtype == FLOAT32 else rows.astype(np.float32)


def check_shapes(q: Array, k: Array, v: Array) -> None:
    """Raise ValueError unless canonical q, k and v fit one another."""
    if k.shape[0] != q.shape[0] or k.shape[3] != q.shape[3]:
        raise ValueError(f"q {q.shape} and k {k.shape} must agree in batch and head size")
    if v.shape[:3] != k.shape[:3]:
        raise ValueError(f"k {k.shape} and v {v.shape} must agree in batch, heads and length")
    if k.shape[1] == 0 or q.shape[1] % k.shape[1] != 0:
        raise ValueError(
            f"q has {q.shape[1]} heads, which is no multiple of the {k.shape[1]} heads of k"
        )
    if min(q.shape[3], v.shape[3]) == 0:
        raise ValueError(f"q {q.shape} and v {v.shape} must have heads of one element or more")


def softmax_scale(scale: float | None, width: int) -> float:
    """The factor of q·kᵀ: 1/√D by default."""
    if scale is None:
        return float(1 / np.sqrt(width))
    factor = real("scale", scale)
    if not 0 < factor < np.inf:
        raise ValueError(f"scale must be positive and finite, not {factor}")
    return factor


def require_square(name: str, q: Array, k: Array) -> None:
    """Raise ValueError unless there is a key for each query, as causal order needs."""
    if q.shape[2] != k.shape[2]:
        raise ValueError(f"{name} needs as many queries as keys, not {q.shape[2]} and {k.shape[2]}")
