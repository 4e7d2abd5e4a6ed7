"""Attention over pages by way of a copy of them, row by row side by side."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from numattn.attention import Layout, attention

from .base import Array, Int64Array


def attention_over_pages(
    q: Array,
    k_pages: Array,
    v_pages: Array,
    block_table: NDArray[Any],
    kv_lens: Int64Array,
    *,
    layout: Layout = "bhsd",
    out: Array | None = None,
    **score: Any,
) -> Array:
    """Return attention of q to the tokens that a block table names.

    Parameters
    ----------
    q : array of shape (B, Hq, Sq, D), or (B, Sq, Hq, D) with layout "bshd"
    k_pages, v_pages : arrays of shape (P, page, Hkv, D) and (P, page, Hkv, Dv)
    block_table : int array of shape (B, n)
    kv_lens : int array of shape (B,)
    score
        The score arguments of :func:`numattn.attention`.
    """
    batch, blocks = block_table.shape

    def side_by_side(pages: Array) -> Array:
        tokens: Array = pages[block_table]  # (B, n, page, H, D)
        return tokens.reshape(batch, blocks * pages.shape[1], *pages.shape[2:])

    k, v = side_by_side(k_pages), side_by_side(v_pages)
    if layout == "bhsd":
        k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
    options: dict[str, Any] = {**score, "layout": layout, "out": out}
    result: Array = attention(q, k, v, kv_lens=kv_lens, **options)
    return result
