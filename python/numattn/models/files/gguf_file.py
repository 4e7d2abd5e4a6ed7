"""A GGUF file, llama.cpp's: metadata, and tensors that may be quantised, by the library gguf.

Numbers of a quantised tensor stand for floats in blocks with scales of their own. They are made
floats when they are read, some rows at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .folder import regular_file
from .settings import shown

PIECE = 1 << 20  # numbers made floats at once
MAGIC = b"GGUF"
# What the library raises for a file that is damaged.
DAMAGE = (
    *(ValueError, IndexError, KeyError, OverflowError, TypeError, ZeroDivisionError),
    RecursionError,
)


def gguf_at(path: Path) -> Path | None:
    """Return a GGUF file, told by its ending or its first bytes, or the only one of a folder.

    None for anything else, and for a folder that has a config.json.
    """
    if path.is_file():
        if path.suffix == ".gguf":
            return path
        with open(path, "rb") as file:
            return path if file.read(len(MAGIC)) == MAGIC else None
    files = [*path.glob("*.gguf")] if path.is_dir() else []
    return files[0] if len(files) == 1 and not (path / "config.json").exists() else None


class GgufFile:
    """A file's metadata and tensors.

    Parameters
    ----------
    path : Path
        The file.

    Attributes
    ----------
    values : dict
        The metadata, but for the file's own sizes: str, int, float, bool, or a list of one of them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If the library gguf is not installed.
    ValueError
        If it is no GGUF file, or damaged or cut short, or one of several that make a model.
    """

    def __init__(self, path: Path) -> None:
        self.path = regular_file(path)
        reader_class = bounded_reader()
        with self._damage():
            reader: Any = reader_class(self.path)
            fields = reader.fields.items()
            self.values: dict[str, Any] = {
                name: field.contents() for name, field in fields if not name.startswith("GGUF.")
            }
            self._tensors: dict[str, Any] = {tensor.name: tensor for tensor in reader.tensors}
        if reader.byte_order != "I":
            raise ValueError(f"{path} has the bytes of its numbers in the other order")
        if self.values.get("split.count", 1) not in (0, 1):
            raise ValueError(
                f"{path} is one of {self.values['split.count']} files of a model: "
                "`llama-gguf-split --merge` makes one of them"
            )
        if self.values.get("general.type", "model") != "model":
            raise ValueError(
                f"{path}: general.type {shown(self.values['general.type'])} is not supported: it "
                "is no whole model"
            )

    @contextmanager
    def _damage(self) -> Iterator[None]:
        """Raise ValueError, which names the file, for what the library raises."""
        try:
            yield
        except DAMAGE as error:
            raise ValueError(f"{self.path} is not a GGUF file, or not whole: {error}") from None

    @property
    def names(self) -> list[str]:
        """Return the tensors' names."""
        return [*self._tensors]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, which the file has in the opposite order."""
        return tuple(int(size) for size in reversed(self._tensors[name].shape))

    def read(self, name: str, out: NDArray[Any]) -> None:
        """Fill an array of a tensor's shape with its numbers.

        Raises
        ------
        ValueError
            If they are of a kind that the library cannot make floats.
        """
        from gguf.quants import dequantize

        tensor = self._tensors[name]
        data: NDArray[Any] = tensor.data
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

    def numbers(self, name: str, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Return a tensor as float32 or `dtype`."""
        result = np.empty(self.shape(name), dtype=dtype)
        self.read(name, result)
        return result


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
