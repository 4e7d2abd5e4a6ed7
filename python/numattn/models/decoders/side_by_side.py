"""A call of a decoder's layers that writes nothing: whole texts, one after the other, no cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numattn import attention_varlen

from ..arrays import Float32Array, Int64Array
from ..ragged import Ragged


@dataclass(frozen=True)
class SideBySide:
    """T tokens of sequences that do not see one another."""

    sequences: Ragged
    positions: Int64Array
    """(1, T): of each token in its sequence."""
    causal: bool
    """Whether a token sees those before it alone; if not, a window reaches to both sides."""
    weight_dtype: np.dtype[Any]
    """In which weights are stored, and tokens compared; float32 beside int8."""
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
        sinks: Float32Array | None = None,
    ) -> NDArray[Any]:
        """Return what attention makes of (1, T, Hq + 2·Hkv, D): (T, Hq·D)."""
        x = heads[0].astype(self.weight_dtype, copy=False)
        count = x.shape[1] - 2 * kv_heads
        q, k, v = x[:, :count], x[:, count : count + kv_heads], x[:, count + kv_heads :]
        window = None if left is None else (left, None if self.causal else left)
        o = attention_varlen(
            q, k, v, self.sequences.starts, self.sequences.starts, is_causal=self.causal,
            window=window, scale=scale, softcap=softcap, sinks=sinks, num_threads=self.num_threads,
        )  # fmt: skip
        rows: NDArray[Any] = o.reshape(len(o), -1)
        return rows
