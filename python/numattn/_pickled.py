"""Records of arrays in the form in which pickle can hand the arrays out as buffers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def reduced(record: tuple[NDArray[Any] | None, ...]) -> tuple[Any, ...]:
    """What ``__reduce__`` of a NamedTuple of arrays returns.

    A buffer has no gaps, and none can hold bfloat16, which travels as integers.
    """
    plain = [
        None if array is None else np.ascontiguousarray(array).view(f"u{array.itemsize}")
        for array in record
    ]
    return restored, (type(record), plain, [None if a is None else a.dtype for a in record])


def restored(kind: Any, plain: list[Any], dtypes: list[Any]) -> Any:
    """The record again; its arrays lie where pickle has put them, perhaps read-only."""
    return kind(
        *(
            None if array is None else array.view(dtype)
            for array, dtype in zip(plain, dtypes, strict=True)
        )
    )
