"""The dtype in which a model stores its weights and passes numbers between its products."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from numattn._dtypes import STORED, as_dtype


def storage_dtype(dtype: DTypeLike | None) -> np.dtype[Any]:
    """Return float32, which None means too, or bfloat16, by its name or as NumPy's dtype.

    Raises
    ------
    ImportError
        If bfloat16 is wanted by name and the library ml_dtypes is not installed.
    ValueError
        If it is another dtype.
    """
    return as_dtype("float32" if dtype is None else dtype, STORED)
