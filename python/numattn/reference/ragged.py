"""Packed sequences in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .attention import attention


def attention_varlen(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    cu_seqlens_q: ArrayLike,
    cu_seqlens_k: ArrayLike,
    *,
    q_offset: ArrayLike = 0,
    key_spans: Any = None,
    block_mask: Any = None,
    return_lse: bool = False,
    **score: Any,
) -> Any:
    """Attend within each sequence: :func:`attention` on its rows of q, k and v.

    Parameters
    ----------
    q, k, v : arrays (total, H, D)
    cu_seqlens_q, cu_seqlens_k : int arrays (N + 1,)
    q_offset : int or int array (N,)
    key_spans : (begin, end) of int arrays that broadcast to (1, Hq, total), optional
        Of the keys of each sequence, from 0.
    block_mask : sequence of N objects with a method to_dense(), or None, or one for all; optional
    return_lse : bool
    **score
        As for :func:`attention`.

    Returns
    -------
    float64 array (total, Hq, Dv); with `return_lse` also (Hq, total)

    Examples
    --------
    >>> import numpy as np
    >>> attention_varlen(*[np.ones((3, 1, 2))] * 3, [0, 1, 3], [0, 1, 3]).shape
    (3, 1, 2)
    """
    q, k, v = np.asarray(q), np.asarray(k), np.asarray(v)
    queries, keys = np.asarray(cu_seqlens_q), np.asarray(cu_seqlens_k)
    offsets = np.broadcast_to(np.asarray(q_offset), len(queries) - 1)
    masks = block_mask if isinstance(block_mask, (list, tuple)) else [block_mask] * len(offsets)
    o = np.zeros((*q.shape[:2], v.shape[2]))
    lse = np.full((q.shape[1], q.shape[0]), -np.inf)
    for i, offset in enumerate(offsets):
        rows = slice(queries[i], queries[i + 1])
        seen = slice(keys[i], keys[i + 1])
        spans = key_spans
        if key_spans is not None:
            full = (1, q.shape[1], q.shape[0])
            spans = [np.broadcast_to(end, full)[..., rows] for end in key_spans]
        o[rows], lse[:, rows] = attention(
            q[rows], k[seen], v[seen], q_offset=int(offset), layout="bshd", return_lse=True,
            key_spans=spans, block_mask=masks[i], **score,
        )  # fmt: skip
    return (o, lse) if return_lse else o
