"""The tensors of a model's files, each taken once, by name and shape.

Large models come in several files: model.safetensors.index.json then says which tensor is in which.
Where there is no model.safetensors, a pytorch_model.bin takes its place (torch_file.py).

Numbers are read in pieces into the array that they end in, so that a model needs little more memory
while it is loaded than it keeps. (A mapped file would count with its whole size, too.)
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .folder import regular_file
from .json_file import read_json_object
from .tensors import Tensors
from .torch_file import read_torch_header

# Old checkpoints call the two parameters of a layer norm by the names of the paper.
FORMER_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

# What NumPy reads them as. bfloat16, which it has not, is the upper half of a float32.
FLOATS = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F64": "<f8"}
BYTES = {"U8": "<u1"}
PIECE = 1 << 18  # numbers: the file's cache, not ours, is what makes reading in pieces fast
MOST_NAMED = 5  # tensors in a message


@dataclass(frozen=True)
class Stored:
    """Where a tensor stands."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int


class Checkpoint(Tensors):
    """The tensors of a model.safetensors file, or of several with an index, or what replaces it.

    Parameters
    ----------
    path : Path
        The file. If it does not exist, but a file of its name with ".index.json" after it, then
        that says in which files beside it the tensors are. If neither does, but a pytorch_model.bin
        or its index, or a single file *.pt, then that is read.
    anchor : str
        The name of a tensor that the model must have. What stands before it in the file ("bert.",
        "roberta." or nothing) stands before every other name too.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If the library safetensors is not installed.
    ValueError
        If a file is damaged or cut short, or none has a tensor of that name, or there are several.
    """

    def __init__(self, path: Path, anchor: str) -> None:
        self.path = path = weights_at(path)
        self._stored: dict[str, Stored] = {}
        for each in files_of(path):
            add_apart(self._stored, read_header(each))
        self._taken: set[str] = set()
        holders = sorted(name for name in self._stored if ("." + name).endswith("." + anchor))
        if not holders:
            raise ValueError(f"{path} has no tensor {anchor}")
        if len(holders) > 1:
            raise ValueError(f"{path} holds several models: it has tensors {', '.join(holders)}")
        self._prefix = holders[0].removesuffix(anchor)

    def take(
        self,
        name: str,
        shape: Sequence[int],
        *,
        from_root: bool = False,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """Return the tensor of that name, of exactly that shape, as float32 or `dtype`.

        The name is without the prefix, unless `from_root`.

        Raises
        ------
        ValueError
            If it is missing, is no float tensor, or has another shape.
        """
        stored = self._find(name, shape, from_root)
        result = np.empty(stored.shape, dtype=dtype)
        read_numbers(stored, result)
        return result

    def take_joined(
        self, shapes: Mapping[str, tuple[int, ...]], dtype: DTypeLike = np.float32
    ) -> NDArray[Any]:
        """Return tensors of those names and shapes in one array, one below the other."""
        parts = [self._find(name, shape) for name, shape in shapes.items()]
        rows = [part.shape[0] for part in parts]
        result = np.empty((sum(rows), *parts[0].shape[1:]), dtype=dtype)
        for part, end in zip(parts, np.cumsum(rows).tolist(), strict=True):
            read_numbers(part, result[end - part.shape[0] : end])
        return result

    def take_bytes(self, name: str, shape: Sequence[int]) -> NDArray[np.uint8]:
        """Return the tensor of that name, of exactly that shape, whose elements are bytes."""
        stored = self._find(name, shape, kinds=BYTES)
        result = np.empty(stored.shape, dtype=np.uint8)
        read_numbers(stored, result)
        return result

    def has(self, name: str, *, from_root: bool = False) -> bool:
        """Return whether there is a tensor of that name."""
        return (name if from_root else self._prefix + name) in self._stored

    def check_layers(self, stem: str, count: int, setting: str) -> None:
        """Raise ValueError unless there are `count` layers, whose names begin "<stem>.<number>.".

        `setting` is what config.json calls their number.
        """
        check_count(self.path, self._stored, f"{self._prefix}{stem}.", count, setting)

    def finish(self, ignored: str) -> None:
        """Raise ValueError if a tensor has not been taken, unless the pattern fits its name.

        A tensor that no layer uses belongs to another model than the one that was made.
        """
        check_all_taken(self.path, self._stored, self._taken, ignored)

    def _find(
        self,
        name: str,
        shape: Sequence[int],
        from_root: bool = False,
        kinds: Collection[str] = FLOATS.keys(),
    ) -> Stored:
        wanted = name if from_root else self._prefix + name
        full = wanted
        for modern, former in FORMER_NAMES.items():
            if full not in self._stored and full.endswith(modern):
                full = full.removesuffix(modern) + former
        if full not in self._stored:
            raise ValueError(f"{self.path} has no tensor {wanted}")
        stored = self._stored[full]
        if stored.shape != tuple(shape):
            raise ValueError(
                f"tensor {full} in {stored.path} has shape {stored.shape}, "
                f"but the configuration calls for {tuple(shape)}"
            )
        if stored.dtype not in kinds:
            raise ValueError(
                f"tensor {full} in {stored.path} is {stored.dtype}; {in_words(kinds)} are read"
            )
        self._taken.add(full)
        return stored


def in_words(kinds: Collection[str]) -> str:
    """Return kinds of numbers as a message names them."""
    *first, last = kinds
    return f"{', '.join(first)} and {last}" if first else last


def check_count(path: Path, names: Iterable[str], stem: str, count: int, setting: str) -> None:
    """Raise ValueError unless `count` numbers follow a stem in the names of a file's tensors."""
    pattern = re.compile(re.escape(stem) + r"(\d+)(?=\D)")
    numbers = {match[1] for match in map(pattern.match, names) if match}
    if len(numbers) != count:
        raise ValueError(
            f"{path} has {len(numbers)} layers {stem}…, "
            f"but the configuration calls for {count} ({setting})"
        )


def check_all_taken(path: Path, names: Iterable[str], taken: set[str], ignored: str) -> None:
    """Raise ValueError for names that are not among those taken and do not fit the pattern."""
    left = sorted(
        name for name in names if name not in taken and re.fullmatch(ignored, name) is None
    )
    if left:
        more = f" and {len(left) - MOST_NAMED} more" if len(left) > MOST_NAMED else ""
        raise ValueError(
            f"{path} has tensors that the model of its configuration does not use: "
            f"{', '.join(left[:MOST_NAMED])}{more}"
        )


def add_apart(stored: dict[str, Stored], more: Mapping[str, Stored]) -> None:
    """Add tensors of another file, or raise ValueError if one of them is there already."""
    for name in more:
        if name in stored:
            raise ValueError(f"tensor {name} is in {stored[name].path} and in {more[name].path}")
    stored.update(more)


def weights_at(path: Path) -> Path:
    """Return a path, or that of the file of PyTorch's that stands in its place."""
    others = [path.with_name("pytorch_model.bin")]
    saved = sorted(path.parent.glob("*.pt"))
    if len(saved) == 1:
        others += saved
    for each in (path, *others):
        if each.exists() or each.with_name(each.name + ".index.json").exists():
            return each
    return path


def files_of(path: Path) -> list[Path]:
    """Return the files that hold the tensors: the one named, or those that its index names.

    Raises
    ------
    ValueError
        If the index is damaged, or there are both: then nobody knows which weights are meant.
    """
    index = path.with_name(path.name + ".index.json")
    if not index.exists():
        return [path]
    files = files_in(index)
    if not path.exists() or path in files:
        return files
    others = [file for file in files if file.exists()]
    if others:
        raise ValueError(
            f"{path} and {others[0]}, which {index.name} names, hold a model each: "
            "remove the one that is not meant"
        )
    return [path]


def files_in(index: Path) -> list[Path]:
    """Return the files that an index names, which lie beside it."""
    files = read_json_object(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise ValueError(f"{index} has no weight_map of tensors to files")
    names = sorted(set(files.values()))
    for name in names:
        if Path(name).name != name or not name.isprintable():
            raise ValueError(f"{index} names a file outside its folder: {name!r}")
    return [index.with_name(name) for name in names]


def read_header(path: Path) -> dict[str, Stored]:
    """Return where the tensors of a file stand."""
    if path.suffix in (".bin", ".pt"):
        return {name: Stored(path, *place) for name, place in read_torch_header(path).items()}
    return read_safetensors_header(path)


def read_safetensors_header(path: Path) -> dict[str, Stored]:
    """Return where the tensors of a safetensors file stand, once the library finds it whole.

    The file is the length of a header in 8 bytes, a header in JSON, and the numbers.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise ImportError(
            "reading a model needs safetensors: pip install 'numattn[models]'"
        ) from None
    regular_file(path)
    try:
        with cast(Any, safe_open)(str(path), framework="numpy"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is not a safetensors file, or not whole: {error}") from None
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return {
        name: Stored(
            path, entry["dtype"], tuple(entry["shape"]), 8 + size + entry["data_offsets"][0]
        )
        for name, entry in header.items()
    }


def read_numbers(stored: Stored, out: NDArray[Any]) -> None:
    """Fill a contiguous array with a tensor's numbers."""
    numbers, count = out.reshape(-1), math.prod(stored.shape)
    with open(stored.path, "rb") as file:
        file.seek(stored.start)
        for begin in range(0, count, PIECE):
            size = min(PIECE, count - begin)
            piece = np.fromfile(file, {**FLOATS, **BYTES}[stored.dtype], size)
            if piece.size != size:
                raise ValueError(f"{stored.path} has become shorter while it was read")
            if stored.dtype == "BF16":
                piece = (piece.astype(np.uint32) << 16).view(np.float32)
            numbers[begin : begin + size] = piece
