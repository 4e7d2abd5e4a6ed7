"""What all layers of a decoder share in one call: the new tokens, where they stand, the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numattn import attention
from numattn.cache import Cache

from ..arrays import Float32Array, Int64Array


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

    def attend(
        self,
        layer: int,
        heads: Float32Array,
        kv_heads: int,
        *,
        left: int | None = None,
        scale: float | None = None,
        softcap: float | None = None,
    ) -> NDArray[Any]:
        """Return what causal attention makes of (B, S, Hq + 2·Hkv, D): (B·S, Hq·D).

        Parameters
        ----------
        heads : float32 array
            Queries, then keys, then values, as one projection leaves them.
        left : int, optional
            A query sees that many keys before its own.

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
                scale=scale, softcap=softcap, num_threads=self.num_threads,
            )  # fmt: skip
        else:
            o = attention(
                q, k, v, is_causal=True, kv_lens=self.counts, layout="bshd", window=window,
                scale=scale, softcap=softcap, num_threads=self.num_threads,
            )  # fmt: skip
        rows = o.reshape(o.shape[0] * o.shape[1], -1)
        return rows if rows.dtype == self.weight_dtype else rows.astype(np.float32, copy=False)
