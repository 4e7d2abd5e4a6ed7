"""What new tokens of a cache must be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from numattn._arguments import as_array
from numattn._names import Array, Layout


@dataclass(frozen=True)
class TokenKind:
    """Keys and values of a token: heads, widths, dtype, and whether values are part of keys."""

    kv_heads: int
    head_dim: int
    value_dim: int
    dtype: np.dtype[Any]
    shared_values: bool = False

    def __post_init__(self) -> None:
        if self.shared_values and self.value_dim > self.head_dim:
            raise ValueError(
                f"value_dim must be head_dim {self.head_dim} at most where values are the first "
                f"elements of keys (shared_values), not {self.value_dim}"
            )

    def checked(
        self, k: Array, v: Array | None, batch: int, layout: Layout
    ) -> tuple[Array, Array | None, int]:
        """Return k and v of new tokens, and how many they hold for each of `batch` rows.

        v is None where values are part of the keys.
        """
        if self.shared_values:
            if v is not None:
                raise TypeError(
                    f"v must not be given: the values of this cache are the first {self.value_dim} "
                    "elements of k (shared_values)"
                )
            k = as_array("k", k)
            part = k[..., : self.value_dim] if k.ndim else k
            k, _, count = self._checked(k, part, batch, layout)
            return k, None, count
        if v is None:
            raise TypeError("v must be given: the cache stores keys and values apart")
        return self._checked(k, v, batch, layout)

    def _checked(self, k: Array, v: Array, batch: int, layout: Layout) -> tuple[Array, Array, int]:
        k, v = as_array("k", k), as_array("v", v)
        axis = 1 if layout == "bshd" else 2
        count = k.shape[axis] if k.ndim == 4 else 0
        if (
            layout not in ("bhsd", "bshd")
            or k.dtype != self.dtype
            or v.dtype != self.dtype
            or k.shape != self.shape(batch, count, self.head_dim, layout)
            or v.shape != self.shape(batch, count, self.value_dim, layout)
        ):
            self._refuse(k, v, batch, layout)
        return k, v, count

    def queries(self, q: ArrayLike, k: Array, layout: Layout) -> Array:
        """Return q, of as many tokens as k: the positions of both are those of new tokens."""
        queries = as_array("q", q)
        axis = 2 if layout == "bhsd" else 1
        shape, count = queries.shape, k.shape[axis]
        if len(shape) == 4 and shape[axis] != count:
            raise ValueError(
                f"q must hold as many tokens as k and v, {count}, not {shape[axis]}: "
                f"their shapes are {shape} and {k.shape}"
            )
        return queries

    def shape(
        self, batch: int, count: int, width: int, layout: Layout
    ) -> tuple[int, int, int, int]:
        """Return the shape of so many tokens of each row."""
        if layout == "bhsd":
            return (batch, self.kv_heads, count, width)
        return (batch, count, self.kv_heads, width)

    def _refuse(self, k: Array, v: Array, batch: int, layout: Layout) -> NoReturn:
        """Say what does not fit in k and v."""
        if layout not in ("bhsd", "bshd"):
            raise ValueError(f"layout must be 'bhsd' or 'bshd', not {layout!r}")
        axis = 1 if layout == "bshd" else 2
        for name, array, width in (("k", k, self.head_dim), ("v", v, self.value_dim)):
            if array.dtype != self.dtype:
                raise TypeError(
                    f"{name} has dtype {array.dtype}, but the cache holds {self.dtype}: "
                    f"cast it with .astype(cache.dtype)"
                )
            shape = array.shape
            if len(shape) != 4 or shape != self.shape(batch, shape[axis], width, layout):
                wanted = f"({batch}, {self.kv_heads}, S, {width})"
                if layout == "bshd":
                    wanted = f"({batch}, S, {self.kv_heads}, {width})"
                raise ValueError(f"{name} must have shape {wanted} in this cache, not {shape}")
        raise ValueError(f"k and v must hold as many tokens, not {k.shape[axis]}, {v.shape[axis]}")
