"""The layers of an encoder–decoder.

before:  x = x + part(norm(x))      T5, mBART, Whisper
after:   x = norm(x + part(x))      BART, Marian

encoder layer    attention to itself; feed-forward
decoder layer    attention to what is before; attention to the source; feed-forward
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from numpy.typing import NDArray

from numattn import Linear, ProjectedContext
from numattn.cache import KVCache

from ..arrays import Float32Array, Int64Array
from ..files.activations import Activation
from ..files.storage import number_dtype
from ..files.tensors import Tensors
from ..norms import LayerNorm, RmsNorm
from .attentions import AttentionForm, CrossAttention, SelfAttention

Norm: TypeAlias = LayerNorm | RmsNorm
ReadNorm: TypeAlias = Callable[[Tensors, str], Norm]


@dataclass(frozen=True)
class LayerForm:
    """Sizes and choices of a layer, and how a checkpoint calls its parts."""

    attention: AttentionForm
    ffn_size: int
    activation: Activation
    norm_first: bool
    read_norm: ReadNorm
    self_attention: tuple[str, str]
    """Names of the attention to itself and of its norm."""
    cross_attention: tuple[str, str]
    ffn: tuple[str, str, str]
    """Names of the first and the second projection and of the norm."""
    gate: str | None = None
    """Name of a projection whose activation multiplies the first one, which then has none."""
    ffn_biased: bool = True


def read_layer_norm(eps: float, width: int) -> ReadNorm:
    """Return what reads the parameters of a layer norm."""

    def read(checkpoint: Tensors, name: str) -> LayerNorm:
        weight, bias = (checkpoint.take(f"{name}.{part}", (width,)) for part in ("weight", "bias"))
        return LayerNorm(weight, bias, eps)

    return read


class FeedForward:
    """activation(h·W1 + b1)·W2 + b2, or (activation(h·Wg) ∘ (h·W1))·W2."""

    def __init__(self, checkpoint: Tensors, name: str, form: LayerForm, storage: str) -> None:
        width, inner = form.attention.width, form.ffn_size

        def linear(part: str, rows: int, columns: int) -> Linear:
            weight = checkpoint.take(
                f"{name}.{part}.weight", (rows, columns), dtype=number_dtype(storage)
            )
            bias = checkpoint.take(f"{name}.{part}.bias", (rows,)) if form.ffn_biased else None
            return Linear(weight, bias, dtype=storage)

        self.up = linear(form.ffn[0], inner, width)
        self.down = linear(form.ffn[1], width, inner)
        self.gate = None if form.gate is None else linear(form.gate, inner, width)
        self.activation = form.activation

    def __call__(self, h: Float32Array, x: Float32Array, num_threads: int | None) -> None:
        """Add the result for h to x."""
        if self.gate is None:
            inner = self.up(h, activation=self.activation, num_threads=num_threads)
        else:
            gate, activation = self.gate, self.activation
            inner = gate(h, activation=activation, factor=self.up, num_threads=num_threads)
        self.down(inner, residual=x, out=x, num_threads=num_threads)


class Around:
    """A part's norm: before it, or after it is added."""

    def __init__(self, norm: Norm, first: bool) -> None:
        self.norm, self.first = norm, first

    def before(self, x: Float32Array, num_threads: int | None) -> Float32Array:
        """Return what the part reads."""
        return self.norm(x, num_threads) if self.first else x

    def after(self, x: Float32Array, num_threads: int | None) -> None:
        """Leave in x what the next part finds."""
        if not self.first:
            self.norm(x, num_threads, out=x)


class EncoderLayer:
    """A layer whose parts stand under `name` in the checkpoint."""

    def __init__(self, checkpoint: Tensors, name: str, form: LayerForm, storage: str) -> None:
        def around(part: str) -> Around:
            return Around(form.read_norm(checkpoint, f"{name}.{part}"), form.norm_first)

        own, norm = form.self_attention
        self.attention = SelfAttention(checkpoint, f"{name}.{own}", form.attention, storage)
        self.attention_norm = around(norm)
        self.feed_forward = FeedForward(checkpoint, name, form, storage)
        self.ffn_norm = around(form.ffn[2])

    def __call__(
        self,
        x: Float32Array,
        lengths: Int64Array,
        bias: NDArray[Any] | None,
        num_threads: int | None,
    ) -> None:
        """Leave the layer's result in x (B, S, E), of which lengths[b] tokens are real."""
        h = self.attention_norm.before(x, num_threads)
        self.attention.over_all(h, x, lengths, bias, num_threads)
        self.attention_norm.after(x, num_threads)
        self.feed_forward(self.ffn_norm.before(x, num_threads), x, num_threads)
        self.ffn_norm.after(x, num_threads)


class DecoderLayer:
    """A layer whose parts stand under `name` in the checkpoint."""

    def __init__(self, checkpoint: Tensors, name: str, form: LayerForm, storage: str) -> None:
        def around(part: str) -> Around:
            return Around(form.read_norm(checkpoint, f"{name}.{part}"), form.norm_first)

        own, norm = form.self_attention
        self.attention = SelfAttention(checkpoint, f"{name}.{own}", form.attention, storage)
        self.attention_norm = around(norm)
        cross, norm = form.cross_attention
        self.cross = CrossAttention(checkpoint, f"{name}.{cross}", form.attention, storage)
        self.cross_norm = around(norm)
        self.feed_forward = FeedForward(checkpoint, name, form, storage)
        self.ffn_norm = around(form.ffn[2])

    def __call__(
        self,
        x: Float32Array,
        cache: KVCache,
        number: int,
        source: ProjectedContext,
        lengths: Int64Array,
        bias: NDArray[Any] | None,
        num_threads: int | None,
        weights: bool = False,
    ) -> Float32Array | None:
        """Leave the layer's result in x (N, S, E), the tokens after those of the cache.

        Return, with `weights`, those of its attention to the source.
        """
        h = self.attention_norm.before(x, num_threads)
        self.attention.over_past(h, x, cache, number, bias, num_threads)
        self.attention_norm.after(x, num_threads)
        h = self.cross_norm.before(x, num_threads)
        shares = self.cross(h, x, source, lengths, num_threads, weights)
        self.cross_norm.after(x, num_threads)
        self.feed_forward(self.ffn_norm.before(x, num_threads), x, num_threads)
        self.ffn_norm.after(x, num_threads)
        return shares
