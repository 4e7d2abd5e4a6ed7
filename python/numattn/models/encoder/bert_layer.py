"""One layer of a BERT encoder, and the arrays it works in.

    q, k, v = x·Wqkvᵀ + bqkv                             one product for the three
    x = norm(attention(q, k, v)·Woᵀ + bo + x)
    x = norm(activation(x·Wupᵀ + bup)·Wdownᵀ + bdown + x)

x is overwritten where it stands: the sum is added to it, and the norm is taken in place. x is
float32; what passes between two products has the dtype in which the weights are stored (float32 if
that is int8), so that the second reads it where the first left it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from numattn import Linear, attention

from ..arrays import Int64Array
from ..files.checkpoint import Checkpoint
from ..files.storage import number_dtype
from ..norms import LayerNorm
from .bert_config import BertConfig

PROJECTIONS = ("query", "key", "value")


class Workspace:
    """The activations of one call, (B, S, ...), which every layer overwrites.

    x goes from layer to layer, float32. qkv and context are used up when the feed-forward part
    begins, so `inner` lies over them; all three have the dtype given.
    """

    def __init__(self, batch: int, length: int, config: BertConfig, dtype: np.dtype[Any]) -> None:
        tokens, width = batch * length, config.hidden_size
        heads = (config.num_heads, config.head_size)
        self.x = np.empty((batch, length, width), dtype=np.float32)
        wide = np.empty(tokens * max(4 * width, config.ffn_size), dtype=dtype)
        self.qkv = wide[: tokens * 3 * width].reshape(batch, length, 3 * width)
        split = self.qkv.reshape(batch, length, 3, *heads)
        self.query, self.key, self.value = split[:, :, 0], split[:, :, 1], split[:, :, 2]
        self.context = wide[tokens * 3 * width : tokens * 4 * width].reshape(self.x.shape)
        self.context_heads = self.context.reshape(batch, length, *heads)
        self.inner = wide[: tokens * config.ffn_size].reshape(batch, length, config.ffn_size)


def read_norm(checkpoint: Checkpoint, name: str, config: BertConfig) -> LayerNorm:
    """Return the normalisation whose parameters stand under `name` in the checkpoint."""
    shape = (config.hidden_size,)
    weight, bias = (checkpoint.take(f"{name}.{part}", shape) for part in ("weight", "bias"))
    return LayerNorm(weight, bias, config.layer_norm_eps)


class Layer:
    """One encoder layer, in two steps: `project`, then `finish`; its weights stored in `dtype`."""

    def __init__(
        self, checkpoint: Checkpoint, name: str, config: BertConfig, dtype: np.dtype[Any]
    ) -> None:
        width, ffn_size = config.hidden_size, config.ffn_size

        def linear(parts: Sequence[str], rows: int, columns: int) -> Linear:
            """Return one projection for parts that read the same."""
            names = [f"{name}.{part}" for part in parts]
            weight = checkpoint.take_joined(
                {f"{part}.weight": (rows, columns) for part in names}, number_dtype(dtype)
            )
            bias = checkpoint.take_joined({f"{part}.bias": (rows,) for part in names})
            return Linear(weight, bias, dtype=dtype)

        self.qkv = linear([f"attention.self.{part}" for part in PROJECTIONS], width, width)
        self.output = linear(["attention.output.dense"], width, width)
        self.output_norm = read_norm(checkpoint, f"{name}.attention.output.LayerNorm", config)
        self.up = linear(["intermediate.dense"], ffn_size, width)
        self.down = linear(["output.dense"], width, ffn_size)
        self.down_norm = read_norm(checkpoint, f"{name}.output.LayerNorm", config)
        self.activation = config.activation

    def project(self, work: Workspace, num_threads: int | None) -> None:
        """Compute work.query, work.key and work.value from work.x."""
        self.qkv(work.x, out=work.qkv, num_threads=num_threads)

    def finish(self, work: Workspace, lengths: Int64Array | None, num_threads: int | None) -> None:
        """Compute the layer's result from its projections and work.x, into work.x."""
        x, inner = work.x, work.inner
        attention(
            work.query,
            work.key,
            work.value,
            kv_lens=lengths,
            layout="bshd",
            out=work.context_heads,
            num_threads=num_threads,
        )
        self.output(work.context, residual=x, out=x, num_threads=num_threads)
        self.output_norm(x, num_threads, out=x)
        self.up(x, activation=self.activation, out=inner, num_threads=num_threads)
        self.down(inner, residual=x, out=x, num_threads=num_threads)
        self.down_norm(x, num_threads, out=x)
