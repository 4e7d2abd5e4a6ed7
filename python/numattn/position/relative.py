"""Attention terms that depend on the distance of a query from a key, through learned tables."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn._arguments import as_array, bounded_integer, integer_array, optional_real

Table = NDArray[np.float32]


@dataclass(frozen=True, eq=False, repr=False)
class Relative:
    """Relative positions for the argument ``relative`` of :func:`numattn.attention`.

    Query i stands at position ``q_offset + i``, and key j lies ``δ = q_offset + i - j`` before it.
    With ``row(δ) = distance_rows[clip(δ - first_distance, 0, len(distance_rows) - 1)]``::

        score(i, j) = scale · ((q_i + content_bias) · k_j
                               + (q_i + position_bias) · query_table[row(δ)]
                               + k_j · key_table[row(δ)])
        output(i)   = Σ_j weight(i, j) · (v_j + value_table[row(δ)])

    What is None is left out. Softcap, bias, ALiBi and masks come after these scores. The terms are
    computed tile by tile; nothing of size (Sq, Sk) is stored.

    :func:`shaw`, :func:`transformer_xl` and :func:`disentangled` make the published schemes.

    Parameters
    ----------
    query_table : array of shape (Hq, T, D), (1, T, D) or (T, D), optional
        What queries meet. Tables and biases of another float dtype become float32 once, here.
    key_table : array of the same shapes, optional
        What keys meet.
    value_table : array of shape (Hq, T, Dv), (1, T, Dv) or (T, Dv), optional
        What is added to values. One of the three tables must be given.
    content_bias, position_bias : array of shape (Hq, D), (1, D) or (D,), optional
        What is added to queries before they meet keys and ``query_table``.
    distance_rows : int array of shape (N,), keyword-only
        Rows of the tables, by distance; the first stands for lesser distances too, the last for
        greater ones. Neighbouring distances of the same row share work.
    first_distance : int, keyword-only
        The distance of ``distance_rows[0]``.
    scale : float, optional
        What the ``scale`` of :func:`numattn.attention` defaults to in place of ``1/sqrt(D)``.

    Raises
    ------
    TypeError
        A table or a bias does not hold real numbers, or ``distance_rows`` integers.
    ValueError
        There is no table, or the number of dimensions is wrong. Whether shapes fit queries and
        values is found out when they meet.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> q = k = v = np.ones((1, 1, 3, 2), np.float32)
    >>> near = na.position.Relative(  # distances up to 0, 1 and from 2 on
    ...     value_table=np.float32([[1, 0], [0, 0], [0, 1]]), distance_rows=[0, 1, 2],
    ...     first_distance=0,
    ... )
    >>> na.attention(q, k, v, relative=near)[0, 0].round(3)
    array([[2.   , 1.   ],
           [1.667, 1.   ],
           [1.333, 1.333]], dtype=float32)
    """

    query_table: Any = None
    key_table: Any = None
    value_table: Any = None
    content_bias: Any = None
    position_bias: Any = None
    distance_rows: Any = ()
    first_distance: int = 0
    scale: float | None = None

    def __post_init__(self) -> None:
        tables = ("query_table", "key_table", "value_table")
        if all(getattr(self, name) is None for name in tables):
            raise ValueError(f"one of {', '.join(tables)} must be given")
        for name in tables:
            self._set(name, by_head(name, getattr(self, name), "(Hq, T, D) or (T, D)", 3))
        for name in ("content_bias", "position_bias"):
            self._set(name, by_head(name, getattr(self, name), "(Hq, D) or (D,)", 2))
        rows = integer_array("distance_rows", self.distance_rows, scalar=False).copy()
        rows.flags.writeable = False
        self._set("distance_rows", rows)
        self._set("first_distance", bounded_integer("first_distance", self.first_distance))
        self._set("scale", optional_real("scale", self.scale))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        parts = [
            f"{name}={value.shape if isinstance(value, np.ndarray) else value}"
            for name, value in given.items()
            if value is not None
        ]
        return f"Relative({', '.join(parts)})"


def by_head(name: str, value: ArrayLike | None, axes: str, dimensions: int) -> Table | None:
    """A contiguous float32 array with an axis of heads, which may be left out."""
    if value is None:
        return None
    array = as_array(name, value)
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name} must hold real numbers of a float dtype, not {array.dtype}")
    if array.ndim == dimensions - 1:
        array = array[np.newaxis]
    if array.ndim != dimensions:
        raise ValueError(f"{name} must have shape {axes}, not {np.shape(value)}")
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(array, dtype=np.float32)
    if array.dtype.itemsize > 4 and (np.isinf(narrow) & np.isfinite(array)).any():
        raise ValueError(f"{name} must hold numbers that float32 holds, not {np.abs(array).max()}")
    # A tensor may be given another memory while the terms are kept.
    return narrow if isinstance(value, np.ndarray) else narrow.copy()
