"""Attention over keys and values that lie in pages of a pool."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from numattn import _core
from numattn._arguments import as_array, integers, optional_array, score_arguments
from numattn._memory import require_apart
from numattn._names import Array, Layout, Precision, Window
from numattn.position.relative import Relative, relative_arguments


def attention_paged(
    q: ArrayLike,
    k_pages: ArrayLike,
    v_pages: ArrayLike,
    block_table: ArrayLike,
    kv_lens: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    is_causal: bool = False,
    q_offset: ArrayLike = 0,
    window: Window = None,
    scale: float | None = None,
    softcap: float | None = None,
    alibi_slopes: ArrayLike | None = None,
    sinks: ArrayLike | None = None,
    relative: Relative | None = None,
    k_scale: ArrayLike | None = None,
    v_scale: ArrayLike | None = None,
    layout: Layout = "bhsd",
    precision: Precision = "highest",
    out: Array | None = None,
    return_lse: bool = False,
    num_threads: int | None = None,
) -> Any:
    """Attention of each batch entry to the tokens that its row of a block table names.

    Token j of entry b is row ``j % page`` of page ``block_table[b, j // page]``. The result for b
    is that of :func:`numattn.attention` on its first ``kv_lens[b]`` tokens side by side, bit by
    bit; no token is copied for a decoding step.

    Parameters
    ----------
    q : array of shape (B, Hq, Sq, D)
        float32, float16 or bfloat16; (B, Sq, Hq, D) with layout "bshd".
    k_pages, v_pages : arrays of shape (P, page, Hkv, D) and (P, page, Hkv, Dv)
        q's dtype, or int8 with scales; any strides, pages of any size.
    block_table : int array of shape (B, n)
        Pages of each entry, in any order; entries may share them. What lies beyond
        ``kv_lens[b]`` is not looked at.
    kv_lens : int array of shape (B,)
        Tokens of each entry, at most n · page.
    mask, bias : arrays, optional
        As for :func:`numattn.attention`, broadcast to (B, Hq, Sq, n · page).
    is_causal, q_offset, window, scale, softcap, alibi_slopes, sinks, relative, layout, precision
        As for :func:`numattn.attention`.
    k_scale, v_scale : float32 arrays of shape (P, page, Hkv), optional
        For pages of dtype int8: what their integers are to be multiplied by.
    out : array of q's shape with Dv for D, optional
        Where the result goes.
    return_lse : bool
        Also return the log-sum-exp of each row's logits.
    num_threads : int, optional
        Upper limit for this call.

    Returns
    -------
    o : array of shape (B, Hq, Sq, Dv)
        In the layout of q and in its dtype.
    lse : float32 array of shape (B, Hq, Sq)
        With ``return_lse=True``.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As for :func:`numattn.attention`; ValueError also for a length beyond the table, and for a
        table that names a page that does not exist.

    Notes
    -----
    Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention"
    (2023).

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> pages = np.eye(4, dtype=np.float32).reshape(2, 2, 1, 4)  # two pages of two tokens
    >>> q = pages[:1, :1]
    >>> na.attention_paged(q, pages, pages, [[1, 0]], [3], scale=1.0)[0, 0].round(3)
    array([[0.576, 0.   , 0.212, 0.212]], dtype=float32)
    """
    score = score_arguments(
        mask, bias, is_causal, q_offset, window, scale, softcap, kv_lens, alibi_slopes, sinks,
        layout, num_threads, precision, relative_arguments(relative),
    )  # fmt: skip
    table = integers("block_table", block_table)
    if table.ndim != 2:
        raise ValueError(f"block_table must have shape (B, n), not {table.shape}")
    q, k, v = as_array("q", q), as_array("k_pages", k_pages), as_array("v_pages", v_pages)
    scales = {"k_scale": optional_array("k_scale", k_scale)}
    scales["v_scale"] = optional_array("v_scale", v_scale)
    if out is not None:
        inputs = {"q": q, "k_pages": k, "v_pages": v, **scales, "block_table": table}
        require_apart(out, {**inputs, "score": score})
    return _core.attention_paged(
        q, k, v, scales["k_scale"], scales["v_scale"], table, score, out, bool(return_lse)
    )
