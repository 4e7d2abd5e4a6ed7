"""One layer of a decoder of Llama's family.

    h = norm(x)      q, k, v = h·Wqkvᵀ (+ bqkv)             one product for the three
    x = x + attention(rotate(q), rotate(k), v)·Woᵀ
    h = norm(x)      x = x + (activation(h·Wgateᵀ) ∘ h·Wupᵀ)·Wdownᵀ        or experts

Gemma 2 and 3 normalise what is added to x, too, and OLMo 2 nothing else. Qwen 3, Gemma 3 and OLMo 2
normalise queries and keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from numattn import Linear, rms_norm
from numattn._steps import Steps

from ..arrays import Float32Array
from ..files.tensors import Tensors
from ..norms import RmsNorm
from .feed_forward import Addition
from .llama_config import LlamaConfig
from .llama_weights import Weights
from .projection import project, projection_of
from .step import Attending
from .wide_keys import wide_keys

Turn: TypeAlias = tuple[Float32Array, Float32Array]
"""Cosines and sines of the angles that heads turn by."""


@dataclass(frozen=True)
class HeadNorms:
    """The normalisation of queries and of keys."""

    queries: RmsNorm
    keys: RmsNorm

    def __call__(self, heads: Float32Array, counts: tuple[int, int], threads: int | None) -> None:
        """Normalise the queries and the keys of (..., Hq + 2·Hkv, D) in place.

        Each head by itself, or all of one token together, by the sizes of the weights.
        """
        end = 0
        for norm, count in zip((self.queries, self.keys), counts, strict=True):
            begin, end = end, end + count
            part = heads[..., begin:end, :]
            rows = part.reshape(*heads.shape[:-2], -1, norm.weight.size)
            part[...] = rms_norm(rows, norm.weight, eps=norm.eps, num_threads=threads).reshape(
                part.shape
            )


class LlamaLayer:
    """Layer `number` of a decoder; its weights stored as `storage` says."""

    def __init__(self, checkpoint: Tensors, number: int, config: LlamaConfig, storage: str) -> None:
        name, read = f"layers.{number}", Weights(checkpoint, config, storage)
        width, size, kv_heads = config.hidden_size, config.head_size, config.num_kv_heads
        rope = config.ropes[number]
        rows = {"q": config.num_heads * size, "k": kv_heads * size, "v": kv_heads * size}
        qkv = {f"{name}.self_attn.{part}_proj": count for part, count in rows.items()}
        if config.joined:
            qkv = {f"{name}.self_attn.qkv_proj": sum(rows.values())}
        first, after_attention, second, after_ffn = NORMS[config.norms]

        def norm(part: str | None) -> RmsNorm | None:
            return None if part is None else read.norm(f"{name}.{part}", width)

        self.attention_norm = norm(first)
        kept, bias = read.kept(qkv, width), read.biases(qkv, config.qkv_bias)
        gain: Float32Array | None = (
            None  # of what keys are made of, where a bias may make them wide
        )
        if bias is not None and config.head_norms is None and self.attention_norm is not None:
            gain = self.attention_norm.weight
        weight: Any = None
        if kept is None or gain is not None:
            weight = read.weight(qkv, width)
        self.qkv = (
            Linear(weight, bias, dtype=storage) if kept is None else projection_of(kept, bias)
        )
        self.wide_keys: NDArray[np.bool_] | None = None
        if bias is not None and gain is not None:
            keys = slice(rows["q"], rows["q"] + rows["k"])
            pairs = 0 if rope is None else rope.dim // 2
            self.wide_keys = wide_keys(weight[keys], bias[keys], gain, None, kv_heads, pairs)
        del weight
        self.head_norms: HeadNorms | None = None
        if config.head_norms is not None:
            sizes = [size, size] if config.head_norms == "each" else [rows["q"], rows["k"]]
            parts = (f"{name}.self_attn.{part}_norm" for part in ("q", "k"))
            self.head_norms = HeadNorms(*map(read.norm, parts, sizes))
        self.sinks: Float32Array | None = None
        if config.sinks:
            self.sinks = checkpoint.take(f"{name}.self_attn.sinks", (config.num_heads,))
        self.output = read.linear(f"{name}.self_attn.o_proj", width, rows["q"], config.output_bias)
        self.feed_forward = read.feed_forward(name)
        self.ffn_norm = norm(second)
        self.after_attention = Addition(norm(after_attention), config.residual_scale)
        self.after_ffn = Addition(norm(after_ffn), config.residual_scale)
        self.number, self.config = number, config

    def __call__(self, x: Float32Array, turn: Turn | None, step: Attending, steps: Steps) -> None:
        """Make the layer's result (B·S, E) of x, in its memory.

        What is computed behind attention is left among the steps.
        """
        config = self.config
        h = x if self.attention_norm is None else self.attention_norm.add_to(steps, x)
        qkv = project(steps, self.qkv, h)
        heads = qkv.reshape(*step.positions.shape, -1, config.head_size)
        if self.head_norms is not None:
            steps.run()
            self.head_norms(heads, (config.num_heads, config.num_kv_heads), step.num_threads)
        if turn is not None:
            steps.rope(heads[:, :, : config.num_heads + config.num_kv_heads], *turn)
        steps.run()
        joined = step.attend(
            self.number, heads, config.num_kv_heads, left=config.windows[self.number],
            scale=config.scale, softcap=config.score_softcap, sinks=self.sinks,
        )  # fmt: skip
        self.after_attention.product(steps, x, self.output, joined)
        h = x if self.ffn_norm is None else self.ffn_norm.add_to(steps, x)
        self.feed_forward.add(steps, x, h, self.after_ffn)


# Where a layer normalises → the names of its norms: before attention, after it, before the second
# half, after it.
NORMS: dict[str, tuple[str | None, str | None, str | None, str | None]] = {
    "before": ("input_layernorm", None, "post_attention_layernorm", None),
    "both": (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
    "after": (None, "post_attention_layernorm", None, "post_feedforward_layernorm"),
}
