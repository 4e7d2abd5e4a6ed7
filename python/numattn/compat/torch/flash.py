"""flash-attn's functions over queries, keys and values (https://github.com/Dao-AILab/flash-attention).

Their words for ours: layout (B, S, H, D); ``causal`` and windows count positions from the end, as
flash-attn does since 2.1: ``q_offset = Sk − Sq``; ``softcap`` 0 is none.
"""

from __future__ import annotations

from typing import Any

from numattn import attention, attention_varlen
from numattn.compat.torch.operators import Tensor, attend, refuse_gradients


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Any:
    """Compute ``flash_attn.flash_attn_func``, without gradients.

    Parameters
    ----------
    q : tensor of shape (B, Sq, Hq, D)
        float32, float16 or bfloat16, in the CPU's memory; any strides.
    k, v : tensors of shapes (B, Sk, Hkv, D) and (B, Sk, Hkv, Dv)
        Hq is a multiple of Hkv.
    dropout_p : float
        Must be 0.
    softmax_scale : float, optional
        Default 1/√D.
    causal : bool
        Query i sees keys 0 … i + Sk − Sq (aligned bottom-right).
    window_size : (left, right)
        Query i sees keys i + Sk − Sq − left … i + Sk − Sq + right; −1 is no bound.
    softcap : float
        Scores become ``softcap · tanh(s / softcap)``; 0 is none.
    alibi_slopes : tensor of shape (Hq,) or (B, Hq), optional
        Adds ``−slope · |i + Sk − Sq − j|``.
    deterministic : bool
        Results always are.
    return_attn_probs : bool
        Also return the log-sum-exp of each row, and None for what flash-attn has for its tests.

    Returns
    -------
    out : tensor of shape (B, Sq, Hq, Dv), q's dtype
    softmax_lse : float32 tensor of shape (B, Hq, Sq)
        With ``return_attn_probs=True``.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As for :func:`scaled_dot_product_attention`.
    """
    refuse_dropout(dropout_p)
    left, right = sides_of(window_size)
    score: dict[str, Any] = {
        "is_causal": bool(causal), "q_offset": k.shape[1] - q.shape[1], "left": left,
        "right": right, "scale": softmax_scale, "softcap": softcap or None,
        "alibi_slopes": alibi_slopes, "layout": "bshd",
    }  # fmt: skip
    if not return_attn_probs:
        return attend(q, k, v, **score)
    import torch

    refuse_gradients(torch, (q, k, v))
    del score["left"], score["right"]
    out, lse = attention(q, k, v, window=(left, right), return_lse=True, **score)
    return out, lse, None


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: Tensor | None = None,
) -> Any:
    """Compute ``flash_attn.flash_attn_varlen_func``, without gradients.

    Parameters
    ----------
    q : tensor of shape (total queries, Hq, D)
    k, v : tensors of shapes (total keys, Hkv, D) and (total keys, Hkv, Dv)
    cu_seqlens_q, cu_seqlens_k : int tensors of shape (N + 1,)
        Prefix sums of the lengths of N sequences.
    max_seqlen_q, max_seqlen_k : int
        Not needed here.
    alibi_slopes : tensor of shape (Hq,), optional
    block_table : None
        Keys in pages are :func:`flash_attn_with_kvcache`'s.
    dropout_p, softmax_scale, causal, window_size, softcap, deterministic, return_attn_probs
        As for :func:`flash_attn_func`, within each sequence.

    Returns
    -------
    out : tensor of shape (total queries, Hq, Dv), q's dtype
    softmax_lse : float32 tensor of shape (Hq, total queries)
        With ``return_attn_probs=True``, and None besides.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As for :func:`scaled_dot_product_attention`.
    """
    import torch

    refuse_dropout(dropout_p)
    refuse_gradients(torch, (q, k, v))
    if block_table is not None:
        raise ValueError("block_table must be None here: give flash_attn_with_kvcache the pages")
    lengths_q, lengths_k = cu_seqlens_q.diff(), cu_seqlens_k.diff()
    if lengths_q.shape != lengths_k.shape:
        raise ValueError(
            f"cu_seqlens_q and cu_seqlens_k must be of as many sequences, not "
            f"{len(lengths_q)} and {len(lengths_k)}"
        )
    result = attention_varlen(
        q, k, v, cu_seqlens_q, cu_seqlens_k, is_causal=bool(causal),
        q_offset=lengths_k - lengths_q, window=sides_of(window_size), scale=softmax_scale,
        softcap=softcap or None, alibi_slopes=alibi_slopes, return_lse=bool(return_attn_probs),
    )  # fmt: skip
    return (*result, None) if return_attn_probs else result


def refuse_dropout(dropout_p: float) -> None:
    """Raise ValueError where weights are to be dropped."""
    if dropout_p != 0:
        raise ValueError(f"dropout_p must be 0, not {dropout_p}: numattn is for inference")


def sides_of(window_size: Any) -> tuple[int, int]:
    """Left and right of a window; whatever is negative is no bound."""
    try:
        left, right = (max(int(side), -1) for side in window_size)
    except (TypeError, ValueError):
        raise ValueError(f"window_size must be a pair (left, right), not {window_size!r}") from None
    return left, right
