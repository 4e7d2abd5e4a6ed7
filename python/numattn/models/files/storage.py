"""The dtypes in which a model stores its weights and passes numbers between its products."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from numattn._dtypes import STORED, as_dtype


def storage_dtype(dtype: DTypeLike | None) -> np.dtype[Any]:
    """Return float32, which None means too, bfloat16 or int8, by its name or as NumPy's dtype.

    Raises
    ------
    ImportError
        If bfloat16 is wanted by name and the library ml_dtypes is not installed.
    ValueError
        If it is another dtype.
    """
    return as_dtype("float32" if dtype is None else dtype, STORED)


def number_dtype(stored: np.dtype[Any]) -> np.dtype[Any]:
    """Return what numbers pass in where weights are stored so: float32 beside integers.

    A checkpoint's weights are read in it, too: those of `Linear` become integers there, and tables
    of embeddings stay as they are.
    """
    return np.dtype(np.float32) if stored.kind == "i" else stored
