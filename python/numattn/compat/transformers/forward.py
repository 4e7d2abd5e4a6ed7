"""The attention function that transformers' models call."""

from __future__ import annotations

from typing import Any

from numattn import attention_varlen
from numattn.compat.torch.operators import Tensor, attend, refuse_gradients, weigh
from numattn.compat.transformers.rule_mask import rules_of


def attention_forward(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """Compute a model's attention.

    Parameters
    ----------
    module : torch.nn.Module
        The layer that asks; whether it is causal where ``is_causal`` is None.
    query : tensor of shape (B, Hq, Sq, D)
    key, value : tensors of shapes (B, Hkv, Sk, D) and (B, Hkv, Sk, Dv)
        Not repeated for grouped heads.
    attention_mask : tensor, optional
        What :func:`attention_mask` made, or any mask that broadcasts to (B, Hq, Sq, Sk): bool,
        True = may attend, or numbers that are added to scores. Where there is none, a causal
        layer is causal from the first key on.
    dropout : float
        Must be 0, as it is in evaluation.
    scaling, softcap, s_aux
        Scale, softcap and sinks.
    sliding_window : int, optional
        Not read: it is in the mask.
    position_bias : tensor, optional
        Added to the scores; broadcasts as a mask.
    **others
        With ``cu_seq_lens_q`` and ``cu_seq_lens_k``, the sequences that lie one after the other in
        a batch of one. With ``output_attentions``, weights are returned, too.

    Returns
    -------
    output : tensor of shape (B, Sq, Hq, Dv)
    weights : float32 tensor of shape (B, Hq, Sq, Sk), or None

    Raises
    ------
    RuntimeError
        A gradient would be needed.
    TypeError, ValueError
        As for :func:`numattn.attention`; or weights are to be dropped.
    """
    if dropout:
        raise ValueError(f"dropout must be 0, not {dropout}: call .eval() on the model")
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    score: dict[str, Any] = {"scale": scaling, "softcap": softcap, "sinks": s_aux}
    starts = others.get("cu_seq_lens_q")
    if starts is not None and len(query) == 1 and position_bias is None:
        return _packed(query, key, value, starts, others, bool(causal), sliding_window, score), None
    score |= _seen(attention_mask, causal, query.shape[2], key.shape[2], query.dtype)
    if position_bias is not None:
        position_bias = position_bias[..., : key.shape[2]]
        score["bias"] = score["bias"] + position_bias if "bias" in score else position_bias
    q, k, v = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    output = attend(q, k, v, layout="bshd", **score)
    weights = None
    if others.get("output_attentions"):
        weights = weigh(q, k, layout="bshd", **score).to(query.dtype)
    return output, weights


def _seen(mask: Tensor | None, causal: Any, queries: int, keys: int, dtype: Any) -> dict[str, Any]:
    """The arguments of numattn that say which keys each query sees."""
    if mask is None:
        return {"is_causal": bool(causal and queries > 1)}
    rules = rules_of(mask)
    if rules is not None and mask.shape[2:] == (queries, keys):
        return rules
    mask = mask[..., :keys]
    if not mask.dtype.is_floating_point:
        return {"mask": mask.bool()}
    return {"bias": mask if mask.dtype == dtype else mask.float()}


def _packed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    others: dict[str, Any],
    causal: bool,
    sliding_window: int | None,
    score: dict[str, Any],
) -> Tensor:
    """Sequences one after the other, as flash-attn has them: no mask is made for these."""
    import torch

    refuse_gradients(torch, (query, key, value, score["sinks"]))
    key_starts: Tensor = others.get("cu_seq_lens_k", starts)
    left = -1 if sliding_window is None else sliding_window - 1
    output = attention_varlen(
        query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1), starts,
        key_starts, is_causal=causal, q_offset=key_starts.diff() - starts.diff(),
        window=(left, -1 if causal else left), **score,
    )  # fmt: skip
    return output[None]
