"""Softmax attention over NumPy arrays, computed block by block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from numattn import _core
from numattn._arguments import (
    as_array,
    as_output,
    channel_table,
    flag,
    in_kind_of,
    integer_array,
    layout_name,
    optional_array,
    precision_name,
    thread_count,
)
from numattn._memory import require_apart
from numattn._names import Array, Float32Array, Int64Array, Layout, Output, Precision
from numattn._score import Score, ScoreOptions, require_known, spelled_out

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from numattn._batches import Batches


@overload
def attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    k_scale: ArrayLike | None = ...,
    v_scale: ArrayLike | None = ...,
    k_wide: ArrayLike | None = ...,
    layout: Layout = ...,
    precision: Precision = ...,
    out: Output | None = ...,
    return_lse: Literal[False] = ...,
    num_threads: int | None = ...,
    **score: Unpack[ScoreOptions],
) -> Array: ...
@overload
def attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    k_scale: ArrayLike | None = ...,
    v_scale: ArrayLike | None = ...,
    k_wide: ArrayLike | None = ...,
    layout: Layout = ...,
    precision: Precision = ...,
    out: Output | None = ...,
    return_lse: Literal[True],
    num_threads: int | None = ...,
    **score: Unpack[ScoreOptions],
) -> tuple[Array, Float32Array]: ...
@spelled_out(ScoreOptions)
def attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    k_scale: ArrayLike | None = None,
    v_scale: ArrayLike | None = None,
    k_wide: ArrayLike | None = None,
    layout: Layout = "bhsd",
    precision: Precision = "highest",
    out: Output | None = None,
    return_lse: bool = False,
    num_threads: int | None = None,
    **score: Unpack[ScoreOptions],
) -> Array | tuple[Array, Float32Array]:
    """Scaled softmax attention: ``softmax(scale · q kᵀ + …) v``, never holding an S × S matrix.

    The order is: scores ``s = scale · q · kᵀ``, softcap, bias and ALiBi added, mask and structure
    (what leaves each query an interval of keys) applied, softmax with the sink, product with v.
    Accumulation and softmax are in float32 whatever the dtype.

    Parameters
    ----------
    q : array of shape (B, Hq, Sq, D)
        Queries, float32, float16 or bfloat16 (``ml_dtypes.bfloat16``); any strides.
    k : array of shape (B, Hkv, Sk, D)
        Keys, q's dtype. Query head h reads key head ``h // (Hq // Hkv)``.
    v : array of shape (B, Hkv, Sk, Dv)
        Values, q's dtype. Three-dimensional q, k, v are one batch entry and give a
        three-dimensional result. There may be several batch axes, (..., H, S, D); in each of them
        q, k and v are alike or 1, and what is 1 serves all, without a copy where there is but one
        axis. B is then all of these axes, in whatever else has B.
    {score}
    k_scale, v_scale : float32 arrays of shape (B, Hkv, Sk), optional
        For k and v of dtype int8, whose numbers are those integers times the scale of their token
        and head; the last axis left out of the layout of k and v. See :func:`numattn.quantize`.
    k_wide : int array of shape (Hkv, E), optional
        For k of dtype int8 and width D + E: channels that have 16 bits. Their numbers are, before
        they are scaled, ``k[..., k_wide[h, e]] + 256 · k[..., D + e]`` in head h; a channel of −1
        is none. See :func:`numattn.quantize`.
    layout : {"bhsd", "bshd"}
        Order of the axes of q, k, v and the result; nothing is copied.
    precision : {"highest", "high"}
        "high" lets float32 products be computed as three products of bfloat16 where a unit for
        those makes it faster (AMX): relative error up to 2e-5 for logits of a standard deviation
        up to 10, more beyond. Elsewhere, and for other dtypes, it changes nothing.
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

    An array may also be a tensor of another library with ``__dlpack__`` (PyTorch, JAX, …) in the
    CPU's memory: it is read in place, without its gradient, and results are of q's kind.

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
    require_known("attention", score, ScoreOptions)
    model = q
    q, k, v = as_array("q", q), as_array("k", k), as_array("v", v)
    written = None if out is None else as_output(out)
    k_factor, v_factor = optional_array("k_scale", k_scale), optional_array("v_scale", v_scale)
    wide = channel_table("k_wide", k_wide)
    queries, rules_given, batches = _prepared(q, k, v, score, layout)
    if batches is not None:
        several: Array | tuple[Array, Float32Array] = _over_batches(
            batches, (queries, k, v), (k_factor, v_factor), rules_given, written,
            {"q": q, "k_wide": wide} | score, k_wide=wide, layout=layout, precision=precision,
            return_lse=return_lse, num_threads=num_threads,
        )  # fmt: skip
        return in_kind_of(model, several, out)
    rules = Score.of(**rules_given)
    if written is not None:
        scales = {"k_scale": k_factor, "v_scale": v_factor, "k_wide": wide}
        read = {"q": q, "k": k, "v": v, **scales, "score": rules, "scale": score.get("scale")}
        require_apart(written, read)
    result: Array | tuple[Array, Float32Array] = _core.attention(
        queries, k, v, k_factor, v_factor, wide, rules, layout_name(layout),
        precision_name(precision), thread_count(num_threads), written,
        flag("return_lse", return_lse),
    )  # fmt: skip
    if q is model and written is out:  # arrays all, told quickly
        return result
    return in_kind_of(model, result, out)


