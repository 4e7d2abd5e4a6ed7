"""Arrays whose forbidden neighbourhood is not mapped: a read or write there ends the process.

Each (b, h) part of an array (B, H, S, D) lies in pages of its own, between pages without access:

    | no access ... | data pages | ... no access |

and touches either the first or the last byte of its data pages. Rows outside [lo, hi) lie in the
pages without access, as far as they do not share a page with data; there they are NaN.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

EDGES = ("first_byte", "last_byte")
PAGE = mmap.PAGESIZE
PROT_NONE = 0
_libc = ctypes.CDLL(None, use_errno=True)


def guarded(
    values: Array,
    edge: str,
    visible: Sequence[tuple[int, int]] | None = None,
    row_padding: int = 0,
) -> Array:
    """Return `values` (B, H, S, D), B ≤ 2, between guard pages.

    Of batch entry b only the rows visible[b] = (lo, hi) are there. Rows lie D + row_padding
    elements apart. The mapping lives as long as the array.
    """
    batch, heads, length, width = values.shape
    visible = [(0, length)] * batch if visible is None else visible
    item = values.dtype.itemsize
    row = (width + row_padding) * item
    sizes = [(hi - 1 - lo) * row + width * item if hi > lo else 0 for lo, hi in visible]
    guard = PAGE * (pages(length * row) + 1)  # room for every row that may lie there
    region = 2 * guard + PAGE * max(map(pages, sizes))
    memory = mmap.mmap(-1, batch * heads * region)
    everything = np.frombuffer(memory, dtype=np.uint8)
    everything[:] = 0xFF  # a NaN in each float dtype

    starts = []
    for b, ((lo, hi), size) in enumerate(zip(visible, sizes, strict=True)):
        first = guard + (PAGE * pages(size) - size if edge == "last_byte" else 0)
        starts.append(b * heads * region + first - lo * row)
        strides = (region, row, item)
        part = np.ndarray((heads, length, width), values.dtype, memory, starts[b], strides)
        part[:, lo:hi] = values[b, :, lo:hi]
        for h in range(heads):
            begin = everything.ctypes.data + (b * heads + h) * region
            forbid(begin, guard)
            forbid(begin + guard + PAGE * pages(size), region - guard - PAGE * pages(size))
    # Two entries may start at different places of their regions: the batch stride absorbs that.
    between = starts[1] - starts[0] if batch == 2 else region
    strides = (between, region, row, item)
    return np.ndarray(values.shape, values.dtype, memory, starts[0], strides)


def pages(size: int) -> int:
    """Return how many pages hold that many bytes."""
    return -(-size // PAGE)


def forbid(address: int, size: int) -> None:
    """Take every access to [address, address + size) away."""
    if _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), PROT_NONE) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
