"""Heads turned by rotary positions, in place."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from numattn._arguments import integer_array
from numattn._names import Array
from numattn.position import Rope
from numattn.rope import apply_rope


def checked_rope(rope: Rope | None, head_dim: int) -> Rope | None:
    """A rope that can turn heads of that size, or None."""
    if rope is None:
        return None
    if not isinstance(rope, Rope):
        raise TypeError(f"rope must be a numattn.position.Rope, not {type(rope).__name__}")
    if rope.dim > head_dim:
        raise ValueError(f"rope turns {rope.dim} elements, but heads have {head_dim}")
    return rope


def turn_from(
    rope: Rope, both: Array, num_heads: int, q_offset: ArrayLike, num_threads: int | None
) -> None:
    """Turn query i by q_offset + i and key j by j, in heads (..., S, Hq + Hkv, D) of both."""
    keys = np.arange(both.shape[-3])
    first = integer_array("q_offset", q_offset, scalar=True)
    if first.size == 1:
        first = first.reshape(())
    elif first.shape != both.shape[:-3]:
        raise ValueError(
            f"q_offset must be one number, or one for each row, not of shape {first.shape}"
        )
    queries = first[..., np.newaxis] + keys
    length = max(int(queries.max(initial=0)) + 1, len(keys), 1)
    if not first.any():
        turn_heads(rope, both, keys, length, num_threads)
        return
    turn_heads(rope, both[..., :num_heads, :], queries, length, num_threads)
    turn_heads(rope, both[..., num_heads:, :], keys, length, num_threads)


def turn_heads(
    rope: Rope, heads: Array, positions: Array, length: ArrayLike, num_threads: int | None
) -> None:
    """Turn heads (..., S, H, D) by positions (S,) or (B, S)."""
    cos, sin = rope.tables(positions, length=length)
    apply_rope(
        heads, cos, sin, interleaved=rope.interleaved, layout="bshd", out=heads,
        num_threads=num_threads,
    )  # fmt: skip
