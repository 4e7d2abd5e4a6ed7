"""flash-attn's attention over a cache that is written in place.

A cache's rows are read as pages are: row b of a batch is page ``cache_batch_idx[b]``, as long as
the cache. So no row is copied.
"""

from __future__ import annotations

from typing import Any

from numattn import apply_rope, attention_paged
from numattn.compat.torch.flash import sides_of
from numattn.compat.torch.operators import Tensor, refuse_gradients


def flash_attn_with_kvcache(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    k: Tensor | None = None,
    v: Tensor | None = None,
    rotary_cos: Tensor | None = None,
    rotary_sin: Tensor | None = None,
    cache_seqlens: Tensor | int | None = None,
    cache_batch_idx: Tensor | None = None,
    cache_leftpad: Tensor | None = None,
    block_table: Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    alibi_slopes: Tensor | None = None,
    num_splits: int = 0,
    return_softmax_lse: bool = False,
) -> Any:
    """Compute ``flash_attn.flash_attn_with_kvcache``.

    Parameters
    ----------
    q : tensor of shape (B, Sq, Hq, D)
        float32, float16 or bfloat16, in the CPU's memory.
    k_cache, v_cache : tensors of shapes (rows, S, Hkv, D) and (rows, S, Hkv, Dv)
        With ``block_table``, pages (P, page, Hkv, D) of any size.
    k, v : tensors of shapes (B, Snew, Hkv, D) and (B, Snew, Hkv, Dv), optional
        Written to the cache at positions cache_seqlens … before q attends.
    rotary_cos, rotary_sin : tensors of shape (positions, R), optional
        By which k is turned at the positions where it is written, and q: at the same if there is a
        causal order or a window, else all of it at the first of them.
    cache_seqlens : int or int tensor of shape (B,), optional
        How many tokens each row has; all of the cache by default.
    cache_batch_idx : int tensor of shape (B,), optional
        The cache's row for each row of q.
    cache_leftpad : int tensor of shape (B,), optional
        Where the tokens of each row begin.
    block_table : int tensor of shape (B, n), optional
        The pages of each row.
    rotary_interleaved : bool
        Whether pairs are neighbours or lie R apart.
    num_splits : int
        Not needed here.
    return_softmax_lse : bool
        Also return the log-sum-exp of each row, float32 (B, Hq, Sq).
    softmax_scale, causal, window_size, softcap, alibi_slopes
        As for :func:`flash_attn_func`; the last query is at the last position.

    Returns
    -------
    tensor of shape (B, Sq, Hq, Dv), q's dtype

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As for :func:`scaled_dot_product_attention`; or the new tokens have no room.
    """
    import torch

    refuse_gradients(torch, (q, k_cache, v_cache, k, v))
    if (k is None) != (v is None):
        raise ValueError("k and v must be given together")
    table = _table(torch, q, k_cache, cache_batch_idx, block_table)
    room = table.shape[1] * k_cache.shape[1]
    lengths = _per_row(torch, cache_seqlens, len(q), room)
    padding = _per_row(torch, cache_leftpad, len(q), 0)
    left, right = sides_of(window_size)
    if rotary_cos is not None:
        in_order = causal or (left, right) != (-1, -1)
        positions = lengths - padding
        q = _turned(torch, q, positions, in_order, rotary_cos, rotary_sin, rotary_interleaved)
        if k is not None:
            k = _turned(torch, k, positions, True, rotary_cos, rotary_sin, rotary_interleaved)
    if k is not None:
        _write(torch, (k_cache, v_cache), (k, v), table, lengths)
        lengths = lengths + k.shape[1]
    spans = None
    if cache_leftpad is not None:
        spans = (padding[:, None, None], lengths[:, None, None])
    return attention_paged(
        q, k_cache, v_cache, table, lengths, layout="bshd", is_causal=bool(causal),
        q_offset=lengths - q.shape[1], window=(left, right), scale=softmax_scale,
        softcap=softcap or None, alibi_slopes=alibi_slopes, return_lse=bool(return_softmax_lse),
        key_spans=spans,
    )  # fmt: skip


def _table(
    torch: Any, q: Tensor, k_cache: Tensor, rows: Tensor | None, block_table: Tensor | None
) -> Tensor:
    """The pages of each row of q, (B, n)."""
    if block_table is not None:
        if rows is not None:
            raise ValueError("cache_batch_idx must be None with a block_table")
        return block_table.long()
    if rows is None:
        if len(q) != len(k_cache):
            raise ValueError(
                f"k_cache has {len(k_cache)} rows and q {len(q)}: give cache_batch_idx"
            )
        rows = torch.arange(len(q))
    return rows.long().reshape(-1, 1)


def _per_row(torch: Any, given: Tensor | int | None, batch: int, default: int) -> Tensor:
    """A number for each row, (B,)."""
    if given is None or isinstance(given, int):
        return torch.full((batch,), default if given is None else given)
    return given.long().expand(batch)


def _turned(
    torch: Any,
    x: Tensor,
    first: Tensor,
    in_order: bool,
    cos: Tensor,
    sin: Tensor | None,
    interleaved: bool,
) -> Tensor:
    """Queries or keys turned by the angles of their positions."""
    if sin is None:
        raise ValueError("rotary_cos and rotary_sin must be given together")
    steps = torch.arange(x.shape[1]) if in_order else torch.zeros(x.shape[1], dtype=torch.long)
    positions = first[:, None] + steps
    return apply_rope(
        x, cos, sin, positions=positions, interleaved=bool(interleaved), layout="bshd"
    )


def _write(
    torch: Any,
    caches: tuple[Tensor, Tensor],
    new: tuple[Tensor, Tensor],
    table: Tensor,
    lengths: Tensor,
) -> None:
    """Put new tokens behind those that each row has."""
    page = caches[0].shape[1]
    positions = lengths[:, None] + torch.arange(new[0].shape[1])
    if positions.numel() and int(positions.max()) >= table.shape[1] * page:
        raise ValueError(
            f"the cache has room for {table.shape[1] * page} tokens a row, and k would be written "
            f"up to {int(positions.max()) + 1}"
        )
    pages = torch.gather(table, 1, positions // page)
    for cache, tokens in zip(caches, new, strict=True):
        cache[pages, positions % page] = tokens.to(cache.dtype)
