"""Softmax attention over NumPy arrays, computed block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn import _core
from numattn._arguments import as_array, integer_array, optional_array, score_arguments
from numattn._memory import require_apart
from numattn._names import Array, Layout, Precision, Window
from numattn.position.relative import Relative, relative_arguments


@overload
def attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    mask: ArrayLike | None = ...,
    bias: ArrayLike | None = ...,
    is_causal: bool = ...,
    q_offset: ArrayLike = ...,
    window: Window = ...,
    scale: float | None = ...,
    softcap: float | None = ...,
    kv_lens: ArrayLike | None = ...,
    alibi_slopes: ArrayLike | None = ...,
    sinks: ArrayLike | None = ...,
    relative: Relative | None = ...,
    k_scale: ArrayLike | None = ...,
    v_scale: ArrayLike | None = ...,
    layout: Layout = ...,
    precision: Precision = ...,
    out: Array | None = ...,
    return_lse: Literal[False] = ...,
    num_threads: int | None = ...,
) -> Array: ...
@overload
def attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    mask: ArrayLike | None = ...,
    bias: ArrayLike | None = ...,
    is_causal: bool = ...,
    q_offset: ArrayLike = ...,
    window: Window = ...,
    scale: float | None = ...,
    softcap: float | None = ...,
    kv_lens: ArrayLike | None = ...,
    alibi_slopes: ArrayLike | None = ...,
    sinks: ArrayLike | None = ...,
    relative: Relative | None = ...,
    k_scale: ArrayLike | None = ...,
    v_scale: ArrayLike | None = ...,
    layout: Layout = ...,
    precision: Precision = ...,
    out: Array | None = ...,
    return_lse: Literal[True],
    num_threads: int | None = ...,
) -> tuple[Array, NDArray[np.float32]]: ...
def attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    is_causal: bool = False,
    q_offset: ArrayLike = 0,
    window: Window = None,
    scale: float | None = None,
    softcap: float | None = None,
    kv_lens: ArrayLike | None = None,
    alibi_slopes: ArrayLike | None = None,
    sinks: ArrayLike | None = None,
    relative: Relative | None = None,
    k_scale: ArrayLike | None = None,
    v_scale: ArrayLike | None = None,
    layout: Layout = "bhsd",
    precision: Precision = "highest",
    out: Array | None = None,
    return_lse: bool = False,
    num_threads: int | None = None,
) -> Array | tuple[Array, NDArray[np.float32]]:
    """Scaled softmax attention: ``softmax(scale · q kᵀ + …) v``, never holding an S × S matrix.

    The order is: scores ``s = scale · q · kᵀ``, softcap, bias and ALiBi added, mask and structure
    (causal, window, lengths) applied, softmax with the sink, product with v. Accumulation and
    softmax are in float32 whatever the dtype.

    Parameters
    ----------
    q : array of shape (B, Hq, Sq, D)
        Queries, float32, float16 or bfloat16 (``ml_dtypes.bfloat16``); any strides.
    k : array of shape (B, Hkv, Sk, D)
        Keys, q's dtype. Query head h reads key head ``h // (Hq // Hkv)``.
    v : array of shape (B, Hkv, Sk, Dv)
        Values, q's dtype. Three-dimensional q, k, v are one batch entry and give a
        three-dimensional result.
    mask : bool array, optional
        True = may attend. Broadcasts to (B, Hq, Sq, Sk), never expanded in memory. A key hidden
        here has weight exactly 0 whatever its score; but its value row may still be multiplied by
        0, so a NaN or infinity there may show. Hide padding with ``kv_lens`` to have it never read.
    bias : float32 array (or q's dtype), optional
        Added to the scores; broadcasts likewise. −inf excludes a key.
    is_causal : bool
        Key j is visible to query i iff ``j <= q_offset + i``.
    q_offset : int or int array of shape (B,)
        Position of the first query among the keys. 0 aligns the causal diagonal top-left
        (PyTorch, JAX, ONNX); ``Sk - Sq`` bottom-right (a decoder with a cache).
    window : (left, right), optional
        Key j is visible iff ``pos - left <= j <= pos + right``, ``pos = q_offset + i``; −1 or None
        leaves a side unbounded.
    scale : float, optional
        Default ``1 / sqrt(D)``, or that of ``relative`` if it has one.
    softcap : float, optional
        Scores become ``softcap · tanh(s / softcap)``.
    kv_lens : int array of shape (B,), optional
        Only keys ``j < kv_lens[b]`` exist.
    alibi_slopes : array of shape (Hq,) or (B, Hq), optional
        Adds ``-slope · |pos - j|``.
    sinks : array of shape (Hq,), optional
        One extra logit per head that takes probability and gives no value.
    relative : numattn.position.Relative, optional
        Terms of scores and values by the distance of a query from a key, through learned tables:
        :func:`numattn.position.shaw`, ``transformer_xl``, ``disentangled``. They belong to the
        scaled scores, before softcap. Computed in float32 for every dtype and number of queries.
    k_scale, v_scale : float32 arrays of shape (B, Hkv, Sk), optional
        For k and v of dtype int8, whose numbers are those integers times the scale of their token
        and head; the last axis left out of the layout of k and v. See :func:`numattn.quantize`.
    layout : {"bhsd", "bshd"}
        Order of the axes of q, k, v and the result; nothing is copied.
    precision : {"highest", "high"}
        "high" lets float32 products be computed as three products of bfloat16 where a unit for
        those makes it faster (AMX): relative error up to 2e-5. Elsewhere, and for other dtypes, it
        changes nothing.
    out : array, optional
        Where the result goes: its shape and q's dtype, last dimension contiguous, apart from every
        input.
    return_lse : bool
        Also return the log-sum-exp of each row's logits, the sink included.
    num_threads : int, optional
        Upper limit for this call.

    Returns
    -------
    o : array of shape (B, Hq, Sq, Dv)
        In the layout of q and in its dtype. A row that may attend nothing is 0.
    lse : float32 array of shape (B, Hq, Sq)
        With ``return_lse=True``; −inf (or the sink) for a row that may attend nothing.

    Raises
    ------
    TypeError
        A dtype is not supported, or q, k and v disagree; nothing is cast silently.
    ValueError
        Shapes, lengths or ranges do not fit, or ``out`` cannot be written; nothing is written.
    MemoryError
        Scratch memory cannot be had; nothing is written.

    Notes
    -----
    Vaswani et al., "Attention Is All You Need" (2017); the online softmax of Milakov and
    Gimelshein (2018), blocked as in FlashAttention (Dao et al., 2022). The semantics follow the
    ONNX ``Attention`` operator. Keys that structure excludes are never read.

    Scores are kept in units of log 2: a finite bias beyond ±2.3e38 counts as ±2.3e38, and a
    product ``scale · q · k`` beyond it is infinite.

    Where a unit multiplies bfloat16 (AVX512-BF16, AMX), subnormal queries and keys of that dtype
    count as 0; values are honoured.

    Results are bitwise the same for any number of threads, any batch neighbours and any memory
    layout of the same values on one instruction set.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> q = k = v = np.eye(3, dtype=np.float32)[None]
    >>> na.attention(q, k, v, is_causal=True, scale=1.0).round(3)
    array([[[1.   , 0.   , 0.   ],
            [0.269, 0.731, 0.   ],
            [0.212, 0.212, 0.576]]], dtype=float32)
    """
    score = score_arguments(
        mask, bias, is_causal, q_offset, window, scale, softcap, kv_lens, alibi_slopes, sinks,
        layout, num_threads, precision, relative_arguments(relative),
    )  # fmt: skip
    q, k, v = as_array("q", q), as_array("k", k), as_array("v", v)
    scales = {"k_scale": optional_array("k_scale", k_scale)}
    scales["v_scale"] = optional_array("v_scale", v_scale)
    if out is not None:
        require_apart(out, {"q": q, "k": k, "v": v, **scales, "score": score})
    result: Array | tuple[Array, NDArray[np.float32]] = _core.attention(
        q, k, v, scales["k_scale"], scales["v_scale"], score, out, bool(return_lse)
    )
    return result


def attention_weights(
    q: ArrayLike,
    k: ArrayLike,
    *,
    rows: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    is_causal: bool = False,
    q_offset: ArrayLike = 0,
    window: Window = None,
    scale: float | None = None,
    softcap: float | None = None,
    kv_lens: ArrayLike | None = None,
    alibi_slopes: ArrayLike | None = None,
    sinks: ArrayLike | None = None,
    relative: Relative | None = None,
    layout: Layout = "bhsd",
    num_threads: int | None = None,
) -> NDArray[np.float32]:
    """Exact attention probabilities of all query rows, or of chosen ones without the rest.

    Parameters
    ----------
    q, k : arrays of shape (B, Hq, Sq, D) and (B, Hkv, Sk, D)
        As for :func:`attention`.
    rows : int or int array of shape (R,), optional
        The query rows wanted, negative ones counted from the end; all by default. Positions,
        masks and biases are those of the rows named.
    mask, bias, is_causal, q_offset, window, scale, softcap, kv_lens, alibi_slopes, sinks
        As for :func:`attention`.
    relative, layout
        As for :func:`attention`.
    num_threads : int, optional
        Upper limit for this call.

    Returns
    -------
    float32 array of shape (B, Hq, R, Sk)
        Rows sum to 1 (less the sink's share), or are 0 where nothing may be attended. Keys that may
        not be attended have weight exactly 0.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As for :func:`attention`; ValueError also for a row that does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> q = k = np.eye(3, dtype=np.float32)[None]
    >>> na.attention_weights(q, k, rows=-1, scale=1.0).round(3)
    array([[[0.212, 0.212, 0.576]]], dtype=float32)
    """
    score = score_arguments(
        mask, bias, is_causal, q_offset, window, scale, softcap, kv_lens, alibi_slopes, sinks,
        layout, num_threads,
        relative=relative_arguments(relative, values=False),
    )  # fmt: skip
    queries, keys = as_array("q", q), as_array("k", k)
    if queries.ndim not in (3, 4):
        raise ValueError(f"q must have 3 or 4 dimensions, not shape {queries.shape}")
    count = queries.shape[-2] if layout == "bhsd" else queries.shape[-3]
    weights: NDArray[np.float32] = _core.attention_weights(
        queries, keys, _row_indices(rows, count), score
    )
    return weights


def _row_indices(rows: ArrayLike | None, count: int) -> NDArray[np.int64] | None:
    if rows is None:
        return None
    picked = integer_array("rows", rows, scalar=True).reshape(-1)
    if picked.size and (picked.min() < -count or picked.max() >= count):
        wrong = picked[(picked < -count) | (picked >= count)][0]
        raise ValueError(f"rows names query {wrong}, but there are {count} queries")
    return np.where(picked < 0, picked + count, picked)


__all__: Sequence[str] = ["attention", "attention_weights"]
