"""Disentangled attention of DeBERTa: content meets position, and position content."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn._arguments import integers, size
from numattn.position.relative import Relative, by_head

# Distances beyond any sequence, at which logarithmic buckets no longer change.
_BEYOND = 2**40
_MOST_DISTANCES = 2**24


def disentangled(
    content_to_position: ArrayLike | None = None,
    position_to_content: ArrayLike | None = None,
    *,
    position_buckets: int | None = None,
    max_distance: int | None = None,
) -> Relative:
    """Projected embeddings of the distance, which queries and keys meet.

    With k half the rows of a table and ``row(δ) = clip(bucket(δ) + k, 0, 2k - 1)``, δ query minus
    key::

        score(i, j) = scale · (q_i · k_j + q_i · content_to_position[row(i - j)]
                               + k_j · position_to_content[row(i - j)])

    ``bucket`` is the distance itself, or with ``position_buckets`` that of :func:`log_buckets`.

    Parameters
    ----------
    content_to_position : array of shape (Hq, 2k, D) or (2k, D), optional
        Relative embeddings by the key projection (``pos_key``). Any float dtype, kept as float32.
    position_to_content : array of the same shapes, optional
        Relative embeddings by the query projection (``pos_query``).
    position_buckets : int, optional
        k of DeBERTa-v2 and v3, where far distances share a row; needs ``max_distance``.
    max_distance : int, optional
        Where the last bucket begins: the model's ``max_relative_positions``, or where that is
        less than 1, its ``max_position_embeddings``.

    Returns
    -------
    Relative
        For the argument ``relative`` of :func:`numattn.attention`. Its ``scale`` is
        ``1/sqrt((1 + tables) · D)``, as the models have it.

    Raises
    ------
    TypeError
        A table does not hold real numbers, or a number is none.
    ValueError
        There is no table, they have not one even number of rows, or the buckets do not fit them.

    Notes
    -----
    He et al., "DeBERTa: Decoding-enhanced BERT with Disentangled Attention" (2021), equations 2 to
    4; the buckets are those of DeBERTa-v2's code.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> x = np.ones((1, 1, 3, 1), np.float32)
    >>> before = na.position.disentangled(np.float32([[0], [0], [0], [2]]))  # row 3 is δ >= 1
    >>> na.attention_weights(x, x, relative=before, scale=1.0)[0, 0].round(3)
    array([[0.333, 0.333, 0.333],
           [0.787, 0.107, 0.107],
           [0.468, 0.468, 0.063]], dtype=float32)
    """
    axes = "(Hq, 2k, D) or (2k, D)"
    query_table = by_head("content_to_position", content_to_position, axes, 3)
    key_table = by_head("position_to_content", position_to_content, axes, 3)
    tables = [table for table in (query_table, key_table) if table is not None]
    if not tables:
        raise ValueError("content_to_position or position_to_content must be given")
    lengths = {table.shape[1] for table in tables}
    if len(lengths) > 1 or min(lengths) < 2 or min(lengths) % 2:
        shapes = " and ".join(str(table.shape) for table in tables)
        raise ValueError(f"tables must have the same even number of rows 2k, not shapes {shapes}")
    half = lengths.pop() // 2
    if position_buckets is None:
        if max_distance is not None:
            raise ValueError("max_distance has a meaning with position_buckets only")
        first, rows = -half, np.arange(2 * half)
    else:
        buckets = size("position_buckets", position_buckets, least=2)
        if buckets != half:
            raise ValueError(
                f"position_buckets {buckets} needs tables of {2 * buckets} rows, not {2 * half}"
            )
        if max_distance is None:
            raise ValueError("position_buckets needs max_distance")
        first, rows = _log_rows(half, max_distance)
    return Relative(
        query_table=query_table,
        key_table=key_table,
        distance_rows=rows,
        first_distance=first,
        scale=1 / math.sqrt((1 + len(tables)) * tables[0].shape[2]),
    )


def log_buckets(
    distance: ArrayLike, *, position_buckets: int, max_distance: int
) -> NDArray[np.int64]:
    """The bucket of each distance in DeBERTa-v2: its own up to half of them, then by logarithm.

    ``mid = position_buckets // 2``; a distance of at most mid is its own bucket, and a greater one
    has ``mid + ceil(log(|δ| / mid) / log((max_distance - 1) / mid) · (mid - 1))``, with its sign.

    Parameters
    ----------
    distance : int array of any shape
        Query minus key.
    position_buckets, max_distance : int
        As for :func:`disentangled`.

    Returns
    -------
    int64 array of distance's shape

    Raises
    ------
    TypeError
        ``distance`` does not hold integers.
    ValueError
        There are fewer than 2 buckets, or ``max_distance`` is not beyond those of one distance.

    Notes
    -----
    The logarithm is rounded to float32, as models were trained.

    Examples
    --------
    >>> from numattn.position.disentangled import log_buckets
    >>> log_buckets([-300, -4, 0, 4, 5, 20, 63], position_buckets=8, max_distance=64)
    array([-9, -4,  0,  4,  5,  6,  7])
    """
    given = integers("distance", distance)
    mid = size("position_buckets", position_buckets, least=2) // 2
    farthest = size("max_distance", max_distance, least=1)
    if farthest - 1 <= mid:
        raise ValueError(f"max_distance must be more than {mid + 1}, not {farthest}")
    far = np.abs(given)
    ratio = np.maximum(far, mid).astype(np.float32) / np.float32(mid)
    logarithm = np.log(ratio.astype(np.float64)).astype(np.float32)
    limit = np.float32(math.log(np.float32((farthest - 1) / mid)))
    steps = np.ceil(logarithm / limit * np.float32(mid - 1)).astype(np.int64)
    return np.where(far <= mid, given, np.sign(given) * (mid + steps))


def _log_rows(half: int, max_distance: int) -> tuple[int, NDArray[np.int64]]:
    """The first distance, and the rows from there to where they no longer change."""

    def rows(distance: ArrayLike) -> NDArray[np.int64]:
        buckets = log_buckets(distance, position_buckets=half, max_distance=max_distance)
        return np.clip(buckets + half, 0, 2 * half - 1)

    ends = rows([-_BEYOND, _BEYOND])
    reach = max_distance
    while (rows([-reach, reach]) != ends).any():
        reach *= 2
    if reach > _MOST_DISTANCES:
        raise ValueError(
            f"with position_buckets {half} and max_distance {max_distance}, rows would differ up "
            f"to distance {reach}: more buckets or a lesser distance are needed"
        )
    return -reach, rows(np.arange(-reach, reach + 1))
