"""Relative positions of Shaw et al.: embeddings added to keys and values, clipped by distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from numattn.position.relative import Relative, by_head


def shaw(key_table: ArrayLike | None, value_table: ArrayLike | None = None) -> Relative:
    """Embeddings of the clipped distance, added to keys and to values.

    With ``w(i, j) = clip(j - i, -k, k) + k``::

        score(i, j) = scale · q_i · (k_j + key_table[w(i, j)])
        output(i)   = Σ_j weight(i, j) · (v_j + value_table[w(i, j)])

    Parameters
    ----------
    key_table : array of shape (2k + 1, D) or (Hq, 2k + 1, D), or None
        Row 0 is of keys k and more before the query, the last of keys k and more behind it. Any
        float dtype; kept as float32.
    value_table : array of shape (2k + 1, Dv) or (Hq, 2k + 1, Dv), optional

    Returns
    -------
    Relative
        For the argument ``relative`` of :func:`numattn.attention`.

    Raises
    ------
    TypeError
        A table does not hold real numbers.
    ValueError
        There is no table, or they have not one odd number of rows.

    Notes
    -----
    Shaw, Uszkoreit and Vaswani, "Self-Attention with Relative Position Representations" (2018),
    equations 3 and 4.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> x = np.ones((1, 1, 3, 1), np.float32)
    >>> behind = na.position.shaw(None, np.float32([[0], [0], [1]]))  # k = 1
    >>> na.attention(x, x, x, relative=behind)[0, 0, :, 0].round(3)
    array([1.667, 1.333, 1.   ], dtype=float32)
    """
    axes = "(2k + 1, D) or (Hq, 2k + 1, D)"
    for_keys = by_head("key_table", key_table, axes, 3)
    for_values = by_head("value_table", value_table, axes, 3)
    shapes = [table.shape for table in (for_keys, for_values) if table is not None]
    lengths = {shape[1] for shape in shapes}
    if len(lengths) != 1 or min(lengths) % 2 == 0:
        raise ValueError(
            "key_table or value_table must be given, with one odd number of rows 2k + 1, not "
            + (" and ".join(map(str, shapes)) or "neither")
        )
    farthest = lengths.pop() // 2
    return Relative(
        query_table=for_keys,
        value_table=for_values,
        distance_rows=np.arange(2 * farthest, -1, -1),
        first_distance=-farthest,
    )
