"""The relative position bias of T5: a learned number for each head and each range of distances."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import ArrayLike, NDArray

from numattn._arguments import bounded_integer, integers, size
from numattn.position.learned import float_table


def t5_buckets(
    relative: ArrayLike,
    *,
    num_buckets: int = 32,
    bidirectional: bool = True,
    max_distance: int = 128,
) -> NDArray[np.int64]:
    """The bucket of each relative position, key minus query.

    With n buckets for a direction (half of all if ``bidirectional``), distances below n/2 have one
    each; the others grow as the logarithm of the distance, up to ``max_distance``, beyond which all
    share the last.

    Parameters
    ----------
    relative : int array of any shape
        Position of the key minus position of the query.
    num_buckets : int
        Rows of the table.
    bidirectional : bool
        Whether later keys have buckets of their own, the second half; otherwise they share bucket 0
        with the query itself.
    max_distance : int
        Where the last bucket begins at the latest.

    Returns
    -------
    int64 array of relative's shape

    Raises
    ------
    TypeError
        ``relative`` does not hold integers.
    ValueError
        There are too few buckets, or ``max_distance`` is not beyond those of one distance.

    Notes
    -----
    Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
    Transformer" (2020), section 2.1. The logarithm is rounded to float32, as models were trained.

    Examples
    --------
    >>> from numattn import position
    >>> position.t5_buckets([-200, -20, -1, 0, 1, 20])
    array([15, 10,  1,  0, 17, 26])
    """
    distance = -integers("relative", relative)
    buckets = size("num_buckets", num_buckets, least=1)
    later = np.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        later = (distance < 0) * buckets
        distance = np.abs(distance)
    else:
        distance = np.maximum(distance, 0)
    exact = buckets // 2
    farthest = bounded_integer("max_distance", max_distance)
    if exact < 1:
        least = 4 if bidirectional else 2
        raise ValueError(f"num_buckets must be at least {least}, not {num_buckets}")
    if farthest <= exact:
        raise ValueError(f"max_distance must be more than {exact}, not {farthest}")
    ratio = np.maximum(distance, exact).astype(np.float32) / np.float32(exact)
    logarithm = np.log(ratio.astype(np.float64)).astype(np.float32)
    steps = logarithm / np.float32(math.log(farthest / exact)) * np.float32(buckets - exact)
    far = np.minimum(exact + steps.astype(np.int64), buckets - 1)
    return later + np.where(distance < exact, distance, far)


def t5_bias(
    table: ArrayLike,
    q_len: int,
    k_len: int,
    *,
    bidirectional: bool,
    max_distance: int,
    q_offset: int = 0,
) -> NDArray[Any]:
    """The bias of T5 for :func:`numattn.attention`, without its (q_len, k_len) numbers in memory.

    ``bias[h, i, j] = table[bucket(j - (q_offset + i)), h]``. It depends on j − i alone, so one row
    per head is stored, of which the result is a view: rows overlap, each a number further left.

    Parameters
    ----------
    table : array of shape (num_buckets, heads)
        float32, float16 or bfloat16: ``relative_attention_bias.weight`` of a T5 model.
    q_len, k_len : int
        Numbers of queries and keys.
    bidirectional, max_distance
        As for :func:`t5_buckets`: encoders look both ways, decoders back.
    q_offset : int
        Position of the first query among the keys.

    Returns
    -------
    read-only array of shape (heads, q_len, k_len), the table's dtype
        Takes heads · (q_len + k_len − 1) elements. T5 does not scale its scores: use ``scale=1.0``.

    Raises
    ------
    TypeError
        The table has another dtype.
    ValueError
        A size is negative, the table is not a matrix, or as for :func:`t5_buckets`.

    Examples
    --------
    >>> import numpy as np
    >>> from numattn import position
    >>> table = np.arange(8, dtype=np.float32)[:, None]
    >>> position.t5_bias(table, 3, 4, bidirectional=True, max_distance=4)[0]
    array([[0., 5., 6., 7.],
           [1., 0., 5., 6.],
           [2., 1., 0., 5.]], dtype=float32)
    """
    weights = float_table("table", table, "(num_buckets, heads)")
    queries, keys = size("q_len", q_len, least=0), size("k_len", k_len, least=0)
    first = bounded_integer("q_offset", q_offset)
    last_query = first + max(queries, 1) - 1
    relative = np.arange(-last_query, max(keys, 1) - first, dtype=np.int64)
    buckets = t5_buckets(
        relative,
        num_buckets=len(weights),
        bidirectional=bidirectional,
        max_distance=max_distance,
    )
    rows = np.ascontiguousarray(weights[buckets].T)
    step = rows.itemsize
    # Row i starts one element before row i − 1; row 0 starts at the relative position −q_offset.
    return as_strided(
        rows[:, max(queries, 1) - 1 :],
        (rows.shape[0], queries, keys),
        (rows.strides[0], -step, step),
        writeable=False,
    )
