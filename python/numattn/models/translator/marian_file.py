"""Tensors of a Marian binary model, whose matrices are stored in 8 bits.

The file is a sequence of little-endian parts:

    version 1, n                              2 × uint64
    n × (name size, type, dims, data size)    4 × uint64 each
    n names, each ending with a zero byte
    n shapes                                  int32
    a gap, after its size in a uint64
    n blocks of data

A matrix of type INTGEMM8 holds an int8 for each entry, and after them a float32 m: its entries are
the int8 divided by m. (Junczys-Dowmunt et al., "Marian: Fast Neural Machine Translation in C++",
2018; Bogoychev et al., "Edinburgh's Submissions to the 2020 Machine Translation Efficiency Task",
2020.)
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..arrays import Float32Array
from ..files.checkpoint import check_all_taken, check_count
from ..files.folder import regular_file

VERSION = 1
INT8, FLOAT32, INTGEMM8 = 0x0101, 0x0404, 0x4101
# A model has some 200 tensors. A damaged file may claim any number of them, and of their parts.
MOST_ITEMS, MOST_NAME, MOST_DIMS = 1 << 16, 1 << 12, 8

# What activations are multiplied by before they are rounded to 8 bits; here they are not.
IGNORED = r".*_QuantMultA"


@dataclass(frozen=True)
class Item:
    """Where a tensor stands in the file."""

    kind: int
    shape: tuple[int, ...]
    start: int
    size: int


class MarianFile:
    """The tensors of a file, by name and shape.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not such a file, or is cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._taken: set[str] = set()
        with open(regular_file(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < 16:
                raise ValueError(f"{path} is no Marian model: it has {size} bytes")
            # The header alone is read: where it ends is known at its end.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                try:
                    self._items = read_items(data)
                except (struct.error, UnicodeDecodeError) as error:
                    raise ValueError(f"{path} is no Marian model, or cut short: {error}") from None
                except ValueError as error:
                    raise ValueError(f"{path} is no Marian model: {error}") from None
        for name, item in self._items.items():
            if item.start + item.size > size:
                raise ValueError(f"{path} is cut short: it ends before tensor {name} does")

    def take(self, name: str, shape: Sequence[int]) -> Float32Array:
        """Return a tensor as float32 of exactly that shape.

        Raises
        ------
        ValueError
            If it is missing, of another shape or of a type that is not read.
        """
        if name not in self._items:
            raise ValueError(f"{self.path} has no tensor {name}")
        item = self._items[name]
        if item.shape != tuple(shape):
            raise ValueError(
                f"tensor {name} in {self.path} has shape {item.shape}, "
                f"but the model calls for {tuple(shape)}"
            )
        self._taken.add(name)
        count = math.prod(item.shape)
        if item.kind == FLOAT32 and item.size >= 4 * count:
            return self._numbers("<f4", count, item.start).reshape(shape)
        if item.kind == INTGEMM8 and item.size >= count + 4:
            multiplier = float(self._numbers("<f4", 1, item.start + count)[0])
            if not 0 < multiplier < float("inf"):
                raise ValueError(
                    f"tensor {name} in {self.path} has multiplier {multiplier}, "
                    "which must be a positive number"
                )
            numbers = self._numbers("i1", count, item.start)
            numbers /= np.float32(multiplier)
            return numbers.reshape(shape)
        raise ValueError(f"tensor {name} in {self.path} has type {item.kind:#x}, {item.size} bytes")

    def take_weight(self, name: str, columns: int, rows: int) -> Float32Array:
        """Return a matrix (in, out) = (columns, rows) that multiplies from the right, as (out, in).

        Such matrices stand transposed in the file, whatever shape it names.
        """
        return self.take(name, (columns, rows)).reshape(rows, columns)

    def text(self, name: str) -> str:
        """Return what an item of bytes says, up to its first zero byte."""
        item = self._items.get(name)
        if item is None or item.kind != INT8:
            raise ValueError(f"{self.path} has no text {name}")
        self._taken.add(name)
        data = np.fromfile(self.path, np.uint8, item.size, offset=item.start).tobytes()
        return data.split(b"\0", 1)[0].decode("utf-8", errors="replace")

    def check_layers(self, stem: str, count: int, setting: str) -> None:
        """Raise ValueError unless there are `count` layers, whose names begin "<stem><number>_".

        `setting` is what the model's own configuration calls their number.
        """
        check_count(self.path, self._items, stem, count, setting)

    def finish(self) -> None:
        """Raise ValueError if a tensor has not been taken, except for those IGNORED."""
        check_all_taken(self.path, self._items, self._taken, IGNORED)

    def _numbers(self, dtype: str, count: int, start: int) -> Float32Array:
        numbers = np.fromfile(self.path, dtype, count, offset=start)
        if numbers.size != count:
            raise ValueError(f"{self.path} has become shorter while it was read")
        return numbers.astype(np.float32, copy=False)


def read_items(data: bytes | mmap.mmap) -> dict[str, Item]:
    """Return where each tensor stands, or raise ValueError or struct.error."""
    version, count = struct.unpack_from("<2Q", data)
    if version != VERSION or count > MOST_ITEMS:
        raise ValueError(f"version {version}, {count} tensors")
    headers = [struct.unpack_from("<4Q", data, 16 + 32 * index) for index in range(count)]
    place = 16 + 32 * count
    names = []
    for name_size, _, dims, _ in headers:
        if name_size > MOST_NAME or dims > MOST_DIMS:
            raise ValueError(f"a name of {name_size} bytes, {dims} dimensions")
        names.append(data[place : place + name_size].rstrip(b"\0").decode("utf-8"))
        place += name_size
    shapes = []
    for _, _, dims, _ in headers:
        shapes.append(struct.unpack_from(f"<{dims}i", data, place))
        place += 4 * dims
    place += 8 + struct.unpack_from("<Q", data, place)[0]
    items = {}
    for name, shape, (_, kind, _, size) in zip(names, shapes, headers, strict=True):
        if min(shape, default=0) < 0:
            raise ValueError(f"tensor {name} has shape {shape}")
        items[name] = Item(kind, shape, place, size)
        place += size
    return items
