"""The variables of a folder of CTranslate2's by the names that Hugging Face's folders have."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .checkpoint import check_all_taken, check_count
from .ctranslate2_file import Ctranslate2File
from .settings import shown
from .tensors import Tensors

# One number each, which changes nothing here: heads that tell how words belong together, and how
# ALiBi would be.
WITHOUT_EFFECT = r"decoder/(alignment_(layer|heads)|alibi_use_positive_positions|scale_alibi)"


class Place(NamedTuple):
    """Where a tensor stands."""

    name: str
    """Of the variable."""
    part: int | None = None
    """None for all of it; 0 for its first rows, 1 for the last ones, 2 for those before these: so
    do queries, values and keys stand in one."""


class Ctranslate2Tensors(Tensors):
    """A folder's variables as `Checkpoint` gives the tensors of one of Hugging Face's.

    Parameters
    ----------
    file : Ctranslate2File
        The folder.
    place_of : callable
        A tensor's name → where it stands.
    """

    def __init__(self, file: Ctranslate2File, place_of: Callable[[str], Place]) -> None:
        self.file, self.place_of = file, place_of
        self._known: set[str] = set()
        self._rows: dict[str, dict[int, int]] = {}  # variable → first row taken → how many

    def take(
        self,
        name: str,
        shape: Sequence[int],
        *,
        from_root: bool = False,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """Return a tensor, of exactly that shape, as float32 or `dtype`."""
        place, wanted = self.place_of(name), tuple(shape)
        stored, first = self.file.shape(place.name), 0
        whole = place.part is None
        if place.part and stored:
            first = stored[0] - place.part * wanted[0]
        fits = stored == wanted if whole else stored[1:] == wanted[1:] and len(stored) > 0
        if not fits or first < 0 or (stored and first + wanted[0] > stored[0]):
            part = "" if whole else ", of which a part is"
            raise ValueError(
                f"variable {place.name} in {self.file.path} has shape {stored}{part}, but the "
                f"model calls for {wanted} (for {name})"
            )
        result = np.empty(wanted, dtype=dtype)
        self.file.read(place.name, result, first)
        self._rows.setdefault(self.file.own_name(place.name), {})[first] = wanted[0]
        return result

    def take_bytes(self, name: str, shape: Sequence[int]) -> NDArray[np.uint8]:
        """Raise ValueError: such a folder has no bytes for weights."""
        raise ValueError(f"{self.file.path} has no variable {name} of bytes")

    def has(self, name: str, *, from_root: bool = False) -> bool:
        """Return whether there is a tensor of that name."""
        return self.file.own_name(self.place_of(name).name) in self.file.variables

    def check_layers(self, stem: str, count: int, setting: str) -> None:
        """Raise ValueError unless there are `count` layers."""
        check_count(self.file.path, self.file.names, self.place_of(stem).name, count, setting)

    def count_layers(self, stem: str) -> int:
        """Return how many layers there are whose names begin so, "<stem>_<number>/"."""
        pattern = re.compile(re.escape(stem) + r"_(\d+)/")
        return len({match[1] for match in map(pattern.match, self.file.names) if match})

    def size(self, name: str, axis: int) -> int:
        """Return how long an axis of a variable is; ValueError if it has not so many."""
        shape = self.file.shape(name)
        if len(shape) <= axis or shape[axis] < 1:
            raise ValueError(f"variable {name} in {self.file.path} has shape {shape}")
        return shape[axis]

    def number(self, name: str, default: float | None = None) -> float:
        """Return a variable of one number, or the default where there is none of the name."""
        if default is not None and self.file.own_name(name) not in self.file.variables:
            return default
        self._known.add(self.file.own_name(name))
        return self.file.number(name)

    def embedding_scale(self, stack: str, width: int) -> float:
        """Return what the embeddings of a stack are multiplied by.

        scale_embeddings says it, or as a flag whether it is the root of their size.
        """
        name = f"{stack}/scale_embeddings"
        value = self.number(name, 1)
        stored = self.file.variables.get(name)
        if stored is None or stored.kind == "int8":
            return width**0.5 if value else 1.0
        return value

    def only(self, name: str, supported: float, default: float) -> None:
        """Raise ValueError unless a variable of one number is the only one that is supported."""
        value = self.number(name, default)
        if value != supported:
            raise ValueError(
                f"{self.file.path}: {name} {shown(value)} is not supported; supported: {supported}"
            )

    def finish(self, ignored: str) -> None:
        """Raise ValueError for variables that were not taken, or not as a whole.

        What is one number, and that 0, changes nothing. A scale belongs to its variable.
        """
        taken = set(self._known)
        for name, rows in self._rows.items():
            if sum(rows.values()) == self.file.shape(name)[0]:
                taken |= {name, f"{name}_scale"}
        for name, variable in self.file.variables.items():
            if variable.shape == () and name not in taken and self.file.number(name) == 0:
                taken.add(name)
        check_all_taken(self.file.path, self.file.variables, taken, ignored)
