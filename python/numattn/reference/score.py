"""Final scores and which of them count: all that happens between q·kᵀ and the softmax.

s = scale·(q·kᵀ + terms by distance) → softcap → + bias + alibi
allowed = causal ∧ (window ∨ sink_tokens) ∧ key_spans ∧ kv_lens ∧ block_mask ∧ mask ∧ bias ≠ −inf
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import BoolArray, Float64Array
from .relative import Relative, distance_scores, with_bias


def heads_first(x: ArrayLike, layout: str, name: str) -> Float64Array:
    """Return x as float64 (B, H, S, D), whatever its layout, dtype and number of dimensions."""
    if layout not in ("bhsd", "bshd"):
        raise ValueError(f"layout must be 'bhsd' or 'bshd', not {layout!r}")
    array = np.asarray(x).astype(np.float64)
    if array.ndim == 3:
        array = array[np.newaxis]
    if array.ndim != 4:
        raise ValueError(f"{name} must have 3 or 4 dimensions, not shape {array.shape}")
    return array.swapaxes(1, 2) if layout == "bshd" else array


def share_heads(x: Float64Array, num_heads: int) -> Float64Array:
    """Repeat each key or value head for the query heads that use it: h reads h // (Hq // Hkv)."""
    if num_heads % x.shape[1] != 0:
        raise ValueError(f"{num_heads} query heads do not divide among {x.shape[1]} key heads")
    return np.repeat(x, num_heads // x.shape[1], axis=1)


def final_scores(
    q: Float64Array,
    k: Float64Array,
    rows: NDArray[np.int64],
    *,
    mask: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    is_causal: bool = False,
    q_offset: ArrayLike = 0,
    window: tuple[int | None, int | None] | None = None,
    key_spans: tuple[ArrayLike, ArrayLike] | None = None,
    sink_tokens: int = 0,
    block_mask: Any = None,
    scale: ArrayLike | None = None,
    softcap: float | None = None,
    kv_lens: ArrayLike | None = None,
    alibi_slopes: ArrayLike | None = None,
    relative: Relative | None = None,
    skip_below: float = 0.0,
) -> tuple[Float64Array, BoolArray]:
    """Return scores (B, Hq, R, Sk), −inf where a key is excluded, and allowed (B, Hq, R, Sk).

    Parameters
    ----------
    q, k : float64 arrays (B, Hq, Sq, D) and (B, Hkv, Sk, D)
    rows : int array (R,)
        The query rows wanted.
    mask : bool array broadcastable to (B, Hq, Sq, Sk), optional
        True = may attend.
    bias : float array broadcastable to (B, Hq, Sq, Sk), optional
        Added to the scores; −inf excludes a key.
    is_causal : bool
        Key j is visible to row i iff j ≤ q_offset + i.
    q_offset : int or int array (B,)
        Position of the first query row among the keys.
    window : (left, right), optional
        Key j is visible iff pos − left ≤ j ≤ pos + right, pos = q_offset + i; −1 or None is
        unbounded.
    key_spans : (begin, end) of int arrays broadcastable to (B, Hq, Sq), optional
        Key j is visible to a row iff begin ≤ j < end.
    sink_tokens : int
        Keys j < sink_tokens are visible whatever the window.
    block_mask : object with a method to_dense(), optional
        Which gives bools (B or 1, Hq or 1, Sq, Sk), True = may attend.
    scale : float, or float array (Hq,) or (B, Hq), optional
        Factor of q·kᵀ; 1/sqrt(D) by default, or that of `relative` if it has one.
    softcap : float, optional
        c: scores become c·tanh(s/c) before bias and mask.
    kv_lens : int array (B,), optional
        Only keys j < kv_lens[b] exist.
    alibi_slopes : float array (Hq,) or (B, Hq), optional
        Adds −slope·|pos − j|.
    relative : object with the attributes of `numattn.position.Relative`, optional
        Terms by distance, as `relative.py` writes them.
    skip_below : float
        Accepted so that calls can be compared; the reference leaves nothing out.
    """
    batch, num_heads, q_len, width = q.shape
    k_len = k.shape[2]
    if k.shape[0] != batch or k.shape[3] != width:
        raise ValueError(f"q {q.shape} and k {k.shape} differ in batch or head size")
    full = (batch, num_heads, q_len, k_len)
    key = np.arange(k_len)
    position = positions(q_offset, batch, rows)

    q, k = q[:, :, rows], share_heads(k, num_heads)
    if scale is None and relative is not None:
        scale = relative.scale
    factor = np.asarray(1 / math.sqrt(width) if scale is None else scale).astype(np.float64)
    scale = np.broadcast_to(factor, (batch, num_heads))[:, :, np.newaxis, np.newaxis]
    if relative is None:
        score = scale * (q @ k.swapaxes(2, 3))
    else:
        product = with_bias(q, relative.content_bias) @ k.swapaxes(2, 3)
        score = scale * (product + distance_scores(relative, q, k, position - key))
    allowed = np.ones(score.shape, dtype=np.bool_)
    if softcap is not None:
        score = softcap * np.tanh(score / softcap)
    if bias is not None:
        bias = np.broadcast_to(np.asarray(bias).astype(np.float64), full)[:, :, rows]
        score = score + bias
        allowed &= bias != -np.inf
    if alibi_slopes is not None:
        slope = np.asarray(alibi_slopes).astype(np.float64)
        slope = np.broadcast_to(slope, (batch, num_heads))[:, :, np.newaxis, np.newaxis]
        score = score - slope * abs(position - key)
    if mask is not None:
        allowed &= np.broadcast_to(np.asarray(mask, dtype=np.bool_), full)[:, :, rows]
    if is_causal:
        allowed &= key <= position
    if window is not None:
        allowed &= within_window(position, key, window) | (key < sink_tokens)
    if key_spans is not None:
        begin, end = (
            np.broadcast_to(np.asarray(side), full[:3])[:, :, rows, np.newaxis]
            for side in key_spans
        )
        allowed &= (begin <= key) & (key < end)
    if block_mask is not None:
        allowed &= np.broadcast_to(block_mask.to_dense(), full)[:, :, rows]
    if kv_lens is not None:
        lengths = np.broadcast_to(np.asarray(kv_lens, dtype=np.int64), (batch,))
        allowed &= key < lengths[:, np.newaxis, np.newaxis, np.newaxis]
    return np.where(allowed, score, -np.inf), allowed


def positions(q_offset: ArrayLike, batch: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return position[b, 0, r, 0] = q_offset[b] + rows[r]."""
    offset = np.broadcast_to(np.asarray(q_offset, dtype=np.int64), (batch,))
    return (offset[:, np.newaxis] + rows)[:, np.newaxis, :, np.newaxis]


def within_window(
    position: NDArray[np.int64], key: NDArray[np.int64], window: tuple[int | None, int | None]
) -> BoolArray:
    """Return position − left ≤ key ≤ position + right; None or −1 leaves a side unbounded."""
    left, right = (None if side in (None, -1) else side for side in window)
    inside = np.ones(np.broadcast_shapes(position.shape, key.shape), dtype=np.bool_)
    if left is not None:
        inside &= position - key <= left
    if right is not None:
        inside &= key - position <= right
    return inside


def check_keywords(function: str, given: Iterable[str]) -> None:
    """Raise TypeError, as Python does, for a keyword that neither scores nor the softmax have."""
    known = {"sinks", *(final_scores.__kwdefaults__ or {})}
    for name in given:
        if name not in known:
            raise TypeError(f"{function}() got an unexpected keyword argument '{name}'")
