"""Performer: exp(scale · q·kᵀ) as a product of positive random features (FAVOR+).

    φ_f(x) = exp(w_f·x̂ − ‖x̂‖²/2),   x̂ = √scale · x,   w_f random, orthogonal in groups of D

    o_i = Σ_j φ(q_i)·φ(k_j) v_j / Σ_j φ(q_i)·φ(k_j)

Exchange the sums over tokens and over features, and each is a softmax attention, which nothing
overflows and which the kernels compute: features attend to keys, then queries attend to features.

    u_f, l_f = Σ_j φ_f(k_j) v_j / exp(l_f), log Σ_j φ_f(k_j)      attention(w, k, v), bias −‖k̂‖²/2
    o_i      = Σ_f exp(w_f·q̂_i + l_f) u_f / Σ_f (the same)        attention(q, w, u), bias l

Causal sums have no such form: they go by blocks, in NumPy.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from numattn._aligned import empty
from numattn._arguments import as_array, flag, size
from numattn._attention import attention
from numattn._dtypes import check_floating
from numattn._names import Array, Float32Array, Layout
from numattn.approx.causal import sum_of_seen
from numattn.approx.operands import Operands, require_square, softmax_scale

BLOCK = 128  # queries of a causal block: within it the cost of a token grows with the block
LEAST_SUM = 1e-30  # of a row's weights: what float32 loses at 1e-38 is nothing beside it


def performer(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    features: int | None = None,
    *,
    is_causal: bool = False,
    seed: int = 0,
    projection: ArrayLike | None = None,
    scale: float | None = None,
    layout: Layout = "bhsd",
    num_threads: int | None = None,
) -> Array:
    """Attention with random features in place of the exponential: an unbiased estimate of weights.

    Time O(S·m), memory O(S·D + m·D). The relative error of a weight falls as 1/√m and grows as
    exp(scale·‖q + k‖²/2): good for small queries and keys (norms below √D), useless for large ones,
    which have sharp attention.

    Parameters
    ----------
    q : array of shape (B, Hq, Sq, D)
        float32, float16 or bfloat16, any strides; arithmetic is float32.
    k, v : arrays of shape (B, Hkv, Sk, D) and (B, Hkv, Sk, Dv)
        q's dtype. Hq is a multiple of Hkv. Without B, three dimensions give three.
    features : int, optional
        m; ``⌊D·log D⌋`` by default, at least 1.
    is_causal : bool
        Each query sees the keys up to its own; Sq = Sk.
    seed : int
        The same seed gives the same features.
    projection : array of shape (m, D), optional
        The vectors w themselves, in place of features and seed: those of a trained model, or what
        :func:`orthogonal_projection` makes.
    scale : float, optional
        Default ``1 / sqrt(D)``; positive.
    layout : {"bhsd", "bshd"}
        Order of the axes of q, k, v and the result.
    num_threads : int, optional
        Upper limit for this call. Causal products are NumPy's, and their threads those of its BLAS.

    Returns
    -------
    array of shape (B, Hq, Sq, Dv)
        In the layout of q and in its dtype. Without is_causal, bitwise the same for any number of
        threads.

    Raises
    ------
    TypeError
        A dtype is not supported, or q, k and v disagree.
    ValueError
        Shapes do not fit, or a number is out of range.
    MemoryError
        Memory cannot be had.

    Notes
    -----
    Choromanski et al., "Rethinking Attention with Performers" (2021). Their code adds a small
    number to each feature so that no sum is 0; here no sum is, and nothing is added.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 1, 64, 8), np.float32)
    >>> q, k = q / 2, k / 2
    >>> exact = na.attention(q, k, v)
    >>> near = na.approx.performer(q, k, v, features=2048)
    >>> bool(np.linalg.norm(near - exact) < 0.2 * np.linalg.norm(exact))
    True
    """
    operands = Operands.of(q, k, v, layout)
    width = operands.q.shape[3]
    factor = softmax_scale(scale, width)
    causal = flag("is_causal", is_causal)
    if projection is None:
        default = max(int(width * math.log(width)), 1)
        count = default if features is None else size("features", features)
        vectors = orthogonal_projection(count, width, seed=seed)
    else:
        if features is not None:
            raise ValueError(f"give features ({features}) or a projection, not both")
        vectors = _checked_projection(projection, width)
    if causal:
        require_square("is_causal", operands.q, operands.k)
        return operands.result(_causal(operands, vectors, factor))
    return operands.result(_whole(operands, vectors, factor, num_threads))


def orthogonal_projection(features: int, width: int, *, seed: int = 0) -> Float32Array:
    """Random vectors of the normal distribution, orthogonal to one another in groups of ``width``.

    Parameters
    ----------
    features : int
        How many.
    width : int
        Elements of each, D.
    seed : int
        Of NumPy's default generator.

    Returns
    -------
    float32 array of shape (features, width)

    Raises
    ------
    TypeError, ValueError
        A number is no integer, or not positive (seed: negative).

    Examples
    --------
    >>> import numattn as na
    >>> w = na.approx.orthogonal_projection(3, 8)
    >>> w.shape, bool(abs(w[0] @ w[1]) < 1e-5)
    ((3, 8), True)
    """
    count, columns = size("features", features), size("width", width)
    generator = np.random.default_rng(size("seed", seed, least=0))
    directions = np.empty((count, columns))
    for begin in range(0, count, columns):
        basis, triangle = np.linalg.qr(generator.standard_normal((columns, columns)))
        basis *= np.sign(np.diagonal(triangle))  # or else they would not be uniform
        directions[begin : begin + columns] = basis.T[: count - begin]
    lengths = np.linalg.norm(generator.standard_normal((count, columns)), axis=1)
    vectors: Float32Array = (directions * lengths[:, np.newaxis]).astype(np.float32)
    return vectors


def _checked_projection(projection: ArrayLike, width: int) -> Float32Array:
    vectors = as_array("projection", projection)
    check_floating("projection", vectors)
    if vectors.ndim != 2 or vectors.shape[1] != width or len(vectors) == 0:
        raise ValueError(f"projection must have shape (m, {width}), not {vectors.shape}")
    return vectors.astype(np.float32)


def half_squares(x: Float32Array, scale: float) -> Float32Array:
    """scale · ‖x‖²/2 of each row (..., D)."""
    halves: Float32Array = np.float32(scale / 2) * np.einsum("...d,...d->...", x, x)
    return halves


def _whole(
    operands: Operands, vectors: Float32Array, scale: float, num_threads: int | None
) -> Float32Array:
    """Features attend to keys, and queries to features."""
    batch, heads = operands.k.shape[:2]
    w = np.broadcast_to(vectors, (batch, heads, *vectors.shape))
    root = math.sqrt(scale)
    with np.errstate(all="ignore"):
        squares = half_squares(operands.k, scale)[:, :, np.newaxis]
    bias = np.maximum(-squares, np.finfo(np.float32).min)  # −inf would hide a key
    u, sums = attention(
        w, operands.k, operands.v, scale=root, bias=bias, return_lse=True,
        num_threads=num_threads,
    )  # fmt: skip
    bias = operands.for_query_heads(sums)[:, :, np.newaxis]
    return attention(operands.q, w, u, scale=root, bias=bias, num_threads=num_threads)


class Sums(NamedTuple):
    """Σ_j exp(a_jf − shift_f) and the same times v_j, over the keys so far, feature by feature."""

    shift: Array
    """(B, Hkv, m): the largest exponent so far."""
    weights: Array
    """(B, Hkv, m)"""
    values: Array
    """(B, Hkv, m, Dv)"""


def _causal(operands: Operands, vectors: Float32Array, scale: float) -> Float32Array:
    batch, heads, length, _ = operands.k.shape
    shape = (batch, heads, len(vectors))
    width = operands.v.shape[3]
    sums = Sums(
        np.full(shape, -np.inf, np.float32),
        np.zeros(shape, np.float32),
        np.zeros((*shape, width), np.float32),
    )
    q = operands.grouped_queries()
    o = empty((*q.shape[:4], width), np.float32)
    projection = vectors.T * np.float32(math.sqrt(scale))
    with np.errstate(all="ignore"):
        for begin in range(0, length, BLOCK):
            block = slice(begin, begin + BLOCK)
            keys, values = operands.k[:, :, block], operands.v[:, :, block]
            a_k = keys @ projection - half_squares(keys, scale)[..., np.newaxis]
            a_q = q[..., block, :] @ projection
            o[..., block, :], sums = _rows(a_q, a_k, values, sums)
    rows: Float32Array = o.reshape(*operands.q.shape[:3], width)
    return rows


def _rows(a_q: Array, a_k: Array, v: Array, before: Sums) -> tuple[Array, Sums]:
    """The rows of some queries, and the sums behind their keys.

    Where one key's features are so much larger than those before it that earlier rows vanish beside
    them, the heads concerned go by halves: with one key at a time, each row sees its own largest.
    """
    rows, total, after = _block(a_q, a_k, v, before)
    count = v.shape[2]
    if count == 1:
        return rows, after
    for entry, head in np.argwhere((total < LEAST_SUM).any(axis=(2, 3, 4))):
        one = (slice(entry, entry + 1), slice(head, head + 1))
        sums = Sums(*(part[one] for part in before))
        for half in (slice(count // 2), slice(count // 2, count)):
            part = (a_q[one][..., half, :], a_k[one][..., half, :], v[one][..., half, :])
            rows[one][..., half, :], sums = _rows(*part, sums)
    return rows, after


def _block(a_q: Array, a_k: Array, v: Array, before: Sums) -> tuple[Array, Array, Sums]:
    """Rows (B, Hkv, group, C, Dv), the sums of their weights (…, C, 1), and the sums of features
    behind the block.

    a_q (B, Hkv, group, C, m) and a_k (B, Hkv, C, m) are exponents of features. Each feature of keys
    is shifted by its own largest exponent and queries by as much the other way, so that products
    are of numbers up to 1; a row that sees the keys with the largest has one of 1.
    """
    shift = np.fmax(before.shift, np.fmax.reduce(a_k, axis=2))  # a key that is NaN gives none
    decay = np.where(np.isneginf(before.shift), 0, np.exp(before.shift - shift))
    weights = before.weights * decay
    values = before.values * decay[..., np.newaxis]
    k_features = np.exp(a_k - shift[:, :, np.newaxis])
    exponents = a_q + shift[:, :, np.newaxis, np.newaxis]
    q_features = np.exp(exponents - exponents.max(axis=-1, keepdims=True))
    pairs = np.tril(q_features @ k_features.swapaxes(2, 3)[:, :, np.newaxis])
    total = pairs.sum(axis=-1, keepdims=True)
    total += q_features @ weights[:, :, np.newaxis, :, np.newaxis]
    weighed = sum_of_seen(pairs, v[:, :, np.newaxis]) + q_features @ values[:, :, np.newaxis]
    rows = np.divide(weighed, total, out=np.zeros_like(weighed), where=total != 0)
    weights += k_features.sum(axis=2)
    values += k_features.swapaxes(2, 3) @ v
    return rows, total, Sums(shift, weights, values)
