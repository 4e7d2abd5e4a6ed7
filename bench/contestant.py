"""What `compare.py` asks of a library: a list of ways to compute a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cases import Case, Operands
from serving import ServingCase


class Unsupported(Exception):
    """The library has no way to compute this row; the message says why."""


def failure(error: BaseException) -> str:
    """An exception in one line: its opening, and its end, where native libraries say the cause."""
    text = " ".join(str(error).split())
    if len(text) > 240:
        text = f"{text[:120]} … {text[-120:]}"
    return f"{type(error).__name__}: {text}"


@dataclass
class Candidate:
    """One way in which a library computes a row.

    `run` does the timed work and nothing else; `fetch` turns what it returned into a float32
    array in the row's own layout. `keep` holds operands that native code knows by address only.
    """

    how: str
    run: Callable[[], Any]
    fetch: Callable[[Any], NDArray[np.float32]]
    keep: list[Any] = field(default_factory=list)


Recipe = Callable[[], Candidate]  # the untimed preparation: packing, compiling, converting


class Contestant(Protocol):
    """A library held to one thread count. Importing it is the constructor's first act."""

    name: str
    version: str

    def __init__(self, threads: int) -> None: ...

    def recipes(self, case: Case | ServingCase, dtype: str, operands: Operands) -> list[Recipe]:
        """The ways worth trying; the fastest right one stands in the table."""
