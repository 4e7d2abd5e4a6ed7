"""A Hugging Face folder: its JSON files, and the tensors of model.safetensors by name and shape.

Large models come in several files: model.safetensors.index.json then says which tensor is in which.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

# Old checkpoints call the two parameters of a layer norm by the names of the paper.
FORMER_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"no {path.name} in {path.parent}") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both ValueErrors
        raise ValueError(f"{path} is not JSON: {error}") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not JSON, or not an object.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a JSON {type(content).__name__}, not an object")
    return content


class Checkpoint:
    """The tensors of a model.safetensors file, or of several with an index, read one by one.

    Parameters
    ----------
    path : Path
        The file. If it does not exist, but a file of its name with ".index.json" after it, then
        that says in which files beside it the tensors are.
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
        If a file is damaged or cut short, or none has a tensor of that name.
    """

    def __init__(self, path: Path, anchor: str) -> None:
        self._path = path
        self._files = {each: open_tensors(each) for each in files_of(path)}
        self._file_of = {name: each for each, file in self._files.items() for name in file.keys()}
        holders = sorted(name for name in self._file_of if ("." + name).endswith("." + anchor))
        if not holders:
            raise ValueError(f"{path} has no tensor {anchor}")
        self._prefix = holders[0].removesuffix(anchor)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.__exit__(kind, error, traceback)

    def take(
        self, name: str, shape: Sequence[int], *, from_root: bool = False
    ) -> NDArray[np.float32]:
        """Return the tensor of that name as float32 of exactly that shape.

        The name is without the prefix, unless `from_root`.

        Raises
        ------
        ValueError
            If it is missing, is no float tensor, or has another shape.
        """
        wanted = name if from_root else self._prefix + name
        full = wanted
        for modern, former in FORMER_NAMES.items():
            if full not in self._file_of and full.endswith(modern):
                full = full.removesuffix(modern) + former
        if full not in self._file_of:
            raise ValueError(f"{self._path} has no tensor {wanted}")
        path = self._file_of[full]
        stored = self._files[path].get_slice(full)
        if tuple(stored.get_shape()) != tuple(shape):
            raise ValueError(
                f"tensor {full} in {path} has shape {tuple(stored.get_shape())}, "
                f"but the configuration calls for {tuple(shape)}"
            )
        dtype = stored.get_dtype()
        if dtype == "BF16":
            return read_bfloat16(path, full).reshape(shape)
        if dtype not in ("F32", "F16", "F64"):
            raise ValueError(f"tensor {full} in {path} is {dtype}; BF16, F16, F32 and F64 are read")
        return np.ascontiguousarray(self._files[path].get_tensor(full), dtype=np.float32)


def files_of(path: Path) -> list[Path]:
    """Return the files that hold the tensors: the one named, or those that its index names."""
    index = path.with_name(path.name + ".index.json")
    if path.is_file() or not index.is_file():
        return [path]
    files = read_json_object(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise ValueError(f"{index} has no weight_map of tensors to files")
    names = sorted(set(files.values()))
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"{index} names a file outside its folder: {name!r}")
    return [path.with_name(name) for name in names]


def open_tensors(path: Path) -> Any:
    """Return an open safetensors file."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise ImportError(
            "reading a model needs safetensors: pip install 'numattn[models]'"
        ) from None
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent}")
    try:
        return cast(Any, safe_open)(str(path), framework="numpy")
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file, or not whole: {error}") from None


def read_bfloat16(path: Path, name: str) -> NDArray[np.float32]:
    """Return the numbers of a bfloat16 tensor, which NumPy itself cannot hold, as a vector.

    A safetensors file is the length of a header in 8 bytes, a header in JSON, and the numbers;
    bfloat16 is the upper half of a float32.
    """
    with open(path, "rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        begin, end = json.loads(file.read(header_size))[name]["data_offsets"]
        file.seek(8 + header_size + begin)
        halves = np.fromfile(file, dtype="<u2", count=(end - begin) // 2)
    return (halves.astype(np.uint32) << 16).view(np.float32)
