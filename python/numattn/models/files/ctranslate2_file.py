"""A folder of CTranslate2's: the variables of its model.bin, its config.json and vocabularies.

    model.bin = version, specification, revision, variables, aliases        little-endian
    variable  = name, rank, sizes, kind, bytes, numbers
    alias     = name, name of a variable

Numbers that are integers stand for floats: each is divided by the scale of its row, or of its
variable, which is a variable of its name with "_scale" after it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .folder import regular_file
from .json_file import read_json, read_json_object
from .settings import Settings, shown

VERSIONS = (4, 5, 6)  # of the file; they differ in what variables there are
# Specification → its revision: another one has variables of other names, or of another meaning.
REVISIONS = {"TransformerSpec": 7, "TransformerDecoderSpec": 8, "WhisperSpec": 3}
KINDS = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
STORED = {"bfloat16": "<u2", "float32": "<f4", "float16": "<f2", "int8": "<i1", "int16": "<i2",
          "int32": "<i4"}  # fmt: skip
FLOATS = ("float32", "float16", "bfloat16")
MOST_RANK = 8
PIECE = 1 << 18  # numbers made floats at once


class Variable(NamedTuple):
    """Where a variable stands in the file."""

    kind: str
    shape: tuple[int, ...]
    start: int


def ctranslate2_in(folder: Path) -> Ctranslate2File | None:
    """Return a folder of CTranslate2's; None for another one.

    Its config.json names no class, as those of Hugging Face's do. Errors are those of
    `Ctranslate2File`.
    """
    config = folder / "config.json"
    if not (folder / "model.bin").exists():
        return None
    settings = read_json_object(config) if config.exists() else {}
    return None if {"model_type", "architectures"} & settings.keys() else Ctranslate2File(folder)


class Ctranslate2File:
    """A folder's variables, each by its name or that of an alias.

    Parameters
    ----------
    folder : Path
        The folder.

    Attributes
    ----------
    spec : str
        The specification: "TransformerSpec" and so on.
    config : Settings
        The config.json.
    variables : dict
        Name → where it stands.
    aliases : dict
        Another name of a variable → its own.

    Raises
    ------
    FileNotFoundError
        If there is no model.bin or no config.json.
    ValueError
        If model.bin is none of CTranslate2's, is damaged or cut short, or of a version,
        specification or revision that is not read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = regular_file(folder / "model.bin")
        self.config = Settings.from_file(folder / "config.json")
        with open(self.path, "rb") as file:
            reader = Reader(file, self.path)
            self.spec = read_specification(reader)
            self.variables: dict[str, Variable] = {}
            for _ in range(reader.whole("<I")):
                name, variable = reader.variable()
                if name in self.variables:
                    raise ValueError(f"{self.path} has a variable {name!r} twice")
                self.variables[name] = variable
            self.aliases: dict[str, str] = {}
            for _ in range(reader.whole("<I")):
                alias, name = reader.text(), reader.text()
                if name not in self.variables or alias in self.variables:
                    raise ValueError(f"{self.path}: alias {alias!r} is of no variable: {name!r}")
                self.aliases[alias] = name
            if reader.size != file.tell():
                raise ValueError(
                    f"{self.path} goes on after its aliases, by {reader.size - file.tell()} bytes"
                )

    def check_spec(self, wanted: str) -> None:
        """Raise ValueError unless it is of that specification."""
        if self.spec != wanted:
            raise ValueError(f"{self.path} is of {self.spec}, and not of {wanted}")

    @property
    def names(self) -> list[str]:
        """Return the names of variables and aliases."""
        return [*self.variables, *self.aliases]

    def own_name(self, name: str) -> str:
        """Return the name of the variable that a name or alias is of."""
        return self.aliases.get(name, name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a variable's shape; ValueError if there is none of that name."""
        return self._variable(name).shape

    def number(self, name: str) -> float:
        """Return a variable of one number; ValueError for another one, or if it is not finite."""
        if self.shape(name) != ():
            raise ValueError(
                f"variable {name} in {self.path} has shape {self.shape(name)}, and not one number"
            )
        value = float(self._stored(self._variable(name), 0, 1)[0])
        if not math.isfinite(value):
            raise ValueError(f"variable {name} in {self.path} is {value}, and not finite")
        return value

    def read(self, name: str, out: NDArray[Any], first: int = 0) -> None:
        """Fill an array with a variable's floats, from row `first` on."""
        variable, own = self._variable(name), self.own_name(name)
        scales = None
        if variable.kind not in FLOATS:
            scale = self.variables.get(f"{own}_scale")
            rows = variable.shape[:1]
            if (
                variable.kind == "int32"
                or scale is None
                or scale.kind not in FLOATS
                or scale.shape not in ((), rows)
            ):
                raise ValueError(
                    f"variable {own} in {self.path} is {variable.kind}, without a scale for each "
                    "of its rows: such weights are not read"
                )
            numbers = self._stored(scale, 0, math.prod(scale.shape))
            scales = np.broadcast_to(numbers.reshape(-1, 1), (rows[0], 1))
        width = math.prod(variable.shape[1:])
        places = out.reshape(-1, width) if out.size else out.reshape(0, 1)
        step = max(PIECE // max(width, 1), 1)
        for begin in range(0, len(places), step):
            count, row = min(step, len(places) - begin), first + begin
            piece = self._stored(variable, row * width, count * width).reshape(count, width)
            if scales is not None:
                with np.errstate(all="ignore"):  # of a damaged file's scales
                    piece = piece / scales[row : row + count]
            places[begin : begin + count] = piece

    def vocabulary(self, names: Sequence[str], size: int) -> list[str]:
        """Return the tokens in the first file of those names, .json or .txt, that is there.

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError
            If it is damaged or has another number of tokens than `size`.
        """
        paths = [self.folder / f"{name}{kind}" for name in names for kind in (".json", ".txt")]
        path = next((path for path in paths if path.exists()), paths[0])
        tokens = read_json(path) if path.suffix == ".json" else read_lines(path)
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise ValueError(f"{path} is no list of tokens")
        if len(tokens) != size:
            raise ValueError(f"{path} has {len(tokens)} tokens, and the model {size}")
        return tokens

    def _variable(self, name: str) -> Variable:
        own = self.own_name(name)
        if own not in self.variables:
            raise ValueError(f"{self.path} has no variable {name}")
        return self.variables[own]

    def _stored(self, variable: Variable, first: int, count: int) -> NDArray[Any]:
        """Return numbers, or the integers that they are stored as, as float32."""
        dtype = np.dtype(STORED[variable.kind])
        with open(self.path, "rb") as file:
            file.seek(variable.start + first * dtype.itemsize)
            numbers = np.fromfile(file, dtype, count)
        if numbers.size != count:
            raise ValueError(f"{self.path} has become shorter while it was read")
        if variable.kind == "bfloat16":
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        return numbers.astype(np.float32, copy=False)


def read_specification(reader: Reader) -> str:
    """Return which specification a file is of, or raise ValueError."""
    path = reader.path
    version = reader.whole("<I")
    if version not in VERSIONS:
        raise ValueError(
            f"{path} is not a model of CTranslate2's, or of version {version}, which is not read: "
            f"those read are {', '.join(map(str, VERSIONS))}"
        )
    spec, revision = reader.text(), reader.whole("<I")
    if spec not in REVISIONS:
        raise ValueError(
            f"{path}: specification {shown(spec)} is not supported; supported are "
            f"{', '.join(REVISIONS)}"
        )
    if revision != REVISIONS[spec]:
        raise ValueError(
            f"{path}: revision {revision} of {spec} is not supported; supported: {REVISIONS[spec]}"
        )
    return spec


class Reader:
    """The parts of a file one after the other, none of which is taken to go on beyond its end."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path = file, path
        self.size = path.stat().st_size

    def bytes(self, count: int) -> bytes:
        """Return so many bytes."""
        self._check(count)
        return self.file.read(count)

    def whole(self, form: str) -> int:
        """Return a whole number in one of the forms of `struct`."""
        return int(struct.unpack(form, self.bytes(struct.calcsize(form)))[0])

    def text(self) -> str:
        """Return a text, which stands after its length and before a 0."""
        place = self.file.tell()
        data = self.bytes(self.whole("<H"))
        try:
            if data[-1:] != b"\0":
                raise ValueError("it does not end in 0")
            return data[:-1].decode("utf-8")
        except ValueError as error:
            raise ValueError(
                f"{self.path} is not a model of CTranslate2's: no name at byte {place}: {error}"
            ) from None

    def variable(self) -> tuple[str, Variable]:
        """Return a variable's name and place."""
        name, rank = self.text(), self.whole("<B")
        if rank > MOST_RANK:
            raise ValueError(f"{self.path}: variable {name!r} has {rank} axes")
        shape = tuple(self.whole("<I") for _ in range(rank))
        kind, count = self.whole("<B"), self.whole("<I")
        if kind >= len(KINDS):
            raise ValueError(f"{self.path}: variable {name!r} is of kind {kind}, which is unknown")
        size = math.prod(shape) * np.dtype(STORED[KINDS[kind]]).itemsize
        if size != count:
            raise ValueError(
                f"{self.path}: variable {name!r} of shape {shape} and {KINDS[kind]} takes {size} "
                f"bytes, and has {count}"
            )
        start = self.file.tell()
        self._check(count)
        self.file.seek(count, 1)
        return name, Variable(KINDS[kind], shape, start)

    def _check(self, count: int) -> None:
        end = self.file.tell() + count
        if end > self.size:
            raise ValueError(
                f"{self.path} is not a model of CTranslate2's, or not whole: it ends after "
                f"{self.size} bytes, and byte {end} is missing"
            )


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file."""
    try:
        lines = regular_file(path).read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from None
    return lines[:-1] if lines[-1] == "" else lines
