"""How a cache stores tokens: as they come, or as smaller numbers with scales.

Channels of keys that are wide have two of the smaller numbers, the second behind those of all
channels (:func:`numattn.quantize`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn._arguments import as_array
from numattn._names import Array, Int64Array, Layout
from numattn._pickled import reduced
from numattn._quantize import FORMATS, Storage

VECTOR = 8  # elements: of the shortest that the kernels read integers by
FORMAT_NAMES = " or ".join(map(repr, FORMATS))


class Tokens(NamedTuple):
    """Keys, values, and the scales of both where there are any: (..., Hkv, S, D) and so on.

    Where values are part of the keys they are not there.
    """

    k: Array
    v: Array | None
    k_scale: Array | None = None
    v_scale: Array | None = None

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Return those that there are."""
        return tuple(array for array in self if array is not None)

    def map(self, change: Callable[[Array], Array]) -> Tokens:
        """Return what `change` makes of each."""
        return Tokens(change(self.k), *(None if x is None else change(x) for x in self[1:]))

    def apart(self, new: Array) -> Array:
        """Return new tokens, or a copy of them where they lie in the memory of these.

        Room is made and tokens are written in steps, which would change what is still to be read.
        """
        return new.copy() if any(np.may_share_memory(new, array) for array in self.arrays) else new

    def values(self, value_dim: int) -> Array:
        """Return the values, or a view of the keys' first `value_dim` elements."""
        return self.k[..., :value_dim] if self.v is None else self.v

    def with_values(self, value_dim: int) -> Tokens:
        """Return them with values, whose scales are then those of keys if they are their part."""
        if self.v is not None:
            return self
        return Tokens(self.k, self.values(value_dim), self.k_scale, self.k_scale)

    @property
    def nbytes(self) -> int:
        """Return the memory of all."""
        return sum(array.nbytes for array in self.arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(self)


@dataclass(frozen=True)
class Form:
    """The form in which one layer's tokens are stored."""

    storage: Storage
    wide: Int64Array | None
    """(Hkv, E): wide channels of each head's keys, −1 for none."""

    def of(self, k: Array, v: Array | None, layout: Layout = "bhsd") -> Tokens:
        """Return keys and values (..., Hkv, S, D) as they are stored, in their layout."""
        if self.storage is None:
            return Tokens(k, v)
        if layout == "bshd":
            by_heads = self.of(k.swapaxes(1, 2), None if v is None else v.swapaxes(1, 2))
            return by_heads.map(lambda array: array.swapaxes(1, 2))
        pack = FORMATS[self.storage]
        k_numbers, k_scale = pack(k) if self.wide is None else pack(k, wide=self.wide[:, None])
        v_numbers, v_scale = (None, None) if v is None else pack(v)
        return Tokens(k_numbers, v_numbers, k_scale, v_scale)


def check_storage(storage: object) -> None:
    """Raise ValueError unless that is the name of a form, or None."""
    if storage is not None and not (isinstance(storage, str) and storage in FORMATS):
        raise ValueError(f"storage must be None or {FORMAT_NAMES}, not {storage!r}")


def wide_channels(
    wide_keys: ArrayLike, shape: tuple[int, int, int], storage: Storage, shared_values: bool
) -> NDArray[np.bool_]:
    """Return flags of all channels of keys, (layers, Hkv, D), checked."""
    flags = as_array("wide_keys", wide_keys)
    if flags.dtype != np.bool_:
        raise TypeError(f"wide_keys must hold flags (bool), not {flags.dtype}")
    if storage is None:
        raise ValueError(
            f"wide_keys is for caches that store integers, of storage {FORMAT_NAMES}; others keep "
            "all that keys have"
        )
    if shared_values:
        raise ValueError(
            "wide_keys has no meaning with shared_values: values would lack what wide channels hold"
        )
    try:
        every: NDArray[np.bool_] = np.broadcast_to(flags, shape).copy()
    except ValueError:
        raise ValueError(
            f"wide_keys must have shape (layers, Hkv, D) = {shape}, or be broadcast to it, not "
            f"shape {flags.shape}"
        ) from None
    return every


def wide_table(flags: NDArray[np.bool_]) -> Int64Array | None:
    """Return the channels (Hkv, E) of one layer's flags (Hkv, D), or None where none is set.

    E is that of the head with the most, up to whole vectors of the kernels.
    """
    most = int(flags.sum(axis=1).max())
    if most == 0:
        return None
    table = np.full((len(flags), -(-most // VECTOR) * VECTOR), -1, np.int64)
    for row, own in zip(table, flags, strict=True):
        channels = np.flatnonzero(own)
        row[: channels.size] = channels
    return table
