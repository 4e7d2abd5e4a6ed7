"""Exact attention to the blocks of keys that pooled scores think most of.

    p = softmax over key blocks of scale · mean(q of a query block) · mean(k of a key block)

A query block attends to the fewest key blocks whose p add up to ``mass``, to its own block where it
is causal, and to the first. Blocks are pages: attention reads them where they lie.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn._arguments import flag, real, size
from numattn._names import Array, Float32Array, Layout
from numattn.approx.nystrom import segment_means
from numattn.approx.operands import Operands, require_square, softmax_scale
from numattn.paged import attention_paged

Chosen = NDArray[np.bool_]


def top_blocks(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    mass: float = 0.95,
    block: int = 64,
    is_causal: bool = False,
    scale: float | None = None,
    layout: Layout = "bhsd",
    num_threads: int | None = None,
) -> Array:
    """Attention of each block of queries to the blocks of keys that matter to it, by pooled scores.

    Time and error depend on the data: keys that a block's mean hides are missed. Attention that is
    flat, or whose large weights lie scattered, needs nearly all blocks; with ``mass=1.0`` all are
    taken, and the result is that of :func:`numattn.attention` but for rounding.

    Parameters
    ----------
    q : array of shape (B, Hq, Sq, D)
        float32, float16 or bfloat16, any strides; arithmetic is float32.
    k, v : arrays of shape (B, Hkv, Sk, D) and (B, Hkv, Sk, Dv)
        q's dtype. Hq is a multiple of Hkv. Without B, three dimensions give three.
    mass : float
        Share of the pooled softmax that is kept, above 0 and up to 1.
    block : int
        Queries, and keys, of a block.
    is_causal : bool
        Each query sees the keys up to its own; Sq = Sk.
    scale : float, optional
        Default ``1 / sqrt(D)``; positive.
    layout : {"bhsd", "bshd"}
        Order of the axes of q, k, v and the result.
    num_threads : int, optional
        Upper limit for this call.

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
    MemoryError
        Memory cannot be had.

    Notes
    -----
    Memory O(S · D + (S / block)²). The choice by pooled scores is that of MInference (Jiang et al.,
    2024) and FlexPrefill (Lai et al., 2025).

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 2, 256, 16), np.float32)
    >>> all_blocks = na.approx.top_blocks(q, k, v, mass=1.0, is_causal=True)
    >>> bool(np.allclose(all_blocks, na.attention(q, k, v, is_causal=True), atol=1e-5))
    True
    """
    operands, share, length, causal, factor = _checked(
        q, k, v, layout, mass, block, is_causal, scale
    )
    batch, heads, queries, width = operands.q.shape
    keys = operands.k.shape[2]
    if not queries or not keys or not batch:
        return operands.result(np.zeros((*operands.q.shape[:3], operands.v.shape[3]), np.float32))
    chosen = _chosen(operands, share, length, causal, factor)
    counts = chosen.sum(axis=-1).reshape(-1)
    order = np.argsort(~chosen, axis=-1, kind="stable")[..., : counts.max()]
    # Blocks of a key head lie one after the other in the pool of pages.
    pool = np.arange(batch)[:, None] * operands.k.shape[1] + np.arange(heads) // operands.group
    blocks = chosen.shape[-1]
    table = (pool[..., None, None] * blocks + order).reshape(len(counts), -1)
    lengths = counts * length
    partial = chosen[..., -1].reshape(-1)  # the last block may be short; it comes last
    lengths -= np.where(partial, blocks * length - keys, 0)
    rows = _in_blocks(operands.q, length).reshape(-1, 1, length, width)
    o = attention_paged(
        rows, _pages(operands.k, length), _pages(operands.v, length), table, lengths,
        is_causal=causal, q_offset=(counts - 1) * length if causal else 0, scale=factor,
        num_threads=num_threads,
    )  # fmt: skip
    whole: Float32Array = o.reshape(batch, heads, -1, o.shape[-1])[:, :, :queries]
    return operands.result(whole)


def choose_blocks(
    q: ArrayLike,
    k: ArrayLike,
    *,
    mass: float = 0.95,
    block: int = 64,
    is_causal: bool = False,
    scale: float | None = None,
    layout: Layout = "bhsd",
) -> Chosen:
    """Which blocks of keys each block of queries attends to in :func:`top_blocks`.

    Parameters
    ----------
    q, k, mass, block, is_causal, scale, layout
        As there.

    Returns
    -------
    bool array of shape (B, Hq, query blocks, key blocks)
        (Hq, …) without B.

    Raises
    ------
    TypeError, ValueError
        As there.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> x = 9 * np.eye(4, dtype=np.float32).repeat(2, axis=0)[None]
    >>> na.approx.choose_blocks(x, x, block=2, mass=0.9)[0].astype(int)
    array([[1, 0, 0, 0],
           [1, 1, 0, 0],
           [1, 0, 1, 0],
           [1, 0, 0, 1]])
    """
    operands, share, length, causal, factor = _checked(
        q, k, k, layout, mass, block, is_causal, scale
    )
    chosen = _chosen(operands, share, length, causal, factor)
    return chosen[0] if operands.one_entry else chosen


def _checked(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    layout: Layout,
    mass: float,
    block: int,
    is_causal: bool,
    scale: float | None,
) -> tuple[Operands, float, int, bool, float]:
    operands = Operands.of(q, k, v, layout)
    share = real("mass", mass)
    if not 0 < share <= 1:
        raise ValueError(f"mass must be above 0 and up to 1, not {share}")
    causal = flag("is_causal", is_causal)
    if causal:
        require_square("is_causal", operands.q, operands.k)
    factor = softmax_scale(scale, operands.q.shape[3])
    return operands, share, size("block", block), causal, factor


def _chosen(operands: Operands, mass: float, length: int, causal: bool, factor: float) -> Chosen:
    q, k = (_block_means(x, length) for x in (operands.q, operands.k))
    with np.errstate(all="ignore"):
        scores = np.float32(factor) * (q @ operands.for_query_heads(k).swapaxes(2, 3))
    rows, columns = scores.shape[2:]
    visible = np.tri(rows, columns, dtype=np.bool_) if causal else np.ones((rows, columns), bool)
    scores = np.where(visible, scores, -np.inf)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-np.inf))
    shares /= shares.sum(axis=-1, keepdims=True)
    order = np.argsort(-shares, axis=-1, kind="stable")
    before = np.cumsum(np.take_along_axis(shares, order, axis=-1), axis=-1, dtype=np.float64)
    before = np.roll(before, 1, axis=-1)
    before[..., :1] = 0
    chosen = np.empty(shares.shape, np.bool_)
    np.put_along_axis(chosen, order, before < mass, axis=-1)
    if mass == 1:
        chosen[...] = True
    chosen[..., :1] = True
    if causal:
        chosen |= np.eye(rows, columns, dtype=np.bool_)
    return chosen & visible


def _block_means(x: Float32Array, length: int) -> Float32Array:
    """The mean of each block of tokens, the last of which may be short: (B, H, blocks, D)."""
    whole = x.shape[2] // length
    parts = []
    if whole:
        parts.append(segment_means(x[:, :, : whole * length], whole))
    if x.shape[2] % length:
        parts.append(x[:, :, whole * length :].mean(axis=2, keepdims=True))
    return np.concatenate(parts, axis=2) if parts else x


def _in_blocks(x: Float32Array, length: int) -> Float32Array:
    """Tokens as (B, H, blocks, block, D): a view, or a copy that zeros fill up."""
    rest = -x.shape[2] % length
    if rest:
        x = np.pad(x, ((0, 0), (0, 0), (0, rest), (0, 0)))
    return x.reshape(*x.shape[:2], -1, length, x.shape[3])


def _pages(x: Float32Array, length: int) -> Float32Array:
    """Blocks of all key heads as pages (B · Hkv · blocks, block, 1, D)."""
    return _in_blocks(x, length).reshape(-1, length, 1, x.shape[3])
