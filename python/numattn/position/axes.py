"""Rotary positions along several axes: an image's rows and columns, a video's frames."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from numattn._arguments import flag, integers, size
from numattn._names import Array, Float32Array, Int64Array
from numattn.position.rope import Rope

Tables = tuple[Float32Array, Float32Array]


def axial_tables(rope: Rope, positions: ArrayLike) -> Tables:
    """Tables by which each axis turns a part of a head of its own: 2-D RoPE of vision models.

    Parameters
    ----------
    rope : Rope
        Of the elements that one axis turns: ``Rope(head_dim // 2)`` for rows and columns. The pairs
        of the first axis come first.
    positions : int array of shape (axes, ...)
        Each token's place along each axis, as :func:`grid_positions` makes them.

    Returns
    -------
    cos, sin : float32 arrays of shape (..., axes · rope.dim / 2)
        For :func:`numattn.apply_rope`.

    Raises
    ------
    TypeError
        ``rope`` is no Rope, or positions are not integers.
    ValueError
        There is no axis.

    Notes
    -----
    As in the vision towers of Qwen2-VL, and EVA-02 (Fang et al., 2023) with neighbouring pairs.

    Examples
    --------
    >>> from numattn import position
    >>> cos, sin = position.axial_tables(position.Rope(2), position.grid_positions(2, 2))
    >>> sin.round(3)
    array([[0.   , 0.   ],
           [0.   , 0.841],
           [0.841, 0.   ],
           [0.841, 0.841]], dtype=float32)
    """
    places = _places(rope, positions)
    each = [rope.tables(along, length=_length(places)) for along in places]
    return _joined(each, lambda tables: np.concatenate(tables, axis=-1))


def section_tables(
    rope: Rope, positions: ArrayLike, sections: ArrayLike, *, interleaved: bool = False
) -> Tables:
    """Tables whose pairs turn by one axis or another: the multimodal RoPE (M-RoPE) of Qwen2-VL.

    Parameters
    ----------
    rope : Rope
        Of all the elements that turn.
    positions : int array of shape (axes, ...)
        Each token's place along each axis: frame, row and column. A token of text has the same in
        all, and turns as with ``rope`` alone.
    sections : int array of shape (axes,)
        How many pairs turn by each axis (``mrope_section``); together rope.dim / 2.
    interleaved : bool
        Which: runs of pairs in the order of the axes (Qwen2-VL), or, as in Qwen3-VL, pair i by axis
        ``i mod axes`` while that axis has pairs left, and the others by the first.

    Returns
    -------
    cos, sin : float32 arrays of shape (..., rope.dim / 2)
        For :func:`numattn.apply_rope`.

    Raises
    ------
    TypeError
        ``rope`` is no Rope, or a number is no integer.
    ValueError
        Sections are not as many as axes, or not together the pairs of ``rope``.

    Notes
    -----
    Wang et al., "Qwen2-VL" (2024), section 2.1.

    Examples
    --------
    >>> from numattn import position
    >>> rope = position.Rope(8)
    >>> cos, sin = position.section_tables(rope, [[3], [1], [2]], [2, 1, 1])
    >>> sin.round(3)
    array([[0.141, 0.296, 0.01 , 0.002]], dtype=float32)
    """
    places = _places(rope, positions)
    counts = integers("sections", sections)
    pairs = rope.dim // 2
    if counts.shape != (len(places),) or np.any(counts < 0) or counts.sum() != pairs:
        raise ValueError(
            f"sections must be {len(places)} numbers that add up to the {pairs} pairs of rope, "
            f"not {counts.tolist()}"
        )
    axis = np.repeat(np.arange(len(counts)), counts)
    if flag("interleaved", interleaved):
        axis = _taken_in_turn(counts)
    each = [rope.tables(along, length=_length(places)) for along in places]
    picked = np.arange(pairs)
    return _joined(each, lambda tables: np.stack(tables, axis=-1)[..., picked, axis])


def grid_positions(height: int, width: int) -> Int64Array:
    """The row and the column of each patch of an image, row by row.

    Parameters
    ----------
    height, width : int
        Patches per column and per row of the image.

    Returns
    -------
    int64 array of shape (2, height · width)

    Raises
    ------
    TypeError, ValueError
        A number is no integer, or negative.

    Examples
    --------
    >>> from numattn import position
    >>> position.grid_positions(2, 3)
    array([[0, 0, 0, 1, 1, 1],
           [0, 1, 2, 0, 1, 2]])
    """
    rows, columns = size("height", height, least=0), size("width", width, least=0)
    grid: Int64Array = np.indices((rows, columns), dtype=np.int64).reshape(2, rows * columns)
    return grid


def _places(rope: Rope, positions: ArrayLike) -> Int64Array:
    if not isinstance(rope, Rope):
        raise TypeError(f"rope must be a numattn.position.Rope, not {type(rope).__name__}")
    places = integers("positions", positions)
    if places.ndim == 0 or len(places) == 0:
        raise ValueError(f"positions must have shape (axes, ...), not {places.shape}")
    return places


def _length(places: Int64Array) -> int:
    """One length for all axes, whose frequencies are then the same."""
    return max(int(places.max(initial=0)) + 1, 1)


def _taken_in_turn(counts: Int64Array) -> Int64Array:
    """The axis of each pair where axes take turns."""
    axis = np.zeros(int(counts.sum()), np.int64)
    for number in range(1, len(counts)):
        axis[number : len(counts) * int(counts[number]) : len(counts)] = number
    return axis


def _joined(each: list[Tables], join: Callable[[list[Float32Array]], Array]) -> Tables:
    cos, sin = (join([tables[which] for tables in each]) for which in range(2))
    return cos, sin
