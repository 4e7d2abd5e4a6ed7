"""PyTorch's ``scaled_dot_product_attention`` on top of `numattn.attention`."""

from __future__ import annotations

from typing import Any

from numattn.compat.torch.operators import Tensor, attend


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute ``torch.nn.functional.scaled_dot_product_attention``, without gradients.

    Parameters
    ----------
    query : tensor of shape (..., Hq, L, E)
        float32, float16 or bfloat16, in the CPU's memory; any strides.
    key, value : tensors of shapes (..., H, S, E) and (..., H, S, Ev)
        Batch axes are as query's, or 1.
    attn_mask : tensor, optional
        bool, True = may attend, or numbers that are added to scores; broadcast to (..., Hq, L, S)
        and never expanded.
    dropout_p : float
        Must be 0.
    is_causal : bool
        Query i sees keys 0 … i (aligned top-left); there is no ``attn_mask`` then.
    scale : float, optional
        Default 1/√E.
    enable_gqa : bool
        Hq may be a multiple of H: query head h reads key head h // (Hq // H). Nothing is repeated.

    Returns
    -------
    tensor of shape (..., Hq, L, Ev)
        query's dtype. A row that may attend nothing is 0.

    Raises
    ------
    RuntimeError
        A gradient would be needed.
    TypeError
        Dtypes do not agree or are others, or a tensor is not in the CPU's memory.
    ValueError
        Shapes do not fit, dropout is asked for, or is_causal with a mask.
    """
    if dropout_p != 0:
        raise ValueError(f"dropout_p must be 0, not {dropout_p}: numattn is for inference")
    if is_causal and attn_mask is not None:
        raise ValueError("attn_mask must be None with is_causal=True")
    if query.ndim < 2 or not query.ndim == key.ndim == value.ndim:
        raise ValueError(
            "query, key and value must have as many axes, two or more, not shapes "
            f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}"
        )
    if query.ndim == 2:
        one_head = (x.unsqueeze(0) for x in (query, key, value))
        return attend(*one_head, **_score(attn_mask, is_causal, scale)).squeeze(0)
    heads, kv_heads = query.shape[-3], key.shape[-3]
    if heads != kv_heads and not enable_gqa:
        if heads == 1:
            query = query.expand(*query.shape[:-3], kv_heads, *query.shape[-2:])
        elif kv_heads != 1:
            raise ValueError(
                f"query has {heads} heads and key {kv_heads}: give enable_gqa=True for heads that "
                "share keys"
            )
    if value.shape[-3] != kv_heads:
        raise ValueError(f"key has {kv_heads} heads and value {value.shape[-3]}")
    return attend(query, key, value, **_score(attn_mask, is_causal, scale))


def _score(attn_mask: Tensor | None, is_causal: bool, scale: float | None) -> dict[str, Any]:
    """The score's arguments; what is dense over keys has the axes (L, S) at least."""
    if attn_mask is None:
        return {"is_causal": is_causal, "scale": scale}
    import torch

    return {"mask" if attn_mask.dtype == torch.bool else "bias": attn_mask, "scale": scale}
