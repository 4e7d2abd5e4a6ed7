"""One layer of a vision transformer, or of the text beside it, and the arrays it works in.

    q, k, v = norm1(x)·Wqkvᵀ + bqkv                      one product for the three
    x = x + λ1 · (attention(q, k, v)·Woᵀ + bo)
    x = x + λ2 · (activation(norm2(x)·Wupᵀ + bup)·Wdownᵀ + bdown)

λ1 and λ2 (DINOv2's layer scale, else 1) are multiplied into the rows of Wo and Wdown when these
are read. So is the c of an activation ``activation(c·x) / c``: c into Wup, 1 / c into Wdown. With
SwiGLU the third line has silu(norm2(x)·Wgateᵀ) · (norm2(x)·Wupᵀ) in the middle.

x holds the tokens of all sequences, one after the other, float32, and is overwritten where it
stands; what passes between two products has the dtype in which the weights are stored (float32 if
that is int8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from numattn import Linear
from numattn._aligned import empty
from numattn._steps import Steps

from ..arrays import Float32Array
from ..files.checkpoint import Checkpoint
from ..files.storage import number_dtype
from ..norms import LayerNorm
from ..ragged import Ragged
from .tower_config import TowerConfig


@dataclass(frozen=True)
class LayerNames:
    """What a family calls the parts of a layer, under the layer's own name."""

    stem: str
    """Of the layers: "<stem>.<number>"."""
    qkv: tuple[str, str, str]
    output: str
    norm1: str
    norm2: str
    up: str
    """With SwiGLU, of gate and up one below the other."""
    down: str
    scale1: str = ""
    scale2: str = ""


class Workspace:
    """The activations of a call over T tokens, (T, ...), which every layer overwrites."""

    def __init__(self, tokens: int, config: TowerConfig, dtype: np.dtype[Any]) -> None:
        width = config.hidden_size
        heads = (config.num_heads, config.head_size)
        self.x = empty((tokens, width), np.float32)
        self.normed = empty((tokens, width), np.float32)
        # qkv and context are used up when the feed-forward part begins.
        wide = empty((tokens * max(4 * width, config.ffn_size),), dtype)
        self.qkv = wide[: tokens * 3 * width].reshape(tokens, 3 * width)
        split = self.qkv.reshape(tokens, 3, *heads)
        self.query, self.key, self.value = split[:, 0], split[:, 1], split[:, 2]
        self.context = wide[tokens * 3 * width : tokens * 4 * width].reshape(self.x.shape)
        self.context_heads = self.context.reshape(tokens, *heads)
        self.inner = wide[: tokens * config.ffn_size].reshape(tokens, config.ffn_size)


def read_norm(checkpoint: Checkpoint, name: str, config: TowerConfig) -> LayerNorm:
    """Return the normalisation whose parameters stand under `name` in the checkpoint."""
    shape = (config.hidden_size,)
    weight, bias = (checkpoint.take(f"{name}.{part}", shape) for part in ("weight", "bias"))
    return LayerNorm(weight, bias, config.layer_norm_eps)


def read_linear(
    checkpoint: Checkpoint,
    names: Sequence[str],
    shape: tuple[int, int],
    storage: str,
    *,
    bias: bool = True,
    factor: Float32Array | float = 1.0,
    share: float = 1.0,
) -> Linear:
    """Return one projection for parts of one shape that read the same.

    What it gives, feature by feature, is multiplied by `factor`; what it reads, by `share`.
    """
    scaled = isinstance(factor, np.ndarray) or factor != 1.0 or share != 1.0
    number = np.dtype(np.float32) if scaled else number_dtype(storage)
    weight = checkpoint.take_joined({f"{name}.weight": shape for name in names}, number)
    added = None
    if bias:
        added = checkpoint.take_joined({f"{name}.bias": shape[:1] for name in names})
    if scaled:
        weight *= np.asarray(factor * np.float32(share), np.float32).reshape(-1, 1)
        if added is not None:
            added *= np.asarray(factor, np.float32)
    return Linear(weight, added, dtype=storage)


class FeedForward:
    """``down(activation(up(x)))``, or SwiGLU."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        up: str,
        down: str,
        config: TowerConfig,
        storage: str,
        factor: Float32Array | float = 1.0,
    ) -> None:
        width, ffn_size, scale = config.hidden_size, config.ffn_size, config.activation_scale
        self.activation = config.activation
        self.gate = None
        if config.gated:
            weight = checkpoint.take(f"{up}.weight", (2 * ffn_size, width))
            bias = checkpoint.take(f"{up}.bias", (2 * ffn_size,))
            self.gate = Linear(weight[:ffn_size], bias[:ffn_size], dtype=storage)
            self.up = Linear(weight[ffn_size:], bias[ffn_size:], dtype=storage)
        else:
            self.up = read_linear(checkpoint, [up], (ffn_size, width), storage, factor=scale)
        self.down = read_linear(
            checkpoint, [down], (width, ffn_size), storage, factor=factor, share=1 / scale
        )

    def __call__(
        self,
        x: Float32Array,
        inner: Any,
        residual: Float32Array,
        out: Float32Array,
        steps: Steps,
    ) -> None:
        """Compute the part's result from x (T, E), plus the residual, into `out`."""
        if self.gate is None:
            steps.linear(self.up, x, activation=self.activation, out=inner)
        else:
            steps.linear(self.gate, x, activation="silu", factor=self.up, out=inner)
        steps.linear(self.down, inner, residual=residual, out=out)


class Layer:
    """One layer, in two steps: `project`, then `finish`; its weights stored as `storage` says."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        number: int,
        names: LayerNames,
        config: TowerConfig,
        storage: str,
        is_causal: bool,
    ) -> None:
        width, name = config.hidden_size, f"{names.stem}.{number}"
        scale1: Float32Array | float = 1.0
        scale2: Float32Array | float = 1.0
        if config.layer_scale:
            scale1 = checkpoint.take(f"{name}.{names.scale1}", (width,))
            scale2 = checkpoint.take(f"{name}.{names.scale2}", (width,))
        self.norm1 = read_norm(checkpoint, f"{name}.{names.norm1}", config)
        self.norm2 = read_norm(checkpoint, f"{name}.{names.norm2}", config)
        parts = [f"{name}.{part}" for part in names.qkv]
        self.qkv = read_linear(checkpoint, parts, (width, width), storage, bias=config.qkv_bias)
        self.output = read_linear(
            checkpoint, [f"{name}.{names.output}"], (width, width), storage, factor=scale1
        )
        self.feed_forward = FeedForward(
            checkpoint, f"{name}.{names.up}", f"{name}.{names.down}", config, storage, scale2
        )
        self.is_causal = is_causal

    def project(self, work: Workspace, steps: Steps) -> None:
        """Compute work.query, work.key and work.value from work.x."""
        self.norm1.add_to(steps, work.x, out=work.normed)
        steps.linear(self.qkv, work.normed, out=work.qkv)

    def finish(self, work: Workspace, sequences: Ragged, steps: Steps) -> None:
        """Compute the layer's result from its projections and work.x, into work.x."""
        steps.attention_varlen(
            *(work.query, work.key, work.value, sequences.starts, work.context_heads),
            is_causal=self.is_causal,
        )
        steps.linear(self.output, work.context, residual=work.x, out=work.x)
        self.norm2.add_to(steps, work.x, out=work.normed)
        self.feed_forward(work.normed, work.inner, work.x, work.x, steps)
