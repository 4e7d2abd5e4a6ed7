"""How a model stores its weights, and the dtypes in which numbers pass between its products."""

from __future__ import annotations

from typing import Any

import numpy as np

from numattn._dtypes import INTEGERS, STORED, as_dtype


def storage_dtype(storage: str) -> np.dtype[Any]:
    """Return the dtype of the weights in memory: float32, bfloat16 or int8.

    Raises
    ------
    ImportError
        If it is bfloat16 and the library ml_dtypes is not installed.
    """
    return np.dtype(np.int8) if storage in INTEGERS else as_dtype(storage, STORED)


def number_dtype(storage: str) -> np.dtype[Any]:
    """Return what numbers pass in where weights are stored so: float32 beside integers.

    A checkpoint's weights are read in it, too: those of `Linear` become integers there, and tables
    of embeddings stay as they are.
    """
    return np.dtype(np.float32) if storage in INTEGERS else storage_dtype(storage)
