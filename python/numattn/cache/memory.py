"""Memory of a cache: arrays side by side, in huge pages where the system has them.

A step of a decoder streams all of it, and through small pages of the processor's that is slower:
the attention of a step of 30 layers took 7.0 ms with an array for each, and 5.9 in one piece.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numattn import _core
from numattn._names import Array

from .storage import Tokens

LINE = 64  # bytes: where each array begins
SHARED = 8 << 20  # bytes: layers of up to so many share a block; larger ones have their own

Shape = tuple[int, ...]


def bytes_of(like: Tokens, shape_of: Callable[[Array], Shape]) -> int:
    """Return the memory of arrays of these shapes and of the dtypes that `like` has."""
    return sum(_in_lines(shape_of(array), array.dtype) for array in like.arrays)


def arrays_in(
    memory: NDArray[np.uint8], like: Tokens, shape_of: Callable[[Array], Shape]
) -> Tokens:
    """Return such arrays, uninitialised, one after the other in `memory`."""
    begin = 0

    def take(array: Array) -> Array:
        nonlocal begin
        shape = shape_of(array)
        end = begin + prod(shape) * array.itemsize
        taken = memory[begin:end].view(array.dtype).reshape(shape)
        begin += _in_lines(shape, array.dtype)
        return taken

    return like.map(take)


def new_memory(size: int) -> NDArray[np.uint8]:
    """Return so many bytes, uninitialised.

    Raises
    ------
    ValueError
        The size passes 64 bits.
    MemoryError
        There is no room.
    """
    if size >= 2**63:
        raise ValueError(f"the memory of a cache must fit 64 signed bits, not {size} bytes")
    return _core.cache_memory(size)


def _in_lines(shape: Shape, dtype: np.dtype[Any]) -> int:
    """Return the bytes of an array in whole lines."""
    return -(-prod(shape) * dtype.itemsize // LINE) * LINE


class LayerMemory:
    """Memory for layers that grow: those that take as much lie side by side, in one block.

    A block takes addresses for all layers when the first of them asks, and memory as it is written.
    It goes with the last layer in it.
    """

    def __init__(self, layers: int) -> None:
        self.layers = layers
        self._blocks: dict[int, tuple[weakref.ref[NDArray[np.uint8]], int]] = {}

    def take(self, like: Tokens, shape_of: Callable[[Array], Shape]) -> Tokens:
        """Return arrays of a layer; errors are those of `new_memory`."""
        size = bytes_of(like, shape_of)
        if size == 0 or size > SHARED:
            return arrays_in(new_memory(max(size, LINE)), like, shape_of)
        reference, used = self._blocks.get(size, (None, 0))
        block = None if reference is None else reference()
        if block is None or used == self.layers:
            block, used = new_memory(self.layers * size), 0
            self._blocks = {key: old for key, old in self._blocks.items() if old[0]() is not None}
        self._blocks[size] = (weakref.ref(block), used + 1)
        return arrays_in(block[used * size : (used + 1) * size], like, shape_of)

    def __reduce__(self) -> tuple[Any, ...]:
        return LayerMemory, (self.layers,)  # blocks do not travel
