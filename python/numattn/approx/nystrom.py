"""Nyström attention: the softmax matrix from its columns and rows at a few landmarks.

    o = K₁ · Z · (K₃ · v),   K₁ = softmax(scale · q · k̃ᵀ)    (Sq, m)
                             K₂ = softmax(scale · q̃ · k̃ᵀ)    (m, m)
                             K₃ = softmax(scale · q̃ · kᵀ)    (m, Sk)

q̃ and k̃ are means of m segments; Z is the Moore-Penrose inverse of K₂ by iteration. The products
with K₁ and K₃ are attention themselves: neither matrix is ever held.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn._arguments import size
from numattn._attention import attention, attention_weights
from numattn._names import Array, Float32Array, Layout
from numattn.approx.operands import Operands, softmax_scale

Initial: TypeAlias = Literal["matrix", "batch"]


def nystrom(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    landmarks: int = 64,
    *,
    iterations: int = 6,
    initial: Initial = "matrix",
    scale: float | None = None,
    layout: Layout = "bhsd",
    num_threads: int | None = None,
) -> Array:
    """Attention by its rows and columns at landmarks, the means of segments of q and of k.

    Time O(S·m), memory O(S·D + m²). It is near to exact attention where rows of the softmax matrix
    are mixtures of few others (flat, smooth attention), and wrong where queries look for single
    keys: the error is not bounded by anything that can be told without the exact result. With as
    many landmarks as tokens it is :func:`attention`.

    Parameters
    ----------
    q : array of shape (B, Hq, Sq, D)
        float32, float16 or bfloat16, any strides; arithmetic is float32.
    k, v : arrays of shape (B, Hkv, Sk, D) and (B, Hkv, Sk, Dv)
        q's dtype. Hq is a multiple of Hkv. Without B, three dimensions give three.
    landmarks : int
        m, at most Sq and Sk. Segment i is tokens ``⌊i·S/m⌋ … ⌊(i + 1)·S/m⌋ − 1``.
    iterations : int
        Steps of the inverse: each some cubes the error, once it is small.
    initial : {"matrix", "batch"}
        Where the inverse begins: at K₂ᵀ over the largest sum of a column, of the matrix itself, or
        of all matrices of the batch as in transformers' Nystromformer, where a row's result then
        depends on its neighbours.
    scale : float, optional
        Default ``1 / sqrt(D)``.
    layout : {"bhsd", "bshd"}
        Order of the axes of q, k, v and the result.
    num_threads : int, optional
        Upper limit for this call, but not for the m × m products of the inverse, which are NumPy's.

    Returns
    -------
    array of shape (B, Hq, Sq, Dv)
        In the layout of q and in its dtype.

    Raises
    ------
    TypeError
        A dtype is not supported, or q, k and v disagree.
    ValueError
        Shapes do not fit, or there are more landmarks than tokens.
    MemoryError
        Memory cannot be had.

    Notes
    -----
    Xiong et al., "Nyströmformer: A Nyström-Based Algorithm for Approximating Self-Attention"
    (2021). Its layer also adds a depthwise convolution of v, which is not part of this. It cannot
    be causal: a landmark has tokens of all its segment.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 1, 64, 8), np.float32)
    >>> exact = na.attention(q, k, v)
    >>> near = na.approx.nystrom(q, k, v, landmarks=32)
    >>> bool(np.linalg.norm(near - exact) < np.linalg.norm(exact))
    True
    """
    operands = Operands.of(q, k, v, layout)
    factor = softmax_scale(scale, operands.q.shape[3])
    count, steps = size("landmarks", landmarks), size("iterations", iterations)
    if initial not in ("matrix", "batch"):
        raise ValueError(f"initial must be 'matrix' or 'batch', not {initial!r}")
    queries, keys = operands.q.shape[2], operands.k.shape[2]
    if count > min(queries, keys):
        raise ValueError(f"landmarks is {count}, but there are {queries} queries and {keys} keys")
    if count == queries == keys:
        o = attention(operands.q, operands.k, operands.v, scale=factor, num_threads=num_threads)
        return operands.result(o)
    q_marks, k_marks = segment_means(operands.q, count), segment_means(operands.k, count)
    kernel = attention_weights(q_marks, k_marks, scale=factor, num_threads=num_threads)
    values = attention(q_marks, operands.k, operands.v, scale=factor, num_threads=num_threads)
    with np.errstate(all="ignore"):
        inverse = iterative_inverse(kernel, steps, initial)
        mixed = (inverse @ values).astype(np.float32)
    columns = operands.for_query_heads(k_marks)
    o = attention(operands.q, columns, mixed, scale=factor, num_threads=num_threads)
    return operands.result(o)


def segment_means(x: Float32Array, count: int) -> Float32Array:
    """The means (B, H, count, D) of as many segments of x (B, H, S, D), alike in length or off by
    one."""
    length = x.shape[2]
    starts = np.arange(count) * length // count
    lengths = np.diff(starts, append=length)
    sums: Float32Array
    if length % count == 0:
        sums = x.reshape(*x.shape[:2], count, -1, x.shape[3]).sum(axis=3)
    else:
        sums = np.add.reduceat(x, starts, axis=2)
    sums /= lengths[:, np.newaxis].astype(np.float32)
    return sums


def iterative_inverse(kernel: Float32Array, steps: int, initial: Initial) -> NDArray[np.float64]:
    """Z ≈ K⁺ for stochastic matrices K (..., m, m), in float64.

    Z₀ = Kᵀ / ‖K‖₁, and Z ← ¼·Z·(13·I − K·Z·(15·I − K·Z·(7·I − K·Z))), of third order (Razavi et
    al., 2014). In float64 because whatever is rounded here is multiplied by the norm of Z.
    """
    matrix = kernel.astype(np.float64)
    columns = matrix.sum(axis=-2).max(axis=-1)
    largest = columns.max(initial=0.0) if initial == "batch" else columns[..., None, None]
    inverse: NDArray[np.float64] = matrix.swapaxes(-1, -2) / largest
    identity = np.eye(matrix.shape[-1])
    for _ in range(steps):
        product = matrix @ inverse
        inner = 15 * identity - product @ (7 * identity - product)
        inverse = 0.25 * inverse @ (13 * identity - product @ inner)
    return inverse
