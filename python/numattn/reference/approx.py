"""The approximations of attention in float64, each as its paper writes it, S × S matrices and all.

They approximate here as they do there: what the oracle shows is that nothing else is lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from .arrays import Float64Array
from .attention import attention
from .score import heads_first, share_heads


def linformer(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    e: ArrayLike,
    f: ArrayLike | None = None,
    *,
    scale: float | None = None,
    layout: str = "bhsd",
) -> Float64Array:
    """Return softmax(scale·q·(E·k)ᵀ)·(F·v) as float64, shaped like q with Dv for D.

    Parameters
    ----------
    q, k, v : arrays (B, Hq, Sq, D), (B, Hkv, Sk, D) and (B, Hkv, Sk, Dv)
    e, f : arrays (n, Sk) or (Hkv, n, Sk)
    scale, layout
        As in `attention`.

    Notes
    -----
    Wang et al., Linformer, 2020.

    Examples
    --------
    >>> linformer([[[1.0]]], [[[1.0], [1.0]]], [[[2.0], [4.0]]], [[0.5, 0.5]]).tolist()
    [[[3.0]]]
    """
    query, key, value = (heads_first(x, layout, "qkv") for x in (q, k, v))
    mix_keys = np.asarray(e).astype(np.float64)
    mix_values = mix_keys if f is None else np.asarray(f).astype(np.float64)
    o = attention(query, mix_keys @ key, mix_values @ value, scale=scale)
    return _like(q, o, layout)


def nystrom(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    landmarks: int = 64,
    *,
    iterations: int = 6,
    initial: str = "matrix",
    scale: float | None = None,
    layout: str = "bhsd",
) -> Float64Array:
    """Return softmax(q·k̃ᵀ)·Z·softmax(q̃·kᵀ)·v as float64, Z ≈ softmax(q̃·k̃ᵀ)⁺ by iteration.

    Parameters
    ----------
    q, k, v : arrays (B, Hq, Sq, D), (B, Hkv, Sk, D) and (B, Hkv, Sk, Dv)
    landmarks : int
        Segments whose means q̃ and k̃ are; as many as there are queries and keys give attention.
    iterations : int
    initial : "matrix" or "batch"
        What the first Z, a transposed matrix, is divided by: its own largest sum of a column, or
        that of all matrices of the batch.
    scale, layout
        As in `attention`.

    Notes
    -----
    Xiong et al., Nyströmformer, 2021.

    Examples
    --------
    >>> nystrom([[[1.0], [1.0]]], [[[1.0], [1.0]]], [[[2.0], [4.0]]], 1).tolist()
    [[[3.0], [3.0]]]
    """
    query, key, value = (heads_first(x, layout, "qkv") for x in (q, k, v))
    key, value = (share_heads(x, query.shape[1]) for x in (key, value))
    factor = 1 / math.sqrt(query.shape[3]) if scale is None else scale
    if landmarks == query.shape[2] == key.shape[2]:
        return _like(q, np.asarray(attention(query, key, value, scale=factor)), layout)
    q_marks, k_marks = segment_means(query, landmarks), segment_means(key, landmarks)
    inverse = iterative_inverse(softmax(factor * q_marks @ _turned(k_marks)), iterations, initial)
    rows = softmax(factor * query @ _turned(k_marks))
    columns = softmax(factor * q_marks @ _turned(key))
    return _like(q, rows @ inverse @ columns @ value, layout)


def performer(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    projection: ArrayLike,
    is_causal: bool = False,
    scale: float | None = None,
    layout: str = "bhsd",
) -> Float64Array:
    """Return Σ_j φ(q_i)·φ(k_j)·v_j / Σ_j φ(q_i)·φ(k_j) as float64.

    φ_f(x) = exp(w_f·x̂ − ‖x̂‖²/2), x̂ = √scale·x; common factors of a row are divided out first.

    Parameters
    ----------
    q, k, v : arrays (B, Hq, Sq, D), (B, Hkv, Sk, D) and (B, Hkv, Sk, Dv)
    projection : array (m, D)
        The vectors w.
    is_causal : bool
    scale, layout
        As in `attention`.

    Notes
    -----
    Choromanski et al., Rethinking Attention with Performers, 2021.

    Examples
    --------
    >>> performer([[[1.0]]], [[[1.0], [1.0]]], [[[2.0], [4.0]]], projection=[[1.0]]).tolist()
    [[[3.0]]]
    """
    query, key, value = (heads_first(x, layout, "qkv") for x in (q, k, v))
    key, value = (share_heads(x, query.shape[1]) for x in (key, value))
    root = math.sqrt(1 / math.sqrt(query.shape[3]) if scale is None else scale)
    w = np.asarray(projection).astype(np.float64)
    q_powers, k_powers = (
        root * x @ w.T - (root * root / 2) * (x**2).sum(axis=-1, keepdims=True)
        for x in (query, key)
    )
    # log φ(q_i)·φ(k_j) over all features, which overflows nowhere.
    pairs = q_powers[..., :, np.newaxis, :] + k_powers[..., np.newaxis, :, :]
    logs = np.logaddexp.reduce(pairs, axis=-1)
    if is_causal:
        logs = np.where(np.tri(*logs.shape[2:], dtype=np.bool_), logs, -np.inf)
    return _like(q, softmax(logs) @ value, layout)


def linear_attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    feature_map: str | Callable[[Float64Array], Float64Array] = "elu",
    *,
    is_causal: bool = False,
    layout: str = "bhsd",
) -> Float64Array:
    """Return Σ_j φ(q_i)·φ(k_j)·v_j / Σ_j φ(q_i)·φ(k_j) as float64; 0 where the divisor is.

    Parameters
    ----------
    q, k, v : arrays (B, Hq, Sq, D), (B, Hkv, Sk, D) and (B, Hkv, Sk, Dv)
    feature_map : "elu", "relu" or callable
        φ: elu(x) + 1, max(x, 0), or another.
    is_causal : bool
    layout
        As in `attention`.

    Notes
    -----
    Katharopoulos et al., Transformers are RNNs, 2020.

    Examples
    --------
    >>> linear_attention([[[0.0]]], [[[0.0], [1.0]]], [[[3.0], [6.0]]]).tolist()
    [[[5.0]]]
    """
    query, key, value = (heads_first(x, layout, "qkv") for x in (q, k, v))
    key, value = (share_heads(x, query.shape[1]) for x in (key, value))
    maps: dict[str, Callable[[Float64Array], Float64Array]] = {
        "elu": lambda x: np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))),
        "relu": lambda x: np.maximum(x, 0),
    }
    phi = feature_map if callable(feature_map) else maps[feature_map]
    weights = phi(query) @ _turned(phi(key))
    if is_causal:
        weights = np.tril(weights)
    total = weights.sum(axis=-1, keepdims=True)
    shares = np.divide(weights, total, out=np.zeros_like(weights), where=total != 0)
    return _like(q, shares @ value, layout)


def segment_means(x: Float64Array, count: int) -> Float64Array:
    """Return the means (B, H, count, D) of as many segments of x (B, H, S, D)."""
    edges = [i * x.shape[2] // count for i in range(count + 1)]
    segments = zip(edges[:-1], edges[1:], strict=True)
    return np.stack([x[:, :, begin:end].mean(axis=2) for begin, end in segments], axis=2)


def iterative_inverse(matrix: Float64Array, steps: int, initial: str) -> Float64Array:
    """Return Z after some steps of Z ← ¼·Z·(13·I − A·Z·(15·I − A·Z·(7·I − A·Z)))."""
    columns = matrix.sum(axis=-2)
    largest = columns.max() if initial == "batch" else columns.max(axis=-1)[..., None, None]
    inverse: Float64Array = _turned(matrix) / largest
    one = np.eye(matrix.shape[-1])
    for _ in range(steps):
        product = matrix @ inverse
        inverse = inverse / 4 @ (13 * one - product @ (15 * one - product @ (7 * one - product)))
    return inverse


def softmax(x: Float64Array) -> Float64Array:
    """Return exp(x) over its sum along the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: Float64Array = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def _turned(x: Float64Array) -> Float64Array:
    turned: Float64Array = x.swapaxes(-1, -2)
    return turned


def _like(q: ArrayLike, o: Float64Array, layout: str) -> Float64Array:
    """Return o (B, H, S, Dv) in the layout of q and with as many axes."""
    rows = o.swapaxes(1, 2) if layout == "bshd" else o
    entry: Float64Array = rows[0] if np.ndim(q) == 3 else rows
    return entry