def _prepared(
    q: Array, k: Array, v: Array, score: Mapping[str, Any], layout: object
) -> tuple[Array, Mapping[str, Any], Batches | None]:
    """Queries and the score's arguments as the core takes them, and the batch axes if there are
    several or some that broadcast. What seldom calls need is imported for them."""
    scale = score.get("scale")
    if scale is not None and type(scale) is not float and np.ndim(scale) > 0:
        from numattn._head_scale import with_head_scale

        q, score = with_head_scale(q, scale, score, layout)
    axes = q.ndim
    if axes < 4 or not axes == k.ndim == v.ndim or axes == 4 and len(q) == len(k) == len(v):
        return q, score, None
    from numattn._batches import Batches

    return q, score, Batches.of(q, k, v)


def _over_batches(
    batches: Batches,
    heads: tuple[Array, Array, Array],
    factors: tuple[Array | None, Array | None],
    score: Mapping[str, Any],
    out: Array | None,
    read: Mapping[str, Any],
    **options: Any,
) -> Any:
    """Attention whose batch axes are several, or broadcast, by one call with one of them.

    ``read`` is what the caller gave beside keys, values and their scales, from which ``out`` must
    be apart; what is handed on may be copies.
    """
    q, k, v = heads
    written = None
    if out is not None:
        require_apart(out, {**read, "k": k, "v": v, "k_scale": factors[0], "v_scale": factors[1]})
        written = batches.output(out, q, v, options["layout"])
    flat = [None if factor is None else batches.flat(factor, 2) for factor in factors]
    attend: Any = attention
    result = attend(
        *(batches.heads(x) for x in heads), k_scale=flat[0], v_scale=flat[1], out=written,
        **options, **batches.score(score),
    )  # fmt: skip
    if not isinstance(result, tuple):
        return batches.restored(result) if out is None else out
    o, lse = result
    return batches.restored(o) if out is None else out, batches.restored(lse)


@spelled_out(ScoreOptions)
def attention_weights(
    q: ArrayLike,
    k: ArrayLike,
    *,
    rows: ArrayLike | None = None,
    layout: Layout = "bhsd",
    num_threads: int | None = None,
    **score: Unpack[ScoreOptions],
) -> Float32Array:
    """Exact attention probabilities of all query rows, or of chosen ones without the rest.

    Parameters
    ----------
    q, k : arrays of shape (B, Hq, Sq, D) and (B, Hkv, Sk, D)
        As for :func:`attention`, with as many batch axes.
    rows : int or int array of shape (R,), optional
        The query rows wanted, negative ones counted from the end; all by default. Positions,
        masks and biases are those of the rows named.
    layout, **score
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
        As for :func:`attention`; ValueError also for a row that does not exist, and for a
        ``skip_below`` other than 0.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> q = k = np.eye(3, dtype=np.float32)[None]
    >>> na.attention_weights(q, k, rows=-1, scale=1.0).round(3)
    array([[[0.212, 0.212, 0.576]]], dtype=float32)
    """
    require_known("attention_weights", score, ScoreOptions)
    queries, keys = as_array("q", q), as_array("k", k)
    if queries.ndim < 3:
        raise ValueError(f"q must have 3 dimensions or more, not shape {queries.shape}")
    queries, given, batches = _prepared(queries, keys, keys, score, layout)
    if batches is not None:
        queries, keys = batches.heads(queries), batches.heads(keys)
        given = batches.score(given)
    rules = Score.of(**given)
    if rules.skip_below:
        raise ValueError(
            "skip_below must be 0 in attention_weights, which gives the weights of all keys, not "
            f"{rules.skip_below}"
        )
    count = queries.shape[-2] if layout == "bhsd" else queries.shape[-3]
    weights: Float32Array = _core.attention_weights(
        queries, keys, _row_indices(rows, count), rules, layout_name(layout),
        thread_count(num_threads),
    )  # fmt: skip
    whole = weights if batches is None else batches.restored(weights)
    return in_kind_of(q, whole)


def _row_indices(rows: ArrayLike | None, count: int) -> Int64Array | None:
    if rows is None:
        return None
    picked = integer_array("rows", rows, scalar=True).reshape(-1)
    if picked.size and (picked.min() < -count or picked.max() >= count):
        wrong = picked[(picked < -count) | (picked >= count)][0]
        raise ValueError(f"rows names query {wrong}, but there are {count} queries")
    return np.where(picked < 0, picked + count, picked)
