"""Where the tensors of a file of PyTorch's stand: pytorch_model.bin, or *.pt. torch is not needed.

Since PyTorch 1.6 such a file is a zip archive of entries that are not compressed: data.pkl, which
says what tensors there are (pickled_tensors.py), and for each storage one entry, data/<key>, of its
numbers. So the numbers stand in the file as they are, and are read like those of safetensors.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping as AnyMapping
from pathlib import Path
from typing import Any, NamedTuple

from .folder import regular_file
from .pickled_tensors import Mapping, Refused, Tensor, read_pickle

BYTES = {
    "F32": 4, "F64": 8, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1,
}  # fmt: skip
# A tensor takes some 200 bytes of it.
MOST_PICKLE = 16 << 20
LOCAL_HEADER = 30
# What a file holds the tensors under, if it holds more than them.
PARTS = ("state_dict", "model_state_dict", "model")


class Place(NamedTuple):
    """Where a tensor stands in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int


class Archive:
    """The entries of a file, by their names below its one folder."""

    def __init__(self, path: Path) -> None:
        self.path = regular_file(path)
        self.size = path.stat().st_size
        with open(path, "rb") as file:
            magic = file.read(4)
        if magic[:1] == b"\x80" or not zipfile.is_zipfile(path):
            raise ValueError(
                f"{path} is not a file of PyTorch 1.6 or later, or not whole; an older one becomes "
                "one by torch.save(torch.load(path), path)"
            )
        try:
            with zipfile.ZipFile(path) as file_:
                entries = file_.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise ValueError(f"{path} is not a file of PyTorch's, or not whole: {error}") from None
        pickles = [each.filename for each in entries if each.filename.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"{path} is not a file of PyTorch's: it has no data.pkl, or several")
        folder = pickles[0].removesuffix("data.pkl")
        self.entries: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            if entry.filename in self.entries:
                raise ValueError(f"{path} has several entries {entry.filename!r}")
            self.entries[entry.filename] = entry
        self.folder = folder

    def place_of(self, name: str) -> tuple[int, int]:
        """Return where an entry's bytes begin in the file, and how many there are."""
        entry = self.entries.get(self.folder + name)
        if entry is None:
            raise ValueError(f"{self.path} has no entry {name}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise ValueError(f"{self.path}: its entry {name} is compressed, as PyTorch's are not")
        if entry.flag_bits & 1:
            raise ValueError(f"{self.path}: its entry {name} is encrypted")
        with open(self.path, "rb") as file:
            file.seek(max(entry.header_offset, 0))
            header = file.read(LOCAL_HEADER)
        if len(header) != LOCAL_HEADER or header[:4] != b"PK\x03\x04":
            raise ValueError(f"{self.path}: its entry {name} is not where it should be")
        name_size, extra_size = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        start = entry.header_offset + LOCAL_HEADER + name_size + extra_size
        if entry.header_offset < 0 or start + entry.file_size > self.size:
            raise ValueError(f"{self.path} has become shorter than its entries: {name} is cut")
        return start, entry.file_size

    def read(self, name: str, most: int) -> bytes:
        """Return an entry's bytes, of which there may be so many."""
        start, size = self.place_of(name)
        if size > most:
            raise ValueError(f"{self.path}: its entry {name} has {size} bytes, more than {most}")
        with open(self.path, "rb") as file:
            file.seek(start)
            return file.read(size)


def read_torch_header(path: Path) -> AnyMapping[str, Place]:
    """Return where the tensors of a file stand.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, cut short, of the format before PyTorch 1.6, holds something else than
        tensors by their names, or asks for code to be run.
    """
    archive = Archive(path)
    if archive.folder + "byteorder" in archive.entries and archive.read("byteorder", 16) != (
        b"little"
    ):
        raise ValueError(f"{path} was written by a machine of another byte order: not supported")
    try:
        content = read_pickle(archive.read("data.pkl", MOST_PICKLE))
    except Refused as error:
        raise ValueError(f"the pickle in {path} is not read: {error}") from None
    starts: dict[str, tuple[int, int]] = {}
    places = {}
    for name, tensor in tensors_in(path, content).items():
        storage = tensor.storage
        if storage.key not in starts:
            starts[storage.key] = archive.place_of(f"data/{storage.key}")
        start, size = starts[storage.key]
        width = BYTES[storage.dtype]
        if size != storage.count * width:
            raise ValueError(
                f"{path}: storage {storage.key} has {size} bytes, but should hold {storage.count} "
                f"numbers of {storage.dtype}"
            )
        check_part(path, name, tensor)
        places[name] = Place(storage.dtype, tensor.shape, start + tensor.start * width)
    return places


def tensors_in(path: Path, content: Any) -> dict[str, Tensor]:
    """Return the tensors of a pickle, by their names."""
    values = content.values if isinstance(content, Mapping) else {}
    if not any(isinstance(value, Tensor) for value in values.values()):
        parts = [values[name] for name in PARTS if isinstance(values.get(name), Mapping)]
        values = parts[0].values if len(parts) == 1 else {}
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    if not tensors or len(tensors) != len(values):
        raise ValueError(f"{path} does not hold tensors by their names, and nothing else")
    return tensors


def check_part(path: Path, name: str, tensor: Tensor) -> None:
    """Raise ValueError unless a tensor is a piece of its storage, row after row."""
    count = math.prod(tensor.shape)
    if len(tensor.strides) != len(tensor.shape):
        raise ValueError(f"{path}: tensor {name} has not as many strides as dimensions")
    if count and tensor.start + count > tensor.storage.count:
        raise ValueError(f"{path}: tensor {name} reaches beyond its storage")
    expected = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if count and size != 1 and stride != expected:
            raise ValueError(
                f"{path}: tensor {name} does not lie row after row (strides {tensor.strides}); "
                "contiguous() of it does"
            )
        expected *= size
