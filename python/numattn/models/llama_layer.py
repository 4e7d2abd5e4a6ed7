"""One layer of a decoder of Llama's family.

    h = norm(x)      q, k, v = h·Wqkvᵀ (+ bqkv)             one product for the three
    x = x + attention(rotate(q), rotate(k), v)·Woᵀ
    h = norm(x)      x = x + (activation(h·Wgateᵀ) ∘ h·Wupᵀ)·Wdownᵀ

Gemma-2 normalises what is added to x, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numattn import Linear, rms_norm

from .bert_layer import Float32Array
from .checkpoint import Checkpoint
from .llama_config import LlamaConfig
from .rotary import rotate
from .step import Step


class Norm:
    """Normalisation with the weight that stands under `name` in the checkpoint."""

    def __init__(self, checkpoint: Checkpoint, name: str, config: LlamaConfig) -> None:
        self.weight = checkpoint.take(f"{name}.weight", (config.hidden_size,))
        if config.gemma:
            self.weight += 1
        self.eps = config.norm_eps

    def __call__(self, x: Float32Array, num_threads: int | None) -> Float32Array:
        """Return x normalised."""
        return rms_norm(x, self.weight, eps=self.eps, num_threads=num_threads)


class LlamaLayer:
    """Layer `number` of a decoder; its weights stored in `dtype`."""

    def __init__(
        self, checkpoint: Checkpoint, number: int, config: LlamaConfig, dtype: np.dtype[Any]
    ) -> None:
        name = f"layers.{number}"
        width, inner, size = config.hidden_size, config.ffn_size, config.head_size
        heads, kv_heads = config.num_heads, config.num_kv_heads

        def linear(parts: dict[str, int], columns: int, bias: bool) -> Linear:
            """Return one projection for several that read the same; the parts and their rows."""
            weights = [
                checkpoint.take(f"{name}.{part}.weight", (rows, columns))
                for part, rows in parts.items()
            ]
            biases = [
                checkpoint.take(f"{name}.{part}.bias", (rows,))
                for part, rows in parts.items()
                if bias
            ]
            return Linear(
                np.concatenate(weights), np.concatenate(biases) if bias else None, dtype=dtype
            )

        rows = {"q": heads * size, "k": kv_heads * size, "v": kv_heads * size}
        qkv = {f"self_attn.{part}_proj": count for part, count in rows.items()}
        self.qkv = linear(qkv, width, config.qkv_bias)
        self.output = linear({"self_attn.o_proj": width}, heads * size, config.output_bias)
        self.gate = linear({"mlp.gate_proj": inner}, width, config.ffn_bias)
        self.up = linear({"mlp.up_proj": inner}, width, config.ffn_bias)
        self.down = linear({"mlp.down_proj": width}, inner, config.ffn_bias)
        before_ffn = "pre_feedforward_layernorm" if config.gemma else "post_attention_layernorm"
        self.attention_norm = Norm(checkpoint, f"{name}.input_layernorm", config)
        self.ffn_norm = Norm(checkpoint, f"{name}.{before_ffn}", config)
        self.after_attention = self.after_ffn = None
        if config.gemma:
            self.after_attention = Norm(checkpoint, f"{name}.post_attention_layernorm", config)
            self.after_ffn = Norm(checkpoint, f"{name}.post_feedforward_layernorm", config)
        self.number, self.config = number, config

    def __call__(
        self, x: Float32Array, cos: Float32Array, sin: Float32Array, step: Step
    ) -> Float32Array:
        """Return the layer's result (B, S, E), in the memory of x."""
        config, threads = self.config, step.num_threads
        qkv = self.qkv(self.attention_norm(x, threads), num_threads=threads)
        heads = qkv.reshape(*x.shape[:2], -1, config.head_size)
        rotate(heads[:, :, : config.num_heads + config.num_kv_heads], cos, sin)
        joined = step.attend(
            self.number, heads, config.num_kv_heads, left=config.windows[self.number],
            scale=config.scale, softcap=config.score_softcap,
        )  # fmt: skip
        x = add(x, self.output, joined, self.after_attention, threads)
        h = self.ffn_norm(x, threads)
        inner = self.gate(h, activation=config.activation, num_threads=threads)
        inner *= self.up(h, num_threads=threads)
        return add(x, self.down, inner, self.after_ffn, threads)


def add(
    x: Float32Array, linear: Linear, h: Float32Array, norm: Norm | None, threads: int | None
) -> Float32Array:
    """Add the projection of h, normalised if there is a norm, to x in place."""
    if norm is None:
        return linear(h, residual=x, out=x, num_threads=threads)
    x += norm(linear(h, num_threads=threads), threads)
    return x
