"""Encodings of position that were learned, one row each."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from numattn._arguments import as_array, integers


def learned(table: ArrayLike, positions: ArrayLike) -> NDArray[Any]:
    """Rows of a learned table of positions.

    Parameters
    ----------
    table : array of shape (P, d)
        float32, float16 or bfloat16.
    positions : int array of any shape
        Each at least 0 and less than P; nothing is counted from the end.

    Returns
    -------
    array of shape (\\*positions.shape, d), the table's dtype

    Raises
    ------
    TypeError
        The table has another dtype, or positions are not integers.
    ValueError
        A position is not in the table, or the table has not two dimensions.

    Notes
    -----
    Gehring et al., "Convolutional Sequence to Sequence Learning" (2017); BERT and GPT-2.

    Examples
    --------
    >>> import numpy as np
    >>> from numattn import position
    >>> table = np.arange(6, dtype=np.float32).reshape(3, 2)
    >>> position.learned(table, [2, 0])
    array([[4., 5.],
           [0., 1.]], dtype=float32)
    >>> position.learned(table, [3])
    Traceback (most recent call last):
    ValueError: position 3 is not in the table, which has 3 rows
    """
    rows = float_table("table", table, "(P, d)")
    chosen = integers("positions", positions)
    wrong = chosen[(chosen < 0) | (chosen >= len(rows))]
    if wrong.size:
        raise ValueError(f"position {wrong[0]} is not in the table, which has {len(rows)} rows")
    result: NDArray[Any] = rows[chosen]
    return result


def float_table(name: str, value: ArrayLike, axes: str) -> NDArray[Any]:
    """A matrix of one of the library's dtypes."""
    table = as_array(name, value)
    if table.dtype.name not in ("float32", "float16", "bfloat16") or not table.dtype.isnative:
        raise TypeError(
            f"{name} has dtype {table.dtype}; it must be float32, float16 or bfloat16 in native "
            "byte order: cast it with .astype(np.float32)"
        )
    if table.ndim != 2:
        raise ValueError(f"{name} must have 2 dimensions {axes}, not shape {table.shape}")
    return table
