"""What all layers of a decoder share in one call: the new tokens, where they stand, the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from numattn import BlockMask, attention_varlen
from numattn.cache import Cache

from ..arrays import Float32Array, Int64Array


class Attending(Protocol):
    """What a layer asks of a call that it is part of."""

    @property
    def positions(self) -> Int64Array:
        """Return where the tokens of B rows, S each, stand: (B, S)."""

    @property
    def num_threads(self) -> int | None: ...

    def attend(
        self,
        layer: int,
        heads: Float32Array,
        kv_heads: int,
        *,
        left: int | None = None,
        scale: float | None = None,
        softcap: float | None = None,
        sinks: Float32Array | None = None,
    ) -> NDArray[Any]:
        """Return what attention makes of (B, S, Hq + 2·Hkv, D): (B·S, Hq·D)."""


@dataclass(frozen=True)
class Step:
    """New tokens of B rows, S each, of which the first counts[b] are real."""

    counts: Int64Array
    positions: Int64Array
    """(B, S)"""
    cache: Cache | None
    """Without one, the new tokens attend to one another only."""
    lengths: Int64Array
    """(B,): of how many tokens the text of each row is, the new ones included."""
    dtype: np.dtype[Any]
    """In which queries, keys and values are compared."""
    weight_dtype: np.dtype[Any]
    """In which weights are stored; float32 beside int8."""
    num_threads: int | None
    block_mask: BlockMask | None = None
    """What each sees of the row's tokens, where that is not all before it. Beside a cache."""

    def attend(
        self,
        layer: int,
        heads: Float32Array,
        kv_heads: int,
        *,
        left: int | None = None,
        scale: float | None = None,
        softcap: float | None = None,
        sinks: Float32Array | None = None,
    ) -> NDArray[Any]:
        """Return what causal attention makes of (B, S, Hq + 2·Hkv, D): (B·S, Hq·D).

        Parameters
        ----------
        heads : float32 array
            Queries, then keys, then values, as one projection leaves them.
        left : int, optional
            A query sees that many keys before its own.
        sinks : float32 array (Hq,), optional
            A logit of each head that takes probability and gives no value.

        Returns
        -------
        array (B·S, Hq·D)
            float32; or bfloat16, where the next product rounds to that anyway.
        """
        heads = heads.astype(self.dtype, copy=False)
        queries = heads.shape[2] - 2 * kv_heads
        q, v = heads[:, :, :queries], heads[:, :, queries + kv_heads :]
        k = heads[:, :, queries : queries + kv_heads]
        window = None if left is None else (left, None)
        if self.cache is not None:
            o = self.cache.attend(
                layer, q, k, v, counts=self.counts, layout="bshd", window=window,
                scale=scale, softcap=softcap, sinks=sinks, block_mask=self.block_mask,
                num_threads=self.num_threads,
            )  # fmt: skip
        else:
            starts = self._starts(q.shape[1])
            q, k, v = (x.reshape(-1, *x.shape[2:]) for x in (q, k, v))
            o = attention_varlen(
                q, k, v, starts, starts, is_causal=True, window=window,
                scale=scale, softcap=softcap, sinks=sinks, num_threads=self.num_threads,
            )  # fmt: skip
        rows = o.reshape(-1, heads.shape[3] * queries)
        return rows if rows.dtype == self.weight_dtype else rows.astype(np.float32, copy=False)

    def _starts(self, size: int) -> Int64Array:
        """Return where sequences begin in B rows of `size` tokens, and the end of the last.

        Of each row, first its real tokens and then its padding, which is nobody's: how tokens are
        computed follows from how many there are, and a row's must not depend on the others.
        """
        starts = np.repeat(np.arange(self.counts.size + 1) * size, 2)[:-1]
        starts[1::2] += self.counts
        return starts


@dataclass(frozen=True, kw_only=True)
class PackedStep(Step):
    """The real tokens of a step of B rows as one row of T, of which nothing is padding."""

    padded: Step
    """The same as B rows, which attention needs."""
    row: Int64Array
    """(T,): of each token, the row in which it stands,"""
    column: Int64Array
    """and which of that row's it is."""

    @classmethod
    def of(cls, step: Step) -> PackedStep:
        """Return a step, some of whose tokens are real and some not, without these.

        All rows must turn by the same frequencies, however long their texts are.
        """
        real = np.arange(step.positions.shape[1]) < step.counts[:, np.newaxis]
        row, column = np.nonzero(real)
        return cls(
            counts=np.array([row.size], dtype=np.int64),
            positions=step.positions[row, column][np.newaxis],
            cache=step.cache,
            lengths=step.lengths.max(keepdims=True),
            dtype=step.dtype,
            weight_dtype=step.weight_dtype,
            num_threads=step.num_threads,
            padded=step,
            row=row,
            column=column,
        )

    def pack(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return the tokens (1, T, ...) of rows (B, S, ...)."""
        tokens: NDArray[Any] = x[self.row, self.column][np.newaxis]
        return tokens

    def unpack(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return rows (B, S, ...) of tokens (1, T, ...), filled up with 0."""
        rows = np.zeros((*self.padded.positions.shape, *x.shape[2:]), dtype=x.dtype)
        rows[self.row, self.column] = x[0]
        return rows

    def attend(
        self,
        layer: int,
        heads: Float32Array,
        kv_heads: int,
        *,
        left: int | None = None,
        scale: float | None = None,
        softcap: float | None = None,
        sinks: Float32Array | None = None,
    ) -> NDArray[Any]:
        """Return what causal attention makes of (1, T, Hq + 2·Hkv, D): (T, Hq·D)."""
        o = self.padded.attend(
            layer, self.unpack(heads), kv_heads, left=left, scale=scale, softcap=softcap,
            sinks=sinks,
        )  # fmt: skip
        tokens: NDArray[Any] = self.pack(o.reshape(*self.padded.positions.shape, -1))[0]
        return tokens


def places_of(step: Step) -> tuple[Int64Array, Int64Array]:
    """Return the positions (B, S) that tokens turn by, and the lengths (B,) of rows, 1 or more.

    Only tokens of padding lie beyond the length of their row.
    """
    lengths = np.maximum(step.lengths, 1)
    return np.minimum(step.positions, lengths[:, np.newaxis] - 1), lengths
