"""The layers of a Marian encoder–decoder, each part followed by x = norm(x + part(x)).

    encoder layer    attention to all words of the source; feed-forward
    decoder layer    simple recurrent unit; attention to the encoded source; feed-forward

The recurrent unit (SSRU) stands where a transformer decoder attends to its own past words:

    f_t = sigmoid(x_t·Wf + bf)      c_t = f_t ∘ c_{t−1} + (1 − f_t) ∘ (x_t·W)      y_t = relu(c_t)

so a step costs the same wherever in the sentence it is. (Kim et al., "From Research to Production
and Back: Ludicrously Fast Neural Machine Translation", 2019.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numattn import Linear, MultiHeadAttention, ProjectedContext, attention_varlen
from numattn._aligned import empty

from ..arrays import Float32Array, Int64Array
from ..files.storage import number_dtype
from ..norms import LayerNorm
from ..ragged import Ragged
from .marian_file import MarianFile
from .seq2seq_config import Seq2SeqConfig

NORM_EPS = 1e-6


def read_norm(file: MarianFile, name: str, config: Seq2SeqConfig) -> LayerNorm:
    """Return the normalisation whose parameters stand under `name` in the file."""
    shape = (1, config.hidden_size)
    weight, bias = (file.take(f"{name}_ln_{part}", shape)[0] for part in ("scale", "bias"))
    return LayerNorm(weight, bias, NORM_EPS)


class FeedForward:
    """x = norm(x + relu(x·W1 + b1)·W2 + b2)."""

    def __init__(self, file: MarianFile, name: str, config: Seq2SeqConfig, storage: str) -> None:
        width, inner = config.hidden_size, config.ffn_size
        self.up = Linear(
            file.take_weight(f"{name}_W1", width, inner),
            file.take(f"{name}_b1", (1, inner))[0],
            dtype=storage,
        )
        self.down = Linear(
            file.take_weight(f"{name}_W2", inner, width),
            file.take(f"{name}_b2", (1, width))[0],
            dtype=storage,
        )
        self.norm = read_norm(file, f"{name}_ffn", config)

    def __call__(self, x: Float32Array, num_threads: int | None) -> Float32Array:
        """Return the result in the memory of x."""
        inner = self.up(x, activation="relu", num_threads=num_threads)
        self.down(inner, residual=x, out=x, num_threads=num_threads)
        return self.norm(x, num_threads, out=x)


def projections(file: MarianFile, name: str, config: Seq2SeqConfig) -> dict[str, Any]:
    """Return the weights and biases of an attention, as MultiHeadAttention names them."""
    width = config.hidden_size
    weights = {f"w{part}": file.take_weight(f"{name}_W{part}", width, width) for part in "qkvo"}
    biases = {f"b{part}": file.take(f"{name}_b{part}", (1, width))[0] for part in "qkvo"}
    return {**weights, **biases}


class EncoderLayer:
    """Layer `number`, counted from 1, of the encoder, over sentences one after the other."""

    def __init__(self, file: MarianFile, number: int, config: Seq2SeqConfig, storage: str) -> None:
        name = f"encoder_l{number}"
        given = projections(file, f"{name}_self", config)
        self.qkv = Linear(
            np.concatenate([given[f"w{part}"] for part in "qkv"]),
            np.concatenate([given[f"b{part}"] for part in "qkv"]),
            dtype=storage,
        )
        self.output = Linear(given["wo"], given["bo"], dtype=storage)
        self.norm = read_norm(file, f"{name}_self_Wo", config)
        self.feed_forward = FeedForward(file, f"{name}_ffn", config, storage)
        self.heads, self.dtype = config.num_heads, number_dtype(storage)

    def __call__(self, x: Float32Array, sentences: Ragged, num_threads: int | None) -> Float32Array:
        """Return the layer's result for the words x (T, E) of some sentences, in its memory."""
        qkv = empty((len(x), self.qkv.out_features), self.dtype)
        self.qkv(x, out=qkv, num_threads=num_threads)
        heads = qkv.reshape(len(x), 3, self.heads, -1)
        q, k, v = heads[:, 0], heads[:, 1], heads[:, 2]
        starts = sentences.starts
        o = attention_varlen(q, k, v, starts, starts, num_threads=num_threads)
        self.output(o.reshape(x.shape), residual=x, out=x, num_threads=num_threads)
        return self.feed_forward(self.norm(x, num_threads, out=x), num_threads)


class CrossAttention:
    """x = norm(x + attention(x, source)), for a source that is projected once."""

    def __init__(self, file: MarianFile, name: str, config: Seq2SeqConfig, storage: str) -> None:
        self.attention = MultiHeadAttention(
            config.num_heads, **projections(file, name, config), dtype=storage
        )
        self.norm = read_norm(file, f"{name}_Wo", config)

    def source(self, encoded: Float32Array, num_threads: int | None) -> ProjectedContext:
        """Return what of the encoded source (B, S, E) this attention reads at each step."""
        return self.attention.project_context(encoded, num_threads=num_threads)

    def __call__(
        self,
        x: Float32Array,
        source: ProjectedContext,
        lengths: Int64Array,
        num_threads: int | None,
    ) -> Float32Array:
        """Return the result for x (B, 1, E), in its memory; lengths[b] words of a row are real."""
        x += self.attention(x, source, kv_lens=lengths, num_threads=num_threads)
        return self.norm(x, num_threads, out=x)


class DecoderLayer:
    """Layer `number`, counted from 1, of the decoder."""

    def __init__(self, file: MarianFile, number: int, config: Seq2SeqConfig, storage: str) -> None:
        name, width = f"decoder_l{number}", config.hidden_size
        self.forget = Linear(
            file.take_weight(f"{name}_rnn_Wf", width, width),
            file.take(f"{name}_rnn_bf", (1, width))[0],
            dtype=storage,
        )
        self.fresh = Linear(file.take_weight(f"{name}_rnn_W", width, width), dtype=storage)
        self.norm = read_norm(file, f"{name}_rnn_ffn", config)
        self.cross = CrossAttention(file, f"{name}_context", config, storage)
        self.feed_forward = FeedForward(file, f"{name}_ffn", config, storage)

    def __call__(
        self,
        x: Float32Array,
        cell: Float32Array,
        source: ProjectedContext,
        lengths: Int64Array,
        num_threads: int | None,
    ) -> Float32Array:
        """Return the result for x (B, 1, E), in its memory; cell (B, 1, E) goes one step on."""
        keep = sigmoid(self.forget(x, num_threads=num_threads))
        cell *= keep
        cell += (1 - keep) * self.fresh(x, num_threads=num_threads)
        x += np.maximum(cell, 0)
        x = self.cross(self.norm(x, num_threads, out=x), source, lengths, num_threads)
        return self.feed_forward(x, num_threads)


def sigmoid(x: Float32Array) -> Float32Array:
    """Return 1 / (1 + exp(−x)), which is (1 + tanh(x / 2)) / 2 and so never overflows."""
    result: Float32Array = np.tanh(np.float32(0.5) * x)
    result += 1
    result *= 0.5
    return result
