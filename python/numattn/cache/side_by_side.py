"""Arrays that lie in one piece of memory, which then is in few large pages of the processor's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np

from numattn._names import Array

LINE = 64  # bytes: where each array begins

Kind: TypeAlias = tuple[tuple[int, ...], np.dtype[Any]]
"""Shape and dtype of an array."""


def side_by_side(kinds: Sequence[Kind]) -> Iterator[Array]:
    """Return new arrays of these kinds, in order; what is in them nobody wrote.

    Raises
    ------
    MemoryError
        There is no memory for all of them.
    """
    sizes = [-(-prod(shape) * dtype.itemsize // LINE) * LINE for shape, dtype in kinds]
    memory = np.empty(sum(sizes) + LINE, dtype=np.uint8)
    begin = -memory.ctypes.data % LINE
    pieces = np.split(memory[begin : begin + sum(sizes)], np.cumsum(sizes)[:-1])
    return (
        piece[: prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
        for piece, (shape, dtype) in zip(pieces, kinds, strict=True)
    )
