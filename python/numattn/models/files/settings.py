"""The config.json of a model's folder, read setting by setting, each checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .json_file import read_json_object

T = TypeVar("T")

# No size of a model comes near it, and lists or tables of that many entries do no harm.
MOST = 1 << 24
LIMIT = float(np.finfo(np.float32).max)


class Settings:
    """The settings of a JSON file, or of an object in it.

    A setting that is missing or null has the default given, and is an error without one.

    Parameters
    ----------
    values : mapping of str
        The settings.
    path : Path
        The file that they come from, for messages.
    """

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        self._values = values
        self.path = path

    @classmethod
    def from_file(cls, path: Path) -> Settings:
        """Read a file.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it holds no JSON object.
        """
        return cls(read_json_object(path), path)

    @property
    def values(self) -> Mapping[str, Any]:
        """Return all settings as they are."""
        return self._values

    def get(self, name: str, default: Any = None) -> Any:
        """Return a setting as it is."""
        value = self._values.get(name)
        return default if value is None else value

    def part(self, name: str) -> Settings:
        """Return the object of that name, an empty one if there is none."""
        value = self.get(name, {})
        if not isinstance(value, dict):
            raise ValueError(f"{self.path}: {name} must be an object, not {shown(value)}")
        return Settings(value, self.path)

    def size(self, name: str, default: int | None = None) -> int:
        """Return a positive whole number, of at most MOST."""
        return self.whole(name, 1, default)

    def whole(self, name: str, least: int, default: int | None = None) -> int:
        """Return a whole number of least … MOST."""
        value = self._required(name, default)
        if type(value) is not int or value < least:
            kind = "a positive whole number" if least == 1 else f"a whole number from {least} on"
            raise ValueError(f"{self.path}: {name} must be {kind}, not {shown(value)}")
        if value > MOST:
            raise ValueError(f"{self.path}: {name} must be at most {MOST}, not {shown(value)}")
        return value

    def optional_size(self, name: str) -> int | None:
        """Return a positive whole number, or None if there is none."""
        return None if self.get(name) is None else self.size(name)

    def number(self, name: str, default: float | None = None) -> float:
        """Return a positive number."""
        value = self._required(name, default)
        if type(value) not in (int, float) or not 0 < value < LIMIT:
            raise ValueError(f"{self.path}: {name} must be a positive number, not {shown(value)}")
        return float(value)

    def optional_number(self, name: str) -> float | None:
        """Return a positive number, or None if there is none."""
        return None if self.get(name) is None else self.number(name)

    def flag(self, name: str, default: bool) -> bool:
        """Return true or false."""
        value = self.get(name, default)
        if type(value) is not bool:
            raise ValueError(f"{self.path}: {name} must be true or false, not {shown(value)}")
        return value

    def one_of(self, name: str, choices: Collection[T], default: T | None = None) -> T:
        """Return one of the choices."""
        value = self._required(name, default)
        for choice in choices:
            if type(value) is type(choice) and value == choice:
                return choice
        raise ValueError(
            f"{self.path}: {name} {shown(value)} is not supported; supported: {[*choices]}"
        )

    def _required(self, name: str, default: Any) -> Any:
        value = self.get(name, default)
        if value is None:
            raise ValueError(f"{self.path} has no {name}")
        return value


def shown(value: object) -> str:
    """Return a value as messages show it: a long one is cut."""
    if type(value) is int and value.bit_length() > 128:  # Python may refuse to write it out
        return "a number of more than 38 digits"
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
