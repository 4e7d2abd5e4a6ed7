"""Whether a result may be written where the caller wants it: apart from all that the call reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import numpy as np

from numattn import _core
from numattn._names import Array

# What arguments are that hold no array, told quickly.
PLAIN = frozenset((type(None), bool, int, float, tuple, str))


def require_apart(out: object, inputs: Mapping[str, object], may_be: tuple[str, ...] = ()) -> None:
    """Refuse an ``out`` that shares memory with an input, or that is no array.

    ``inputs`` is all that a call has, by name. What has named fields, as `Score` and `Relative`
    do, counts by these, and what is no array shares no memory: so callers choose nothing. Inputs
    named in ``may_be`` may be ``out`` itself, element by element, but not overlap it otherwise.
    """
    if _core.lies_apart(out, inputs, may_be):  # nearly always: the ends of their memory tell
        return
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array, not {type(out).__name__}")
    for name, value in inputs.items():
        if value is None or (value is out and name in may_be):
            continue
        if isinstance(value, np.ndarray):
            _require_apart(out, name, value, may_be)
        elif type(value) not in PLAIN:
            fields = _named_fields(value)
            if fields:
                require_apart(out, fields, may_be)


def _named_fields(value: object) -> Mapping[str, object]:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        pairs = zip(value._fields, value, strict=True)
        return {name: part for name, part in pairs if type(part) not in PLAIN}  # few are given
    return vars(value) if is_dataclass(value) else {}


def _require_apart(out: Array, name: str, array: Array, may_be: tuple[str, ...]) -> None:
    if not _overlap(out, array):
        return
    if name not in may_be:
        raise ValueError(f"out overlaps {name}: the result needs memory of its own")
    if not _same_elements(out, array):
        raise ValueError(f"out overlaps {name} without being the same array")


def _overlap(a: Array, b: Array) -> bool:
    shares_memory: Any = np.shares_memory  # its annotation knows only two kinds of max_work
    try:
        return bool(shares_memory(a, b, max_work=100_000))
    except Exception:  # np.exceptions.TooHardError, np.TooHardError before NumPy 1.25
        return True


def _same_elements(a: Array, b: Array) -> bool:
    return a is b or (
        a.__array_interface__["data"] == b.__array_interface__["data"]
        and (a.shape, a.strides, a.dtype) == (b.shape, b.strides, b.dtype)
    )
