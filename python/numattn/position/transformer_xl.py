"""Relative positions of Transformer-XL: projected encodings of the distance, and two biases."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from numattn.position.relative import Relative, by_head


def transformer_xl(
    r: ArrayLike, u: ArrayLike | None, v: ArrayLike | None, *, first_distance: int = 0
) -> Relative:
    """Encodings of the distance that queries meet, with a bias for content and one for position.

    ``score(i, j) = scale · ((q_i + u) · k_j + (q_i + v) · r[i - j])``, i and j positions.
    Where there are memories, they come before the segment's keys, and ``q_offset`` is their number.

    Parameters
    ----------
    r : array of shape (Hq, T, D) or (T, D)
        Projected encodings: row t is of distance ``first_distance + t``, query minus key. The first
        and the last row stand for distances beyond them too (``clamp_len``). Any float dtype, kept
        as float32, like u and v.
    u, v : array of shape (Hq, D) or (D,), or None
        ``r_w_bias`` and ``r_r_bias`` of published code.
    first_distance : int
        0 where keys are never behind the query; negative for XLNet, which looks both ways.

    Returns
    -------
    Relative
        For the argument ``relative`` of :func:`numattn.attention`.

    Raises
    ------
    TypeError
        An array does not hold real numbers.
    ValueError
        An array has another number of dimensions, or r no rows.

    Notes
    -----
    Dai et al., "Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context" (2019),
    section 3.3; Yang et al., "XLNet" (2019). Published code stores encodings from the greatest
    distance down: turn them round with ``r[:, ::-1]``. The relative shift is not needed.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> x = np.ones((1, 1, 4, 2), np.float32)
    >>> r = -np.arange(4, dtype=np.float32)[:, None] * [1, 0]  # the farther, the less
    >>> xl = na.position.transformer_xl(r, None, np.float32([1, 0]))
    >>> na.attention_weights(x, x, relative=xl, is_causal=True, scale=1.0)[0, 0, 3].round(3)
    array([0.002, 0.016, 0.117, 0.865], dtype=float32)
    """
    table = by_head("r", r, "(Hq, T, D) or (T, D)", 3)
    if table is None or table.shape[1] == 0:
        raise ValueError(f"r must have a row for at least one distance, not shape {np.shape(r)}")
    return Relative(
        query_table=table,
        content_bias=by_head("u", u, "(Hq, D) or (D,)", 2),
        position_bias=by_head("v", v, "(Hq, D) or (D,)", 2),
        distance_rows=np.arange(table.shape[1]),
        first_distance=first_distance,
    )
