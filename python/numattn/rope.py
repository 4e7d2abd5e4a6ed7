"""Rotary positions applied to queries and keys."""

from __future__ import annotations

from numpy.typing import ArrayLike

from numattn import _core
from numattn._arguments import (
    as_array,
    as_output,
    flag,
    in_kind_of,
    integers,
    layout_name,
    thread_count,
)
from numattn._memory import require_apart
from numattn._names import Array, Layout, Output


def apply_rope(
    x: ArrayLike,
    cos: ArrayLike,
    sin: ArrayLike,
    *,
    positions: ArrayLike | None = None,
    interleaved: bool = False,
    layout: Layout = "bhsd",
    out: Output | None = None,
    num_threads: int | None = None,
) -> Array:
    """Turn pairs of elements of each head by the angles of their positions.

    ``out[a] = x[a]·cos[r] − x[b]·sin[r]`` and ``out[b] = x[b]·cos[r] + x[a]·sin[r]`` for
    ``0 ≤ r < R``, where (a, b) is (r, r + R), or (2r, 2r + 1) if ``interleaved``. Elements from 2R
    on are copied (partial rotary). A score of two turned vectors depends on the difference of their
    positions alone.

    Parameters
    ----------
    x : array of shape (B, H, S, D)
        Queries or keys: float32, float16 or bfloat16, any strides; arithmetic is float32. Three
        dimensions are one batch entry.
    cos, sin : arrays of shape (S, R) or (B, S, R)
        Of positions 0 … S − 1 or whichever x has, as :class:`numattn.position.Rope` makes them;
        2R ≤ D; any of the three dtypes. With ``positions``, tables (P, R) of all positions.
    positions : int array of shape (S,) or (B, S), optional
        The tables' row for each position of x.
    interleaved : bool
        Whether pairs are neighbours or lie R apart.
    layout : {"bhsd", "bshd"}
        "bshd" reads x as (B, S, H, D); a reading of strides, which never copies.
    out : array of x's shape and dtype, optional
        Where the result goes, its last dimension contiguous. May be x itself.
    num_threads : int, optional
        Upper limit for this call.

    Returns
    -------
    array of x's shape and dtype
        Bitwise the same for any number of threads and any strides.

    Raises
    ------
    TypeError
        A dtype is not supported; nothing is cast silently.
    ValueError
        Shapes do not fit, a position is not in the tables, or ``out`` overlaps an input other than
        by being x.
    MemoryError
        Before anything is written, like the others.

    Notes
    -----
    Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021); the ONNX
    operator RotaryEmbedding.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> cos, sin = na.position.Rope(2).tables(range(3))
    >>> x = np.ones((1, 1, 3, 2), np.float32)
    >>> na.apply_rope(x, cos, sin).round(3)[0, 0]
    array([[ 1.   ,  1.   ],
           [-0.301,  1.382],
           [-1.325,  0.493]], dtype=float32)
    """
    heads, cosines, sines = as_array("x", x), as_array("cos", cos), as_array("sin", sin)
    rows = None
    if positions is not None:
        rows = integers("positions", positions)
        if rows.ndim not in (1, 2):
            raise ValueError(f"positions must have shape (S,) or (B, S), not {rows.shape}")
    written = None if out is None else as_output(out)
    if written is not None:
        inputs = {"x": heads, "cos": cosines, "sin": sines, "positions": rows}
        require_apart(written, inputs, may_be=("x",))
    result: Array = _core.apply_rope(
        heads,
        cosines,
        sines,
        rows,
        flag("interleaved", interleaved),
        layout_name(layout),
        written,
        thread_count(num_threads),
    )
    return in_kind_of(x, result, out)
