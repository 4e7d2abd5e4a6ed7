"""Folders of CTranslate2's that its own library wrote, and what it made of them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GOLDEN = Path(__file__).parent / "data" / "ctranslate2_golden.npz"
Arrays = dict[str, NDArray[Any]]


def read_case(name: str) -> Arrays:
    """Return what is stored of a case."""
    with np.load(GOLDEN) as arrays:
        return {
            key.removeprefix(f"{name}/"): arrays[key]
            for key in arrays.files
            if key.startswith(f"{name}/")
        }


def write_case(folder: Path, name: str, **changes: bytes) -> Path:
    """Write the folder of a case; changes are files' other contents, by their names' stems."""
    folder.mkdir(exist_ok=True)
    for key, value in read_case(name).items():
        if key.startswith("file_"):
            path = folder / key.removeprefix("file_")
            path.write_bytes(changes.get(path.stem, value.tobytes()))
    return folder


def after_name(data: bytes, name: str) -> int:
    """Return the byte after a variable's name in a model.bin; aliases stand at its end."""
    stored = struct.pack("<H", len(name) + 1) + name.encode() + b"\0"
    return data.index(stored) + len(stored)


def changed_number(data: bytes, name: str, value: float, form: str) -> bytes:
    """Return a model.bin with another value of a variable of one number."""
    start = after_name(data, name) + 6  # rank, kind and size
    return data[:start] + struct.pack(form, value) + data[start + struct.calcsize(form) :]
