"""A Hugging Face folder: its JSON files, and the tensors of model.safetensors by name and shape."""

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
    """The tensors of a model.safetensors file, read one by one.

    Parameters
    ----------
    path : Path
        The file.
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
        If the file is damaged or has no tensor of that name.
    """

    def __init__(self, path: Path, anchor: str) -> None:
        try:
            from safetensors import SafetensorError, safe_open
        except ImportError:
            raise ImportError(
                "reading a model needs safetensors: pip install 'numattn[models]'"
            ) from None
        if not path.is_file():
            raise FileNotFoundError(f"no {path.name} in {path.parent}")
        try:
            self._file = cast(Any, safe_open)(str(path), framework="numpy")
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from None
        self._path = path
        self._names = set(self._file.keys())
        holders = sorted(name for name in self._names if ("." + name).endswith("." + anchor))
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
        self._file.__exit__(kind, error, traceback)

    def take(self, name: str, shape: Sequence[int]) -> NDArray[np.float32]:
        """Return the tensor of that name, without the prefix, as float32 of exactly that shape.

        Raises
        ------
        ValueError
            If it is missing, is no float tensor, or has another shape.
        """
        full = self._prefix + name
        for modern, former in FORMER_NAMES.items():
            if full not in self._names and full.endswith(modern):
                full = full.removesuffix(modern) + former
        if full not in self._names:
            raise ValueError(f"{self._path} has no tensor {self._prefix + name}")
        stored = self._file.get_slice(full)
        if tuple(stored.get_shape()) != tuple(shape):
            raise ValueError(
                f"tensor {full} in {self._path} has shape {tuple(stored.get_shape())}, "
                f"but the configuration calls for {tuple(shape)}"
            )
        if stored.get_dtype() not in ("F32", "F16", "F64"):
            raise ValueError(
                f"tensor {full} in {self._path} is {stored.get_dtype()}; F16, F32 and F64 are read"
            )
        return np.ascontiguousarray(self._file.get_tensor(full), dtype=np.float32)
