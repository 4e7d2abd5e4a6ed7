"""Dtypes as callers name them: "bfloat16" or ``ml_dtypes.bfloat16``, ``np.float32`` or "float32".

NumPy knows the name bfloat16 only once ml_dtypes is imported, and numattn does not need ml_dtypes:
so a name is what is asked for first, and NumPy's dtype only where arrays of it are made.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from numattn._names import Array

COMPUTED = ("float32", "float16", "bfloat16")
"""What queries, keys and values may be."""

INTEGERS = ("int8", "w8a8")
"""Weights as integers of 8 bits, to be multiplied by integers of 16 bits, or of 8."""

STORED = ("float32", "bfloat16", *INTEGERS)
"""How weights may be stored."""


def dtype_name(dtype: DTypeLike, known: tuple[str, ...]) -> str:
    """The name of a dtype, one of those known.

    Raises
    ------
    ValueError
        It is another one, or of foreign byte order, or no dtype.
    """
    if isinstance(dtype, str) and dtype in known:
        return dtype
    try:
        given: Any = np.dtype(dtype)
    except (TypeError, ValueError):
        given = None
    if given is not None and given.name in known and given.isnative:
        name: str = given.name
        return name
    choice = f"{', '.join(known[:-1])} or {known[-1]}"
    raise ValueError(f"dtype must be {choice}, not {repr(dtype) if given is None else given}")


def as_dtype(dtype: DTypeLike, known: tuple[str, ...]) -> np.dtype[Any]:
    """The dtype itself.

    Raises
    ------
    ValueError
        As for `dtype_name`.
    ImportError
        It is bfloat16 by name, and the package ml_dtypes is not installed.
    """
    name = dtype_name(dtype, known)
    if name != "bfloat16":
        return np.dtype(name)
    if not isinstance(dtype, str):
        return np.dtype(dtype)  # whoever has it needs no package any more
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError("bfloat16 needs ml_dtypes: pip install ml_dtypes") from None
    bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return bfloat16


def storage_name(dtype: DTypeLike | None) -> str:
    """The name of how weights are to be stored: float32 for None."""
    return "float32" if dtype is None else dtype_name(dtype, STORED)


def check_floating(name: str, array: Array) -> None:
    """Raise TypeError unless an array's numbers are floating-point ones that kernels read."""
    if array.dtype.name in COMPUTED and array.dtype.isnative:
        return
    if array.dtype.names == ("bfloat16",):  # a tensor's, see _tensors.py
        raise ImportError(f"{name} is bfloat16, which needs ml_dtypes here: pip install ml_dtypes")
    raise TypeError(
        f"{name} has dtype {array.dtype}; it must be float32, float16 or bfloat16 in native "
        "byte order: cast it with .astype(np.float32)"
    )
