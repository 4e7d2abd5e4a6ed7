"""Attention whose weights are sigmoids of scores, and activations by themselves, in float64."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from .arrays import Float64Array
from .linear import ACTIVATIONS
from .score import heads_first, share_heads


def sigmoid_attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    layout: str = "bhsd",
) -> Float64Array:
    """Return Σ_j σ(scale·q_i·k_j + bias)·v_j as float64, shaped like q with Dv for D.

    Parameters
    ----------
    q, k, v : arrays (B, Hq, Sq, D), (B, Hkv, Sk, D) and (B, Hkv, Sk, Dv)
    bias : array broadcastable to (B, Hq, Sq, Sk), optional
        −log(Sk) by default.
    is_causal : bool
        Row i sees keys j ≤ i.
    scale, layout
        As in `attention`.

    Notes
    -----
    Ramapuram et al., Sigmoid Self-Attention, 2024.

    Examples
    --------
    >>> sigmoid_attention([[[0.0]]], [[[0.0]]], [[[4.0]]]).tolist()
    [[[2.0]]]
    """
    query, key, value = (heads_first(x, layout, "qkv") for x in (q, k, v))
    key, value = (share_heads(x, query.shape[1]) for x in (key, value))
    factor = 1 / math.sqrt(query.shape[3]) if scale is None else scale
    scores = factor * query @ key.swapaxes(2, 3)
    count = max(key.shape[2], 1)
    added = np.asarray(-math.log(count) if bias is None else bias).astype(np.float64)
    with np.errstate(over="ignore"):
        weights = 1 / (1 + np.exp(-(scores + added)))
    if is_causal:
        weights = np.tril(weights)
    o = weights @ value
    rows: Float64Array = o.swapaxes(1, 2) if layout == "bshd" else o
    return rows[0] if np.ndim(q) == 3 else rows


def gelu(x: ArrayLike, *, tanh: bool = False) -> Float64Array:
    """Return x·Φ(x), or its approximation by tanh, as float64.

    Examples
    --------
    >>> gelu([0.0, 1.0]).round(3).tolist()
    [0.0, 0.841]
    """
    y: Float64Array = ACTIVATIONS["gelu_tanh" if tanh else "gelu"](np.asarray(x).astype(np.float64))
    return y


def silu(x: ArrayLike) -> Float64Array:
    """Return x / (1 + exp(−x)) as float64.

    Examples
    --------
    >>> silu([0.0, 1.0]).round(3).tolist()
    [0.0, 0.731]
    """
    y: Float64Array = ACTIVATIONS["silu"](np.asarray(x).astype(np.float64))
    return y
