"""Coercion of small arguments; shapes and ranges are checked by the core."""

from __future__ import annotations

import operator
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn import _core
from numattn._names import Array

Result = TypeVar("Result")

INT64 = np.dtype(np.int64)
_array_of, _tensor_of = _core.array_of, _core.tensor_of
MOST_THREADS = 2**31 - 1
LARGEST_SCORE = 2.3e38  # in units of log 2, in which scores are kept, just below float32's largest


def as_array(name: str, value: ArrayLike) -> Array:
    """The value as an array, without a copy where it is one, or a tensor of another library.

    A masked array is refused: np.asarray would drop its mask, and what a mask means differs from
    argument to argument.
    """
    if type(value) is np.ndarray:  # the usual case, told quickly
        return value
    tensor = _array_of(value, name)
    if tensor is not None:
        return tensor
    parts = value if isinstance(value, (list, tuple)) else (value,)
    if any(isinstance(part, np.ndarray) and isinstance(part, np.ma.MaskedArray) for part in parts):
        raise TypeError(
            f"{name} is a masked array, whose mask would be lost: give its .filled(...) or .data, "
            "and what attention is to leave out as its mask"
        )
    array = np.asarray(value)
    if array.ndim == 0 and array.dtype.kind == "O":  # an iterator, a dict: NumPy wraps it
        raise TypeError(f"{name} must be an array, not {type(value).__name__}")
    return array


def as_output(out: Any) -> Array:
    """Where a result is to be written: an array, or the memory of a tensor."""
    if type(out) is np.ndarray or isinstance(out, np.ndarray):  # the first is told quickly
        return out
    tensor = _array_of(out, "out")
    if tensor is None:
        raise TypeError(f"out must be a NumPy array or a tensor, not {type(out).__name__}")
    return tensor


def in_kind_of(model: object, result: Result, out: Any = None) -> Result:
    """A result, or each of several, as a tensor where ``model`` is one: no number is copied. What
    was written to ``out`` is ``out`` itself."""
    if out is None and type(model) is np.ndarray:  # the usual case, told quickly
        return result
    if not isinstance(result, tuple):
        return cast(Result, _tensor_of(cast(Array, result), model) if out is None else out)
    first, *others = result
    kin = (in_kind_of(model, first, out), *(in_kind_of(model, other) for other in others))
    return cast(Result, kin)


def optional_array(name: str, value: ArrayLike | None) -> Array | None:
    """The same for an argument that may be left out."""
    return None if value is None else as_array(name, value)


def integers(name: str, value: ArrayLike) -> NDArray[np.int64]:
    """A contiguous int64 array of the value's shape."""
    array = as_array(name, value)
    if array.dtype is INT64 and array.flags.c_contiguous:  # the usual case, told quickly
        return array
    if array.size == 0 and array.dtype == np.float64:  # an empty list
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, not {array.dtype}")
    if array.dtype.kind == "u" and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must fit 64 signed bits, not {int(array.max())}")
    return np.asarray(array, dtype=np.int64, order="C")


def channel_table(name: str, value: ArrayLike | None) -> NDArray[np.int64] | None:
    """A contiguous int64 table with a row of channels for each key head, or None."""
    if value is None:
        return None
    table = integers(name, value)
    if table.ndim != 2:
        raise ValueError(f"{name} must have shape (Hkv, E), not {table.shape}")
    return table


def integer_array(name: str, value: ArrayLike, *, scalar: bool) -> NDArray[np.int64]:
    """A contiguous int64 vector; ``scalar`` allows one number as well."""
    array = integers(name, value)
    if array.ndim > 1 or (array.ndim == 0 and not scalar):
        raise ValueError(f"{name} must be one-dimensional, not of shape {array.shape}")
    return array


def float_array(
    name: str, value: ArrayLike, most_axes: int, *, limit: bool = False
) -> NDArray[np.float32]:
    """A contiguous float32 array of small per-head numbers.

    Scores are kept within ±`LARGEST_SCORE`: finite numbers beyond are refused, or count as that
    with ``limit``.
    """
    array = as_array(name, value)
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name} must hold real numbers, not {array.dtype}")
    if not 1 <= array.ndim <= most_axes:
        raise ValueError(f"{name} must have 1 to {most_axes} dimensions, not shape {array.shape}")
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(array, dtype=np.float32)
    beyond = np.abs(narrow) > LARGEST_SCORE
    if not beyond.any():
        return narrow
    beyond &= np.isfinite(array)
    if beyond.any() and not limit:
        raise ValueError(
            f"{name} must be of magnitudes up to {LARGEST_SCORE:.2g}, not {array[beyond][0]}"
        )
    largest = np.float32(LARGEST_SCORE)
    return np.where(beyond, np.copysign(largest, narrow), narrow)


def bounded_integer(name: str, value: Any) -> int:
    """An integer of at most 64 signed bits."""
    if type(value) is int and -(2**63) <= value < 2**63:  # the usual case, told quickly
        return value
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{name} must fit 64 signed bits, not {number}")
    return number


def size(name: str, value: Any, *, least: int = 1) -> int:
    """How many of something there are to be."""
    number = bounded_integer(name, value)
    if number < least:
        raise ValueError(f"{name} must be {least} or more, not {number}")
    return number


def thread_count(num_threads: int | None) -> int:
    """0 for no limit."""
    if num_threads is None:
        return 0
    if type(num_threads) is int and 1 <= num_threads <= MOST_THREADS:  # told quickly
        return num_threads
    count = bounded_integer("num_threads", num_threads)
    if count < 1:
        raise ValueError(f"num_threads must be at least 1, not {count}")
    return min(count, MOST_THREADS)


def real(name: str, value: float) -> float:
    """A Python float; whether float32 holds it, the core asks."""
    if type(value) is float:  # the usual case, told quickly
        return value
    if isinstance(value, (str, bytes)):  # float would read it
        raise TypeError(f"{name} must be a real number, not {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be a number that float64 holds") from None
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a real number, not {value!r}") from None


def optional_real(name: str, value: float | None) -> float | None:
    """The same for an argument that may be left out."""
    return None if value is None else real(name, value)


def flag(name: str, value: Any) -> bool:
    """A truth value: True, False, or the integers 1 and 0; no string is one."""
    if value is True or value is False:  # told quickly
        return bool(value)
    if isinstance(value, np.bool_):
        return bool(value)
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if number not in (0, 1):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return bool(number)


def layout_name(layout: object) -> str:
    """A layout's name; whether there is one of that name, the core says."""
    if not isinstance(layout, str):
        raise ValueError(f"layout must be 'bhsd' or 'bshd', not {layout!r}")
    return layout


def precision_name(precision: object) -> str:
    """A precision's name; whether there is one of that name, the core says."""
    if not isinstance(precision, str):
        raise ValueError(f"precision must be 'highest' or 'high', not {precision!r}")
    return precision
