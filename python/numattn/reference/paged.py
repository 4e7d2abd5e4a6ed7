"""Attention over pages, and integers as numbers, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .attention import attention


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
    layout: str = "bhsd",
    return_lse: bool = False,
    **score: Any,
) -> Any:
    """Lay the tokens of each entry side by side, and attend to them: :func:`attention`.

    Parameters
    ----------
    q : array (B, Hq, Sq, D)
    k_pages, v_pages : arrays (P, page, Hkv, D) and (P, page, Hkv, Dv)
    block_table : int array (B, n)
    kv_lens : int array (B,)
    k_scale, v_scale : arrays (P, page, Hkv), optional
    k_wide : int array (Hkv, E), optional
    layout : {"bhsd", "bshd"}
    return_lse : bool
    **score
        As for :func:`attention`.

    Returns
    -------
    float64 array (B, Hq, Sq, Dv) in the layout of q; with `return_lse` also (B, Hq, Sq)

    Examples
    --------
    >>> import numpy as np
    >>> pages = np.ones((4, 2, 1, 8))
    >>> attention_paged(np.ones((1, 1, 3, 8)), pages, pages, [[2, 0]], [3]).shape
    (1, 1, 3, 8)
    """
    table = np.asarray(block_table)
    # Where the table need not name a page, kv_lens hides what stands in for it.
    table = np.where((table >= 0) & (table < len(np.asarray(k_pages))), table, 0)

    def side_by_side(pages: ArrayLike, scale: ArrayLike | None) -> Any:
        pool = np.asarray(pages).astype(np.float64)
        if scale is not None:
            pool = pool * np.asarray(scale).astype(np.float64)[..., np.newaxis]
        tokens = pool[table].reshape(len(table), -1, *pool.shape[2:])
        return tokens if layout == "bshd" else tokens.swapaxes(1, 2)

    return attention(
        q,
        side_by_side(k_pages, k_scale),
        side_by_side(v_pages, v_scale),
        k_wide=k_wide,
        kv_lens=kv_lens,
        layout=layout,
        return_lse=return_lse,
        **score,
    )
