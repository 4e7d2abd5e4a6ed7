"""Files as `torch.save` writes them, written by the tests themselves: no torch is needed."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STORAGES = {"f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long", "u2": "BFloat16"}


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def storage(kind: str, key: str, count: int) -> bytes:
    return (
        b"("
        + text("storage")
        + name("torch", kind)
        + text(key)
        + text("cpu")
        + (number(count) + b"tQ")
    )


def tensor(
    kind: str, key: str, count: int, start: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> bytes:
    """Return the instructions that leave a tensor on the stack."""
    parts = storage(kind, key, count) + number(start) + numbers(shape) + numbers(strides)
    hooks = b"\x89" + name("collections", "OrderedDict") + b")R"
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + parts + hooks + b"tR"


def program(items: dict[str, bytes]) -> bytes:
    """Return a pickle of a mapping whose values those instructions make."""
    body = b"".join(text(key) + value for key, value in items.items())
    metadata = b"}" + text("_metadata") + b"}sb"  # as the state of a module has it
    return b"\x80\x02" + name("collections", "OrderedDict") + b")R(" + body + b"u" + metadata + b"."


def strides_of(array: NDArray[Any]) -> tuple[int, ...]:
    return tuple(step // array.itemsize for step in array.strides)


def write(path: Path, tensors: dict[str, NDArray[Any]]) -> Path:
    """Write a file of tensors. Arrays of uint16 are the upper halves of float32: bfloat16."""
    items, data = {}, {}
    for index, (key, array) in enumerate(tensors.items()):
        kind = STORAGES[array.dtype.str[1:]] + "Storage"
        items[key] = tensor(kind, str(index), array.size, 0, array.shape, strides_of(array))
        data[str(index)] = array.tobytes()
    return write_parts(path, program(items), data)


def write_parts(
    path: Path, pickled: bytes, data: dict[str, bytes], compression: int = zipfile.ZIP_STORED
) -> Path:
    """Write a file of a pickle and storages."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/byteorder", "little")
        for key, content in data.items():
            file.writestr(f"archive/data/{key}", content)
        file.writestr("archive/version", "3\n")
    return path


def bfloat16(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the upper halves."""
    return (np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16)
