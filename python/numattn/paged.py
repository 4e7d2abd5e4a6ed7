"""Attention over keys and values that lie in pages of a pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from numattn import _core
from numattn._arguments import (
    as_array,
    as_output,
    channel_table,
    flag,
    in_kind_of,
    integers,
    layout_name,
    optional_array,
    precision_name,
    thread_count,
)
from numattn._memory import require_apart
from numattn._names import Layout, Output, Precision
from numattn._score import PagedScore, Score, require_known, spelled_out

if TYPE_CHECKING:
    from typing_extensions import Unpack


@spelled_out(PagedScore)
def attention_paged(
    q: ArrayLike,
    k_pages: ArrayLike,
    v_pages: ArrayLike,
    block_table: ArrayLike,
    kv_lens: ArrayLike,
    *,
    k_scale: ArrayLike | None = None,
    v_scale: ArrayLike | None = None,
    k_wide: ArrayLike | None = None,
    layout: Layout = "bhsd",
    precision: Precision = "highest",
    out: Output | None = None,
    return_lse: bool = False,
    num_threads: int | None = None,
    **score: Unpack[PagedScore],
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
    layout, precision, **score
        As for :func:`numattn.attention`, with n · page for Sk.
    k_scale, v_scale : float32 arrays of shape (P, page, Hkv), optional
        For pages of dtype int8: what their integers are to be multiplied by.
    k_wide : int array of shape (Hkv, E), optional
        For k_pages of dtype int8 and width D + E: as for :func:`numattn.attention`.
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
    require_known("attention_paged", score, PagedScore)
    rules = Score.of(kv_lens=kv_lens, **score)
    table = integers("block_table", block_table)
    if table.ndim != 2:
        raise ValueError(f"block_table must have shape (B, n), not {table.shape}")
    model = q
    q, k, v = as_array("q", q), as_array("k_pages", k_pages), as_array("v_pages", v_pages)
    k_factor, v_factor = optional_array("k_scale", k_scale), optional_array("v_scale", v_scale)
    wide = channel_table("k_wide", k_wide)
    written = None if out is None else as_output(out)
    if written is not None:
        pages = {"k_pages": k, "v_pages": v, "k_scale": k_factor, "v_scale": v_factor}
        tables = {"k_wide": wide, "block_table": table}
        require_apart(written, {"q": q, **pages, **tables, "score": rules})
    result = _core.attention_paged(
        q, k, v, k_factor, v_factor, wide, table, rules, layout_name(layout),
        precision_name(precision), thread_count(num_threads), written,
        flag("return_lse", return_lse),
    )  # fmt: skip
    return in_kind_of(model, result, out)
