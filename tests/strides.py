"""The same values in other memory layouts: what rules 6 and 8 ask of every input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def fortran(x: Array) -> Array:
    return np.asfortranarray(x)


def axes_swapped(x: Array) -> Array:
    """Return bhsd stored as bshd."""
    if x.ndim < 3:
        return fortran(x)
    return np.ascontiguousarray(x.swapaxes(-3, -2)).swapaxes(-3, -2)


def reversed_axes(x: Array) -> Array:
    """Return x with every stride negative."""
    backwards = (slice(None, None, -1),) * x.ndim
    return np.ascontiguousarray(x[backwards])[backwards]


def every_other(x: Array) -> Array:
    """Return x with a gap after every element."""
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def padded_rows(x: Array) -> Array:
    """Return x with rows an odd number of elements apart."""
    padding = 3 if x.shape[-1] % 2 == 0 else 4
    wide = np.zeros((*x.shape[:-1], x.shape[-1] + padding), x.dtype)
    wide[..., 1 : x.shape[-1] + 1] = x
    return wide[..., 1 : x.shape[-1] + 1]


def misaligned(x: Array) -> Array:
    """Return x one byte behind an address that its dtype would be aligned at."""
    memory = bytearray(x.nbytes + 1)
    moved = np.ndarray(x.shape, x.dtype, memory, offset=1)
    moved[...] = x
    return moved


def read_only(x: Array) -> Array:
    copy = x.copy()
    copy.flags.writeable = False
    return copy


RELAYOUTS: dict[str, Callable[[Array], Array]] = {
    relayout.__name__: relayout
    for relayout in (
        fortran,
        axes_swapped,
        reversed_axes,
        every_other,
        padded_rows,
        misaligned,
        read_only,
    )
}
