"""The attentions of an encoder–decoder: of a sequence to itself, and of a decoder to its source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numattn import Linear, MultiHeadAttention, ProjectedContext, attention
from numattn._aligned import empty
from numattn.cache import KVCache

from ..arrays import Float32Array, Int64Array
from ..files.storage import number_dtype
from ..files.tensors import Tensors


@dataclass(frozen=True)
class AttentionForm:
    """Sizes of an attention, and how a checkpoint calls its parts."""

    width: int
    heads: int
    head_size: int
    scale: float | None
    """Of scores; None is 1 / sqrt(head_size)."""
    names: tuple[str, str, str, str]
    """Of the projections to queries, keys, values and the result."""
    biased: tuple[bool, bool, bool, bool]
    """Which of these have a bias."""


def read_projections(
    checkpoint: Tensors, name: str, form: AttentionForm, storage: str
) -> dict[str, NDArray[Any] | None]:
    """Return weights and biases, as MultiHeadAttention names them."""
    inner, read = form.heads * form.head_size, number_dtype(storage)
    parts: dict[str, NDArray[Any] | None] = {}
    for part, named, biased in zip("qkvo", form.names, form.biased, strict=True):
        shape = (form.width, inner) if part == "o" else (inner, form.width)
        parts[f"w{part}"] = checkpoint.take(f"{name}.{named}.weight", shape, dtype=read)
        parts[f"b{part}"] = checkpoint.take(f"{name}.{named}.bias", shape[:1]) if biased else None
    return parts


class SelfAttention:
    """Attention of a sequence to itself: to all of it, or of each token to those before it."""

    def __init__(self, checkpoint: Tensors, name: str, form: AttentionForm, storage: str) -> None:
        given = read_projections(checkpoint, name, form, storage)
        bias = None
        if any(form.biased[:3]):
            none = np.zeros(form.heads * form.head_size, dtype=np.float32)
            biases = [given[f"b{part}"] for part in "qkv"]
            bias = np.concatenate([none if each is None else each for each in biases])
        weights: list[Any] = [given[f"w{part}"] for part in "qkv"]
        self.qkv = Linear(np.concatenate(weights), bias, dtype=storage)
        output: Any = given["wo"]
        self.output = Linear(output, given["bo"], dtype=storage)
        self.form, self.dtype = form, number_dtype(storage)

    def over_all(
        self,
        h: Float32Array,
        x: Float32Array,
        lengths: Int64Array,
        bias: NDArray[Any] | None,
        num_threads: int | None,
    ) -> None:
        """Add to x (B, S, E) what h is to itself, lengths[b] tokens of each row."""
        q, k, v = self._project(h, num_threads)
        o = attention(
            q, k, v, layout="bshd", kv_lens=lengths, bias=bias, scale=self.form.scale,
            num_threads=num_threads,
        )  # fmt: skip
        self._join(o, x, num_threads)

    def over_past(
        self,
        h: Float32Array,
        x: Float32Array,
        cache: KVCache,
        layer: int,
        bias: NDArray[Any] | None,
        num_threads: int | None,
    ) -> None:
        """Add to x (N, S, E) what h, appended to the cache's layer, is to what that has then."""
        q, k, v = self._project(h, num_threads)
        scale = self.form.scale
        if bias is None:
            o = cache.attend(layer, q, k, v, layout="bshd", scale=scale, num_threads=num_threads)
        else:
            held = cache.append(layer, k, v, layout="bshd")
            o = attention(
                q, held.k, held.v, layout="bshd", q_offset=held.q_offset, kv_lens=held.kv_lens,
                is_causal=True, bias=bias, scale=scale, num_threads=num_threads,
            )  # fmt: skip
        self._join(o, x, num_threads)

    def _project(
        self, h: Float32Array, num_threads: int | None
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return queries, keys and values (B, S, H, D)."""
        qkv = empty((*h.shape[:2], self.qkv.out_features), self.dtype)
        self.qkv(h, out=qkv, num_threads=num_threads)
        heads = qkv.reshape(*h.shape[:2], 3, self.form.heads, self.form.head_size)
        return heads[:, :, 0], heads[:, :, 1], heads[:, :, 2]

    def _join(self, o: NDArray[Any], x: Float32Array, num_threads: int | None) -> None:
        joined = o.reshape(*x.shape[:2], -1)
        self.output(joined, residual=x, out=x, num_threads=num_threads)


class CrossAttention:
    """Attention of a decoder to its source, whose keys and values are projected once."""

    def __init__(self, checkpoint: Tensors, name: str, form: AttentionForm, storage: str) -> None:
        given: dict[str, Any] = read_projections(checkpoint, name, form, storage)
        self.attention = MultiHeadAttention(form.heads, **given, dtype=storage)
        self.scale = form.scale

    def source(self, encoded: Float32Array, num_threads: int | None) -> ProjectedContext:
        """Return what of the encoded source (B, S, E) this attention reads at each step."""
        return self.attention.project_context(encoded, num_threads=num_threads)

    def __call__(
        self,
        h: Float32Array,
        x: Float32Array,
        source: ProjectedContext,
        lengths: Int64Array,
        num_threads: int | None,
        weights: bool = False,
    ) -> Float32Array | None:
        """Add to x (N, S, E) what h is to the source of B rows, N / B of its own to each.

        Those of one source are so many queries of one row. Return, with `weights`, how much of each
        place of the source they are (B, H, N / B · S, T).
        """
        batch = lengths.size
        rows = h.reshape(batch, -1, h.shape[2])
        found = self.attention(
            rows, source, kv_lens=lengths, scale=self.scale, num_threads=num_threads,
            return_weights=weights,
        )  # fmt: skip
        y, shares = found if weights else (found, None)
        x += y.reshape(x.shape)
        return shares
