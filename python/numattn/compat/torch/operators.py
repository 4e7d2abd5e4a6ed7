"""Attention over tensors: by numattn itself, or where torch compiles, as an operator of torch's.

An operator takes tensors and numbers alone, so what a call may have has names of its own there:
``key_begin`` and ``key_end`` for key_spans, ``left`` and ``right`` for the window. Both ways take
these same names.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

from numattn import attention, attention_weights

Tensor: TypeAlias = Any
"""A torch.Tensor; torch may be missing when types are checked."""

SCORE = (
    "*, Tensor? mask=None, Tensor? bias=None, bool is_causal=False, Tensor? q_offset=None, "
    "int left=-1, int right=-1, Tensor? key_begin=None, Tensor? key_end=None, float? scale=None, "
    "float? softcap=None, Tensor? kv_lens=None, Tensor? alibi_slopes=None, Tensor? sinks=None, "
    'str layout="bhsd"'
)


def attend(q: Tensor, k: Tensor, v: Tensor, **score: Any) -> Tensor:
    """Attention, in the layout of q.

    Raises
    ------
    RuntimeError
        A gradient would be needed.
    """
    import torch

    refuse_gradients(torch, (q, k, v, score.get("bias"), score.get("sinks")))
    if torch.compiler.is_compiling():
        return torch.ops.numattn.attention(q, k, v, **_as_tensors(torch, score))
    return _attention(q, k, v, **score)


def weigh(q: Tensor, k: Tensor, **score: Any) -> Tensor:
    """The probabilities of all heads, (B, Hq, Sq, Sk) in float32."""
    import torch

    refuse_gradients(torch, (q, k, score.get("bias"), score.get("sinks")))
    if torch.compiler.is_compiling():
        return torch.ops.numattn.attention_weights(q, k, **_as_tensors(torch, score))
    return _weights(q, k, **score)


def refuse_gradients(torch: Any, tensors: tuple[Tensor | None, ...]) -> None:
    """Raise RuntimeError where autograd would record a call."""
    if not torch.is_grad_enabled():
        return
    for tensor in tensors:
        if tensor is not None and tensor.requires_grad:
            raise RuntimeError(
                "numattn computes no gradients: call it under torch.no_grad() or "
                "torch.inference_mode(), or give tensors that do not require any (.detach())"
            )


def _as_tensors(torch: Any, score: dict[str, Any]) -> dict[str, Any]:
    offset = score.get("q_offset")
    if isinstance(offset, int):
        score = {**score, "q_offset": torch.full((1,), offset) if offset else None}
    return score


def _attention(q: Tensor, k: Tensor, v: Tensor, **score: Any) -> Tensor:
    return attention(q, k, v, **_in_our_names(score))


def _weights(q: Tensor, k: Tensor, **score: Any) -> Tensor:
    return attention_weights(q, k, **_in_our_names(score))


def _in_our_names(score: dict[str, Any]) -> dict[str, Any]:
    """The arguments of numattn's functions; what is None is left out."""
    given = {name: value for name, value in score.items() if value is not None}
    left, right = given.pop("left", -1), given.pop("right", -1)
    if (left, right) != (-1, -1):
        given["window"] = (left, right)
    if "key_begin" in given:
        given["key_spans"] = (given.pop("key_begin"), given.pop("key_end"))
    offset: Any = given.get("q_offset", 0)
    if not isinstance(offset, int) and offset.numel() == 1:  # one for all entries
        given["q_offset"] = int(offset)
    return given


@cache
def registered() -> None:
    """Register the operators, once.

    Raises
    ------
    ImportError
        torch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise ImportError("numattn.compat.torch needs torch: pip install torch") from None

    library = torch.library
    library.define("numattn::attention", f"(Tensor q, Tensor k, Tensor v, {SCORE}) -> Tensor")
    library.define("numattn::attention_weights", f"(Tensor q, Tensor k, {SCORE}) -> Tensor")
    library.impl("numattn::attention", "CPU", _attention)
    library.impl("numattn::attention_weights", "CPU", _weights)

    def fake_attention(q: Tensor, k: Tensor, v: Tensor, **score: Any) -> Tensor:
        return q.new_empty((*q.shape[:-1], v.shape[-1]))

    def fake_weights(q: Tensor, k: Tensor, **score: Any) -> Tensor:
        heads, length = (-2, -3) if score.get("layout") == "bshd" else (-3, -2)
        shape = (*q.shape[:-3], q.shape[heads], q.shape[length], k.shape[length])
        return q.new_empty(shape, dtype=torch.float32)

    library.register_fake("numattn::attention", fake_attention)
    library.register_fake("numattn::attention_weights", fake_weights)
