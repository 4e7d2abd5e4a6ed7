"""One layer of an encoder with rotary positions and a gated feed-forward part.

    h = norm(x)      q, k, v = h·Wqkvᵀ                  one product for the three
    x = x + attention(rotate(q), rotate(k), v)·Woᵀ
    h = norm(x)      x = x + (activation(h·Wgateᵀ) ∘ h·Wupᵀ)·Wdownᵀ

as ModernBERT has it; or, where norms come after the sums, h is x and x is what the norm makes of
each sum. x is float32, and overwritten where it stands, as in bert_layer.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from numattn import Linear
from numattn._aligned import empty
from numattn._steps import Steps
from numattn.position import Rope

from ..arrays import Float32Array
from ..files.checkpoint import Checkpoint
from ..files.storage import number_dtype
from ..norms import LayerNorm
from ..ragged import Ragged
from .attend import attend
from .bert_layer import Workspace
from .config import EncoderConfig
from .parts import read_linear, read_norm


@dataclass(frozen=True)
class RotaryNames:
    """What a family calls the tensors of a layer, behind the name of the layer."""

    layers: str
    qkv: str  # all three in one tensor
    output: str
    attention_norm: str
    gate: str
    up: str  # the same as gate where both are in one tensor
    down: str
    ffn_norm: str
    gate_first: bool = True  # of the two in one tensor


@dataclass(frozen=True)
class RotaryConfig(EncoderConfig):
    """Sizes and choices of an encoder with rotary positions."""

    ropes: tuple[Rope, ...]
    kinds: tuple[int, ...]
    """Which of the ropes each layer has."""
    windows: tuple[int | None, ...]
    """How far a token of each layer sees to both sides."""
    norm_first: bool
    norm_bias: bool
    attention_bias: bool
    gate_bias: bool
    down_bias: bool


class RotaryWorkspace(Workspace):
    """The activations of a call, with the angles of its tokens."""

    def __init__(
        self,
        tokens: int,
        config: RotaryConfig,
        dtype: np.dtype[Any],
        sequences: Ragged,
    ) -> None:
        super().__init__(tokens, config, dtype)
        self.inner = empty((tokens, config.ffn_size), dtype)
        self.normed = empty(self.x.shape, np.float32) if config.norm_first else self.x
        places = sequences.positions()
        self.angles = [rope.tables(places) for rope in config.ropes]


class RotaryLayer:
    """One encoder layer, in two steps: `project`, then `finish`; stored as `storage` says."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        number: int,
        names: RotaryNames,
        config: RotaryConfig,
        storage: str,
    ) -> None:
        name, width, inner = f"{names.layers}.{number}", config.hidden_size, config.ffn_size
        self.window, self.kind = config.windows[number], config.kinds[number]
        self.norm_first, self.activation = config.norm_first, config.activation

        def linear(part: str, rows: int, columns: int, bias: bool) -> Linear:
            return read_linear(checkpoint, [f"{name}.{part}"], rows, columns, storage, bias=bias)

        def norm(part: str) -> LayerNorm:
            eps, bias = config.layer_norm_eps, config.norm_bias
            return read_norm(checkpoint, f"{name}.{part}", width, eps, bias=bias)

        self.qkv = linear(names.qkv, 3 * width, width, config.attention_bias)
        self.output = linear(names.output, width, width, config.attention_bias)
        self.attention_norm: LayerNorm | None = None
        if not (number == 0 and config.norm_first):  # what embeds tokens has just normalised them
            self.attention_norm = norm(names.attention_norm)
        if names.gate == names.up:
            self.gate, self.up = read_halves(
                *(checkpoint, f"{name}.{names.gate}", inner, width, storage, config.gate_bias)
            )
            if not names.gate_first:
                self.gate, self.up = self.up, self.gate
        else:
            self.gate, self.up = (
                linear(part, inner, width, config.gate_bias) for part in (names.gate, names.up)
            )
        self.down = linear(names.down, width, inner, config.down_bias)
        self.ffn_norm = norm(names.ffn_norm)

    def project(self, work: RotaryWorkspace, steps: Steps) -> None:
        """Compute work.query, work.key and work.value from work.x."""
        h = work.x
        if self.norm_first and self.attention_norm is not None:
            h = self.attention_norm.add_to(steps, work.x, out=work.normed)
        steps.linear(self.qkv, h, out=work.qkv)
        cos, sin = work.angles[self.kind]
        for part in (work.query, work.key):
            steps.rope(part[np.newaxis], cos, sin)

    def finish(self, work: RotaryWorkspace, sequences: Ragged, steps: Steps) -> None:
        """Compute the layer's result from its projections and work.x, into work.x."""
        x, inner = work.x, work.inner
        attend(
            *(steps, work.query, work.key, work.value, sequences, work.context_heads),
            window=self.window,
        )
        steps.linear(self.output, work.context, residual=x, out=x)
        h = x
        if self.norm_first:
            h = self.ffn_norm.add_to(steps, x, out=work.normed)
        elif self.attention_norm is not None:
            self.attention_norm.add_to(steps, x, out=x)
        steps.linear(self.gate, h, activation=self.activation, factor=self.up, out=inner)
        steps.linear(self.down, inner, residual=x, out=x)
        if not self.norm_first:
            self.ffn_norm.add_to(steps, x, out=x)


def read_halves(
    checkpoint: Checkpoint, name: str, rows: int, columns: int, storage: str, bias: bool
) -> tuple[Linear, Linear]:
    """Return the two projections, each of so many rows, that stand in one tensor."""
    weight = checkpoint.take(f"{name}.weight", (2 * rows, columns), dtype=number_dtype(storage))
    shift: Float32Array | None = None
    if bias:
        shift = checkpoint.take(f"{name}.bias", (2 * rows,))
    first, second = (
        Linear(weight[half], None if shift is None else shift[half], dtype=storage)
        for half in (slice(None, rows), slice(rows, None))
    )
    return first, second
