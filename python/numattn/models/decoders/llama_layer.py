"""One layer of a decoder of Llama's family.

    h = norm(x)      q, k, v = h·Wqkvᵀ (+ bqkv)             one product for the three
    x = x + attention(rotate(q), rotate(k), v)·Woᵀ
    h = norm(x)      x = x + (activation(h·Wgateᵀ) ∘ h·Wupᵀ)·Wdownᵀ

Gemma-2 normalises what is added to x, too.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from numattn import Linear, apply_rope
from numattn._aligned import empty

from ..arrays import Float32Array
from ..files.checkpoint import Checkpoint
from ..files.storage import number_dtype
from ..norms import RmsNorm
from .llama_config import LlamaConfig
from .step import Step
from .wide_keys import wide_keys

Parameters: TypeAlias = tuple[NDArray[Any], Float32Array | None]


def read_norm(checkpoint: Checkpoint, name: str, config: LlamaConfig) -> RmsNorm:
    """Return the normalisation whose weight stands under `name` in the checkpoint."""
    weight = checkpoint.take(f"{name}.weight", (config.hidden_size,))
    if config.gemma:
        weight += 1
    return RmsNorm(weight, config.norm_eps)


class LlamaLayer:
    """Layer `number` of a decoder; its weights stored in `dtype`."""

    def __init__(
        self, checkpoint: Checkpoint, number: int, config: LlamaConfig, dtype: np.dtype[Any]
    ) -> None:
        name = f"layers.{number}"
        width, inner, size = config.hidden_size, config.ffn_size, config.head_size
        heads, kv_heads = config.num_heads, config.num_kv_heads

        def read(parts: dict[str, int], columns: int, bias: bool) -> Parameters:
            """Return weight and bias of several parts that read the same; of each, its rows."""
            names = {f"{name}.{part}": rows for part, rows in parts.items()}
            weight = checkpoint.take_joined(
                {f"{part}.weight": (rows, columns) for part, rows in names.items()},
                number_dtype(dtype),
            )
            if not bias:
                return weight, None
            return weight, checkpoint.take_joined(
                {f"{part}.bias": (rows,) for part, rows in names.items()}
            )

        rows = {"q": heads * size, "k": kv_heads * size, "v": kv_heads * size}
        qkv = {f"self_attn.{part}_proj": count for part, count in rows.items()}
        if config.joined:
            qkv = {"self_attn.qkv_proj": sum(rows.values())}
        weight, bias = read(qkv, width, config.qkv_bias)
        self.qkv = Linear(weight, bias, dtype=dtype)
        self.attention_norm = read_norm(checkpoint, f"{name}.input_layernorm", config)
        self.wide_keys: NDArray[np.bool_] | None = None
        if bias is not None:
            keys = slice(rows["q"], rows["q"] + rows["k"])
            gain, pairs = self.attention_norm.weight, config.rope.dim // 2
            self.wide_keys = wide_keys(weight[keys], bias[keys], gain, None, kv_heads, pairs)
        del weight
        self.output = Linear(
            *read({"self_attn.o_proj": width}, heads * size, config.output_bias), dtype=dtype
        )
        if config.joined:
            weight, bias = read({"mlp.gate_up_proj": 2 * inner}, width, config.ffn_bias)
            self.gate, self.up = (
                Linear(weight[half], None if bias is None else bias[half], dtype=dtype)
                for half in (slice(None, inner), slice(inner, None))
            )
            del weight
        else:
            self.gate, self.up = (
                Linear(*read({f"mlp.{part}_proj": inner}, width, config.ffn_bias), dtype=dtype)
                for part in ("gate", "up")
            )
        self.down = Linear(*read({"mlp.down_proj": width}, inner, config.ffn_bias), dtype=dtype)
        before_ffn = "pre_feedforward_layernorm" if config.gemma else "post_attention_layernorm"
        self.ffn_norm = read_norm(checkpoint, f"{name}.{before_ffn}", config)
        self.after_attention = self.after_ffn = None
        if config.gemma:
            self.after_attention = read_norm(checkpoint, f"{name}.post_attention_layernorm", config)
            self.after_ffn = read_norm(checkpoint, f"{name}.post_feedforward_layernorm", config)
        self.number, self.config = number, config

    def __call__(
        self, x: Float32Array, cos: Float32Array, sin: Float32Array, step: Step
    ) -> Float32Array:
        """Return the layer's result (B·S, E), in the memory of x."""
        config, threads = self.config, step.num_threads
        qkv = self.qkv(self.attention_norm(x, threads), num_threads=threads)
        heads = qkv.reshape(*step.positions.shape, -1, config.head_size)
        turning = heads[:, :, : config.num_heads + config.num_kv_heads]
        apply_rope(turning, cos, sin, layout="bshd", out=turning, num_threads=threads)
        joined = step.attend(
            self.number, heads, config.num_kv_heads, left=config.windows[self.number],
            scale=config.scale, softcap=config.score_softcap,
        )  # fmt: skip
        x = add(x, self.output, joined, self.after_attention, threads)
        h = self.ffn_norm(x, threads)
        up = self.up(h, num_threads=threads)
        inner = self.gate(h, activation=config.activation, factor=up, out=up, num_threads=threads)
        return add(x, self.down, inner, self.after_ffn, threads)


def add(
    x: Float32Array, linear: Linear, h: NDArray[Any], norm: RmsNorm | None, threads: int | None
) -> Float32Array:
    """Add the projection of h, normalised if there is a norm, to x in place."""
    if norm is None:
        return linear(h, residual=x, out=x, num_threads=threads)
    # Of x's dtype, whatever that of h is.
    x += norm(linear(h, out=empty(x.shape, x.dtype), num_threads=threads), threads)
    return x
