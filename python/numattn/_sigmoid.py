"""Sigmoid attention: each key is weighed by itself.

o_i = Σ_j σ(scale · q_i·k_j + b) · v_j,   σ(s) = 1 / (1 + exp(−s))
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from numattn._aligned import empty
from numattn._arguments import as_array, flag, real
from numattn._names import Array, Float32Array, Layout
from numattn.approx.causal import sum_of_seen
from numattn.approx.operands import Operands

# Queries and keys of a tile of weights, 256 KiB per head.
TILE_QUERIES, TILE_KEYS = 128, 512


def sigmoid_attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    layout: Layout = "bhsd",
) -> Array:
    """Attention without softmax: ``sigmoid(scale · q kᵀ + bias) v``, never holding S × S weights.

    Parameters
    ----------
    q : array of shape (B, Hq, Sq, D)
        float32, float16 or bfloat16, any strides; arithmetic is float32.
    k, v : arrays of shape (B, Hkv, Sk, D) and (B, Hkv, Sk, Dv)
        q's dtype. Hq is a multiple of Hkv. Without B, three dimensions give three.
    bias : float, or array that broadcasts to (B, Hq, Sq, Sk), optional
        Added to the scores: ``−log(Sk)`` by default, as models are trained with; −inf hides a key.
    is_causal : bool
        Query i sees keys up to i.
    scale : float, optional
        Default ``1 / sqrt(D)``.
    layout : {"bhsd", "bshd"}
        Order of the axes of q, k, v and the result.

    Returns
    -------
    array of shape (B, Hq, Sq, Dv)
        In the layout of q and in its dtype.

    Raises
    ------
    TypeError
        A dtype is not supported, or q, k and v disagree.
    ValueError
        Shapes do not fit, or a number is out of range.

    Notes
    -----
    Ramapuram et al., "Theory, Analysis, and Best Practices for Sigmoid Self-Attention" (2024).
    Products are NumPy's, tile by tile, and their threads those of its BLAS.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> x = np.eye(2, dtype=np.float32)[None]
    >>> na.sigmoid_attention(x, x, x, bias=0.0, scale=1.0).round(3)
    array([[[0.731, 0.5  ],
            [0.5  , 0.731]]], dtype=float32)
    """
    operands = Operands.of(q, k, v, layout)
    batch, heads, queries, width = operands.q.shape
    keys = operands.k.shape[2]
    factor = 1 / math.sqrt(width) if scale is None else real("scale", scale)
    if not math.isfinite(factor):
        raise ValueError(f"scale must be finite, not {factor}")
    full = (batch, heads, queries, keys)
    added = _bias(bias, full)
    causal = flag("is_causal", is_causal)
    grouped = operands.grouped_queries()
    shape = (batch, operands.k.shape[1], operands.group, queries)
    o = empty((*shape, operands.v.shape[3]), np.float32)
    o[...] = 0
    added = added.reshape(*shape, keys) if added.ndim else added
    with np.errstate(all="ignore"):
        for begin in range(0, queries, TILE_QUERIES):
            rows = slice(begin, min(begin + TILE_QUERIES, queries))
            q_tile = grouped[..., rows, :] * np.float32(factor)
            seen = min(rows.stop, keys) if causal else keys
            for first in range(0, seen, TILE_KEYS):
                tile = slice(first, min(first + TILE_KEYS, seen))
                k_tile = operands.k[:, :, np.newaxis, tile]
                scores = q_tile @ k_tile.swapaxes(-1, -2)
                tile_bias = added[..., rows, tile] if added.ndim else added
                np.copyto(scores, 0, where=tile_bias == -np.inf)  # hidden, a NaN or not
                scores += tile_bias
                weights = _sigmoid(scores)
                values = operands.v[:, :, np.newaxis, tile]
                if causal and tile.stop > rows.start + 1:
                    position = np.arange(rows.start, rows.stop)[:, np.newaxis]
                    np.copyto(weights, 0, where=np.arange(tile.start, tile.stop) > position)
                    o[..., rows, :] += sum_of_seen(weights, values, rows.start - first)
                else:
                    o[..., rows, :] += weights @ values
    whole: Float32Array = o.reshape(*full[:3], -1)
    return operands.result(whole)


def _bias(bias: ArrayLike | None, full: tuple[int, ...]) -> Float32Array:
    """One number, or a view of the caller's numbers (B, Hq, Sq, Sk)."""
    if bias is None:
        return np.asarray(-math.log(max(full[3], 1)), np.float32)
    array = as_array("bias", bias)
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise TypeError(f"bias must hold real numbers, not {array.dtype}")
    if array.ndim == 0:
        return array.astype(np.float32)
    try:
        whole: Float32Array = np.broadcast_to(array, full)
    except ValueError:
        raise ValueError(f"bias must broadcast to {full}, not {array.shape}") from None
    return whole


def _sigmoid(scores: Float32Array) -> Float32Array:
    """1 / (1 + exp(−s)) in place; exp(−s) may be infinite, whose inverse is 0."""
    np.negative(scores, out=scores)
    np.exp(scores, out=scores)
    scores += 1
    return np.reciprocal(scores, out=scores)
