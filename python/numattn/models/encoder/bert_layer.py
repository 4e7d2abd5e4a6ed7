"""One layer of a BERT encoder, and the arrays it works in.

    q, k, v = x·Wqkvᵀ + bqkv                             one product for the three
    x = norm(attention(q, k, v)·Woᵀ + bo + x)
    x = norm(activation(x·Wupᵀ + bup)·Wdownᵀ + bdown + x)

x holds the tokens of all sequences, one after the other. It is overwritten where it stands: the sum
is added to it, and the norm is taken in place. x is float32; what passes between two products has
the dtype in which the weights are stored (float32 if that is int8), so that the second reads it
where the first left it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from numattn._aligned import empty
from numattn._steps import Steps

from ..arrays import Float32Array
from ..files.checkpoint import Checkpoint
from ..ragged import Ragged
from .attend import attend
from .bert_config import BertConfig
from .config import EncoderConfig
from .parts import read_linear, read_norm


@dataclass(frozen=True)
class LayerNames:
    """What a family calls the tensors of a layer, behind the name of the layer."""

    query: str
    key: str
    value: str
    output: str
    output_norm: str
    up: str
    down: str
    down_norm: str


BERT_LAYER = LayerNames(
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)


class Workspace:
    """The activations of a call over T tokens, (T, ...), which every layer overwrites.

    x goes from layer to layer, float32. qkv and context are used up when the feed-forward part
    begins, so `inner` lies over them; all three have the dtype given. bias (H, S, S) is what is
    added to scores in every layer.
    """

    def __init__(self, tokens: int, config: EncoderConfig, dtype: np.dtype[Any]) -> None:
        width = config.hidden_size
        heads = (config.num_heads, config.head_size)
        self.x = empty((tokens, width), np.float32)
        wide = empty((tokens * max(4 * width, config.ffn_size),), dtype)
        self.qkv = wide[: tokens * 3 * width].reshape(tokens, 3 * width)
        split = self.qkv.reshape(tokens, 3, *heads)
        self.query, self.key, self.value = split[:, 0], split[:, 1], split[:, 2]
        self.context = wide[tokens * 3 * width : tokens * 4 * width].reshape(self.x.shape)
        self.context_heads = self.context.reshape(tokens, *heads)
        self.inner = wide[: tokens * config.ffn_size].reshape(tokens, config.ffn_size)
        self.bias: Float32Array | None = None


class Layer:
    """One encoder layer, in two steps: `project`, then `finish`; stored as `storage` says."""

    window: int | None = None  # how far a token sees; None for everything

    def __init__(
        self,
        checkpoint: Checkpoint,
        name: str,
        names: LayerNames,
        config: BertConfig,
        storage: str,
    ) -> None:
        width, ffn_size, eps = config.hidden_size, config.ffn_size, config.layer_norm_eps
        three = [f"{name}.{part}" for part in (names.query, names.key, names.value)]
        self.qkv = read_linear(checkpoint, three, width, width, storage)
        self.output = read_linear(checkpoint, [f"{name}.{names.output}"], width, width, storage)
        self.output_norm = read_norm(checkpoint, f"{name}.{names.output_norm}", width, eps)
        self.up = read_linear(checkpoint, [f"{name}.{names.up}"], ffn_size, width, storage)
        self.down = read_linear(checkpoint, [f"{name}.{names.down}"], width, ffn_size, storage)
        self.down_norm = read_norm(checkpoint, f"{name}.{names.down_norm}", width, eps)
        self.activation = config.activation

    def project(self, work: Workspace, steps: Steps) -> None:
        """Compute work.query, work.key and work.value from work.x."""
        steps.linear(self.qkv, work.x, out=work.qkv)

    def finish(self, work: Workspace, sequences: Ragged, steps: Steps) -> None:
        """Compute the layer's result from its projections and work.x, into work.x."""
        x, inner = work.x, work.inner
        attend(
            *(steps, work.query, work.key, work.value, sequences, work.context_heads),
            bias=work.bias,
        )
        steps.linear(self.output, work.context, residual=x, out=x)
        self.output_norm.add_to(steps, x, out=x)
        steps.linear(self.up, x, activation=self.activation, out=inner)
        steps.linear(self.down, inner, residual=x, out=x)
        self.down_norm.add_to(steps, x, out=x)
