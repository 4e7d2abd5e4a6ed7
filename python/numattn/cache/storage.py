"""How a cache stores tokens: as they come, or as 8-bit integers with scales."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from numattn._pickled import reduced
from numattn.quantize import quantize

Array: TypeAlias = NDArray[Any]
Storage: TypeAlias = Literal["int8"] | None


class Tokens(NamedTuple):
    """Keys, values, and the scales of both where these are integers: (..., Hkv, S, D) and so on."""

    k: Array
    v: Array
    k_scale: Array | None = None
    v_scale: Array | None = None

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Return those that there are."""
        if self.k_scale is None or self.v_scale is None:
            return (self.k, self.v)
        return (self.k, self.v, self.k_scale, self.v_scale)

    def map(self, change: Callable[[Array], Array]) -> Tokens:
        """Return what `change` makes of each."""
        return Tokens(*map(change, self.arrays))

    @property
    def nbytes(self) -> int:
        """Return the memory of all."""
        return sum(array.nbytes for array in self.arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(self)


def stored(k: Array, v: Array, storage: Storage) -> Tokens:
    """Return keys and values in the form that is stored."""
    if storage is None:
        return Tokens(k, v)
    (k_integers, k_scale), (v_integers, v_scale) = quantize(k), quantize(v)
    return Tokens(k_integers, v_integers, k_scale, v_scale)


def no_tokens(
    heads: int, head_dim: int, value_dim: int, dtype: np.dtype[Any], storage: Storage
) -> Tokens:
    """Return arrays of 0 tokens in the form that is stored: (Hkv, 0, D) and so on."""
    if storage not in (None, "int8"):
        raise ValueError(f"storage must be None or 'int8', not {storage!r}")
    return stored(
        np.empty((heads, 0, head_dim), dtype), np.empty((heads, 0, value_dim), dtype), storage
    )
