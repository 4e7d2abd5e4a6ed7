"""A GGUF file, llama.cpp's: metadata, and tensors that may be quantised, by the library gguf.

A model may be split into several files, NAME-00001-of-00003.gguf and so on: the first has the
metadata, and each has some of the tensors.

Numbers of a quantised tensor stand for floats in blocks with scales of their own. They are made
floats when they are read, some rows at a time.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .folder import regular_file
from .gguf_integers import KINDS, integers_of
from .integers import Integers
from .settings import shown

PIECE = 1 << 20  # numbers made floats at once
MAGIC = b"GGUF"
PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
# What the library raises for a file that is damaged.
DAMAGE = (
    *(ValueError, IndexError, KeyError, OverflowError, TypeError, ZeroDivisionError),
    RecursionError,
)


def gguf_at(path: Path) -> Path | None:
    """Return a GGUF file, told by its ending or its first bytes, or the only one of a folder.

    Of a model that is split, whose parts alone are in a folder, it is the first one. None for
    anything else, and for a folder that has a config.json.
    """
    if path.is_file():
        if path.suffix == ".gguf":
            return path
        with open(path, "rb") as file:
            return path if file.read(len(MAGIC)) == MAGIC else None
    files = sorted(path.glob("*.gguf")) if path.is_dir() else []
    if not files or (path / "config.json").exists():
        return None
    if len(files) == 1:
        return files[0]
    parts = [PART.fullmatch(file.name) for file in files]
    wholes = {
        (part[1], part[3]) if part else file.name for part, file in zip(parts, files, strict=True)
    }
    return files[0] if len(wholes) == 1 else None


class GgufFile:
    """A file's metadata and tensors.

    Parameters
    ----------
    path : Path
        The file; or any of those that a model is split into.

    Attributes
    ----------
    path : Path
        The file, or the first of several.
    values : dict
        The metadata, but for the file's own sizes: str, int, float, bool, or a list of one of them.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or one of several is missing.
    ImportError
        If the library gguf is not installed.
    ValueError
        If it is no GGUF file, or damaged or cut short, or a file of another model is among several.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values, self._tensors = read_part(path)
        count = self.values.get("split.count", 1)
        if count not in (0, 1):
            self._add_parts(count)
        if self.values.get("general.type", "model") != "model":
            raise ValueError(
                f"{path}: general.type {shown(self.values['general.type'])} is not supported: it "
                "is no whole model"
            )

    def _add_parts(self, count: int) -> None:
        """Read the files of a split model, of which the one that was read is any."""
        given, match = self.path, PART.fullmatch(self.path.name)
        if match is None or int(match[3]) != count or not 1 <= int(match[2]) <= count:
            raise ValueError(
                f"{given} is one of {shown(count)} files of a model, and its name is not of the "
                "form NAME-00001-of-00003.gguf, with that number in it"
            )
        own = (self.values, self._tensors)
        self._tensors = {}
        for number in range(count):
            path = given.with_name(f"{match[1]}-{number + 1:05}-of-{count:05}.gguf")
            values, tensors = own if path == given else read_part(path)
            place = (values.get("split.no"), values.get("split.count"))
            if place != (number, count):
                raise ValueError(
                    f"{path}: split.no and split.count are {place}, and not {(number, count)}"
                )
            twice = sorted(tensors.keys() & self._tensors.keys())
            if twice:
                raise ValueError(f"tensor {twice[0]} is in {path} and in a part before it")
            self._tensors |= tensors
            if number == 0:
                self.path, self.values = path, values
        total = self.values.get("split.tensors.count", len(self._tensors))
        if total != len(self._tensors):
            raise ValueError(
                f"{self.path} and the parts after it have {len(self._tensors)} tensors, and not "
                f"{total}"
            )

    @property
    def names(self) -> list[str]:
        """Return the tensors' names."""
        return [*self._tensors]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, which the file has in the opposite order."""
        return tuple(int(size) for size in reversed(self._tensors[name].shape))

    def read(self, name: str, out: NDArray[Any], part: int | None = None) -> None:
        """Fill an array of a tensor's shape with its numbers, or with those of one part of it.

        A part is what stands under an index of the first axis.

        Raises
        ------
        ValueError
            If they are of a kind that the library cannot make floats.
        """
        from gguf.quants import dequantize

        tensor = self._tensors[name]
        data: NDArray[Any] = tensor.data if part is None else tensor.data[part]
        rows = data.reshape(-1, data.shape[-1])
        if math.prod(out.shape) == 0:
            return
        width = out.shape[-1]
        places = out.reshape(-1, width)
        step = max(PIECE // width, 1)
        for begin in range(0, len(rows), step):
            piece, kind = np.ascontiguousarray(rows[begin : begin + step]), tensor.tensor_type
            try:
                with np.errstate(invalid="ignore", over="ignore"):  # of scales that are no numbers
                    numbers = piece if piece.dtype.kind == "f" else dequantize(piece, kind)
            except NotImplementedError:
                raise ValueError(
                    f"tensor {name} in {self.path} is {kind.name}, which is not read"
                ) from None
            places[begin : begin + step] = numbers

    def integers(self, name: str, part: int | None = None) -> Integers | None:
        """Return a matrix, or a part of a tensor, as the integers that it is; None if it is not."""
        tensor = self._tensors[name]
        if tensor.tensor_type.name not in KINDS:
            return None
        data: NDArray[np.uint8] = tensor.data if part is None else tensor.data[part]
        with np.errstate(invalid="ignore", over="ignore"):  # of scales that are no numbers
            return integers_of(data, tensor.tensor_type.name)

    def numbers(
        self, name: str, dtype: DTypeLike = np.float32, part: int | None = None
    ) -> NDArray[Any]:
        """Return a tensor, or a part of it, as float32 or `dtype`."""
        shape = self.shape(name)
        result = np.empty(shape if part is None else shape[1:], dtype=dtype)
        self.read(name, result, part)
        return result


def read_part(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a file's metadata and tensors, by their names; errors are those of `GgufFile`."""
    regular_file(path)
    reader_class = bounded_reader()
    try:
        reader: Any = reader_class(path)
        fields = reader.fields.items()
        values = {name: field.contents() for name, field in fields if not name.startswith("GGUF.")}
        tensors = {tensor.name: tensor for tensor in reader.tensors}
    except DAMAGE as error:
        raise ValueError(f"{path} is not a GGUF file, or not whole: {error}") from None
    if reader.byte_order != "I":
        raise ValueError(f"{path} has the bytes of its numbers in the other order")
    return values, tensors


def bounded_reader() -> type[Any]:
    """Return the library's reader, but one that does not read on beyond the end of a file.

    A damaged file may say that it holds more than it does, and its list of 2^60 numbers would be
    gone through to the end.
    """
    try:
        from gguf import GGUFReader
    except ImportError:
        raise ImportError("reading a GGUF file needs gguf: pip install 'numattn[gguf]'") from None

    class Reader(GGUFReader):  # type: ignore[misc]
        def _get(self, offset: int, dtype: Any, count: int = 1, *more: Any, **named: Any) -> Any:
            end = int(offset) + np.dtype(dtype).itemsize * int(count)
            if end > self.data.size:
                raise ValueError(f"it ends after {self.data.size} bytes, and byte {end} is missing")
            return super()._get(offset, dtype, count, *more, **named)

    return Reader
