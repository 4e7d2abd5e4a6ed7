"""The dtype in which a model stores its weights and passes numbers between its products."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from numattn.linear import storage_name


def storage_dtype(dtype: DTypeLike | None) -> np.dtype[Any]:
    """Return float32, which None means too, or bfloat16, by its name or as NumPy's dtype.

    Raises
    ------
    ImportError
        If bfloat16 is wanted and the library ml_dtypes is not installed.
    ValueError
        If it is another dtype.
    """
    if storage_name(dtype) == "float32":
        return np.dtype(np.float32)
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError("a model in bfloat16 needs ml_dtypes: pip install ml_dtypes") from None
    bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return bfloat16
