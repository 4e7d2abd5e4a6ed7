"""How a cache stores tokens: as they come, or as smaller numbers with scales."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from numattn._names import Array
from numattn._pickled import reduced
from numattn.quantize import FORMATS, Storage


class Tokens(NamedTuple):
    """Keys, values, and the scales of both where there are any: (..., Hkv, S, D) and so on."""

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
    pack = FORMATS[storage]
    (k_numbers, k_scale), (v_numbers, v_scale) = pack(k), pack(v)
    return Tokens(k_numbers, v_numbers, k_scale, v_scale)


def no_tokens(
    heads: int, head_dim: int, value_dim: int, dtype: np.dtype[Any], storage: Storage
) -> Tokens:
    """Return arrays of 0 tokens in the form that is stored: (Hkv, 0, D) and so on."""
    if storage is not None and not (isinstance(storage, str) and storage in FORMATS):
        raise ValueError(
            f"storage must be None or {' or '.join(map(repr, FORMATS))}, not {storage!r}"
        )
    return stored(
        np.empty((heads, 0, head_dim), dtype), np.empty((heads, 0, value_dim), dtype), storage
    )
