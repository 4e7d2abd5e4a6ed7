"""Packed sequences and merged states in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .attention import attention
from .score import Float64Array


def attention_varlen(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    cu_seqlens_q: ArrayLike,
    cu_seqlens_k: ArrayLike,
    *,
    q_offset: ArrayLike = 0,
    return_lse: bool = False,
    **score: Any,
) -> Any:
    """Attend within each sequence: :func:`attention` on its rows of q, k and v.

    Parameters
    ----------
    q, k, v : arrays (total, H, D)
    cu_seqlens_q, cu_seqlens_k : int arrays (N + 1,)
    q_offset : int or int array (N,)
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
    o = np.zeros((*q.shape[:2], v.shape[2]))
    lse = np.full((q.shape[1], q.shape[0]), -np.inf)
    for i, offset in enumerate(offsets):
        rows = slice(queries[i], queries[i + 1])
        seen = slice(keys[i], keys[i + 1])
        o[rows], lse[:, rows] = attention(
            q[rows], k[seen], v[seen], q_offset=int(offset), layout="bshd", return_lse=True, **score
        )
    return (o, lse) if return_lse else o


def merge_states(
    outs: Sequence[ArrayLike], lses: Sequence[ArrayLike]
) -> tuple[Float64Array, Float64Array]:
    """Combine attentions over disjoint keys: o = Σ exp(lse_i)·o_i / Σ exp(lse_i).

    Parameters
    ----------
    outs : sequence of arrays (..., S, Dv)
    lses : sequence of arrays (..., S)

    Returns
    -------
    o, lse : float64 arrays

    Examples
    --------
    >>> merge_states([[[1.0]], [[3.0]]], [[0.0], [0.0]])[0].tolist()
    [[2.0]]
    """
    sums = np.stack([np.asarray(lse).astype(np.float64) for lse in lses])
    results = np.stack([np.asarray(o).astype(np.float64) for o in outs])
    with np.errstate(all="ignore"):
        peak = sums.max(axis=0)
        shift = np.where(np.isneginf(peak), 0.0, peak)
        weights = np.exp(sums - shift)
        total = weights.sum(axis=0)
        share = np.where(total > 0, weights / total, 0.0)
        return (share[..., None] * results).sum(axis=0), shift + np.log(total)
