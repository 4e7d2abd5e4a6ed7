"""softmax(s)·v, and the softmax alone, in float64.

With s and `allowed` of `score.py`, over the keys j that row i may attend:

    m = max(s, sink)    p_j = exp(s_j − m)    l = Σ p_j + exp(sink − m)
    weight_j = p_j / l    o = Σ weight_j·v_j    lse = m + log l

(Vaswani et al., Attention Is All You Need, 2017, section 3.2.1, with the score arguments of the
ONNX operator Attention and the attention sink of Xiao et al., 2023.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import BoolArray, Float64Array
from .batches import entry_by_entry
from .relative import weigh_distances
from .score import check_keywords, final_scores, heads_first, positions, share_heads
from .storage import check_precision, widened


@entry_by_entry
def attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    k_scale: ArrayLike | None = None,
    v_scale: ArrayLike | None = None,
    k_wide: ArrayLike | None = None,
    layout: str = "bhsd",
    precision: str = "highest",
    out: NDArray[Any] | None = None,
    return_lse: bool = False,
    num_threads: int | None = None,
    **score: Any,
) -> Any:
    """Scaled dot-product attention, as `numattn.attention` promises it, in float64.

    Parameters
    ----------
    q : array (B, Hq, Sq, D)
        Queries, of any float dtype. Query head h uses key head h // (Hq // Hkv).
        Three dimensions are one batch entry, and give a result of three.
    k : array (B, Hkv, Sk, D)
        Keys.
    v : array (B, Hkv, Sk, Dv)
        Values. Several batch axes broadcast: (..., H, S, D).
    k_scale, v_scale : float arrays (B, Hkv, Sk), optional
        What k and v are multiplied by, token by token and head by head; their last axis left out.
    k_wide : int array (Hkv, E), optional
        The last E of k's D + E columns are, in units of 256, what channels k_wide[h] of head h hold
        beyond their own; a channel of −1 is none.
    layout : "bhsd" or "bshd"
        Order of the dimensions of q, k, v and the result.
    precision : "highest" or "high"
        Accepted so that calls can be compared; the reference always computes in float64.
    out : array, optional
        Receives the result, cast to its dtype.
    return_lse : bool
        Also return the log-sum-exp of the final scores, sink included.
    num_threads : int, optional
        Accepted so that calls can be compared; the reference ignores it.
    **score
        Keywords of `score.final_scores`, and `sinks`, an array (Hq,): one more logit per head,
        which takes probability and gives no value.

    Returns
    -------
    o : float64 array shaped like q with Dv for D, or `out`
        A row that may attend nothing is 0. A non-finite value reaches exactly the rows that attend
        it; an excluded key's value is left out, not multiplied by 0.
    lse : float64 array (B, Hq, Sq)
        Only with `return_lse`; −inf (or the sink) for a row that may attend nothing.

    Raises
    ------
    TypeError
        If a keyword is unknown.
    ValueError
        If the shapes do not fit one another, or the layout or the precision is unknown.

    Examples
    --------
    >>> q = k = [[[1.0], [1.0]]]
    >>> v = [[[2.0], [4.0]]]
    >>> attention(q, k, v).tolist()
    [[[3.0], [3.0]]]
    >>> attention(q, k, v, is_causal=True).tolist()
    [[[2.0], [3.0]]]
    """
    check_keywords("attention", score)
    check_precision(precision)
    sinks, relative = score.pop("sinks", None), score.get("relative")
    one_entry = np.ndim(q) == 3
    query, key, value = (
        heads_first(x, layout, name)
        for x, name in ((q, "q"), (scaled(k, k_scale), "k"), (scaled(v, v_scale), "v"))
    )
    key = widened(key, k_wide)
    if value.shape[:3] != key.shape[:3]:
        raise ValueError(f"k {key.shape} and v {value.shape} differ in batch, heads or length")
    with np.errstate(all="ignore"):
        scores, allowed = final_scores(query, key, np.arange(query.shape[2]), **score)
        weight, lse = softmax(scores, allowed, sinks)
        o = weigh_values(weight, allowed, share_heads(value, query.shape[1]))
        if relative is not None and relative.value_table is not None:
            position = positions(score.get("q_offset", 0), len(query), np.arange(query.shape[2]))
            o = o + weigh_distances(relative, weight, allowed, position - np.arange(key.shape[2]))
    if layout == "bshd":
        o = o.swapaxes(1, 2)
    if one_entry:
        o, lse = o[0], lse[0]
    if out is not None:
        np.copyto(out, o, casting="unsafe")
        o = out
    return (o, lse) if return_lse else o


@entry_by_entry
def attention_weights(
    q: ArrayLike,
    k: ArrayLike,
    *,
    rows: ArrayLike | None = None,
    layout: str = "bhsd",
    num_threads: int | None = None,
    **score: Any,
) -> Float64Array:
    """Return the probabilities by which `attention` weighs the values, in float64.

    Parameters
    ----------
    q : array (B, Hq, Sq, D)
        Queries, as in `attention`.
    k : array (B, Hkv, Sk, D)
        Keys, as in `attention`.
    rows : int array (R,), optional
        The query rows wanted, all by default; negative ones count from the end. Row r keeps its
        position, q_offset + rows[r], and its rows of mask and bias.
    layout, **score
        As in `attention`.
    num_threads : int, optional
        Accepted so that calls can be compared; the reference ignores it.

    Returns
    -------
    float64 array (B, Hq, R, Sk), in both layouts
        0 exactly where a key is excluded. Without sinks, each row that may attend something sums
        to 1. (Hq, R, Sk) for inputs of three dimensions.

    Raises
    ------
    ValueError
        If the shapes do not fit one another, or the layout is unknown.
    IndexError
        If `rows` has an index outside [−Sq, Sq).

    Examples
    --------
    >>> q = k = [[[1.0], [1.0]]]
    >>> attention_weights(q, k, rows=[-1]).tolist()
    [[[0.5, 0.5]]]
    """
    check_keywords("attention_weights", score)
    sinks = score.pop("sinks", None)
    query, key = heads_first(q, layout, "q"), heads_first(k, layout, "k")
    with np.errstate(all="ignore"):
        scores, allowed = final_scores(query, key, picked(rows, query.shape[2]), **score)
        weight, _ = softmax(scores, allowed, sinks)
    return weight[0] if np.ndim(q) == 3 else weight


def attention_scores(
    q: ArrayLike, k: ArrayLike, *, rows: ArrayLike | None = None, layout: str = "bhsd", **score: Any
) -> Float64Array:
    """Return the logits whose softmax, without a sink, `attention_weights` is, in float64.

    Parameters
    ----------
    q, k : arrays (B, Hq, Sq, D) and (B, Hkv, Sk, D)
    rows, layout, **score
        As in `attention_weights`, without `sinks`.

    Returns
    -------
    float64 array (B, Hq, R, Sk), in both layouts
        −inf where a key is excluded. (Hq, R, Sk) for inputs of three dimensions.

    Examples
    --------
    >>> attention_scores([[[1.0], [1.0]]], [[[2.0], [4.0]]], is_causal=True).tolist()
    [[[2.0, -inf], [2.0, 4.0]]]
    """
    check_keywords("attention_scores", score)
    query, key = heads_first(q, layout, "q"), heads_first(k, layout, "k")
    with np.errstate(all="ignore"):
        scores, _ = final_scores(query, key, picked(rows, query.shape[2]), **score)
    return scores[0] if np.ndim(q) == 3 else scores


def picked(rows: ArrayLike | None, count: int) -> NDArray[np.int64]:
    """Return the query rows wanted, all of them by default, counted from the first."""
    every = np.arange(count)
    return every if rows is None else every[np.atleast_1d(np.asarray(rows, dtype=np.intp))]


def softmax(
    score: Float64Array, allowed: BoolArray, sinks: ArrayLike | None
) -> tuple[Float64Array, Float64Array]:
    """Return weights (B, Hq, R, Sk), 0 where not allowed, and lse (B, Hq, R)."""
    sink = np.full(score.shape[1], -np.inf)
    if sinks is not None:
        sink = np.broadcast_to(np.asarray(sinks).astype(np.float64), sink.shape)
    sink = sink[:, np.newaxis, np.newaxis]
    largest = np.maximum(score.max(axis=3, keepdims=True, initial=-np.inf), sink)
    # exp(−inf − −inf) is NaN; a row whose logits are all −inf weighs nothing, as an empty row does.
    shift = np.where(largest == -np.inf, 0.0, largest)
    part = np.where(allowed, np.exp(score - shift), 0.0)
    total = part.sum(axis=3, keepdims=True) + np.exp(sink - shift)
    weight = np.where(allowed & (largest != -np.inf), part / total, 0.0)
    lse: Float64Array = (largest + np.log(total))[..., 0]
    return weight, lse


def weigh_values(weight: Float64Array, allowed: BoolArray, value: Float64Array) -> Float64Array:
    """Return Σ_{j allowed} weight_j·v_j, (B, Hq, R, Dv).

    Excluded terms are left out of the sum, since 0·NaN and 0·inf are NaN: finite values are summed
    by a matrix product, where a weight of 0 is as good as leaving out, and the others one by one.
    """
    finite = np.isfinite(value)
    o: Float64Array = weight @ np.where(finite, value, 0.0)
    for j in np.flatnonzero(~finite.all(axis=(0, 1, 3))):
        term = weight[:, :, :, j, np.newaxis] * value[:, :, np.newaxis, j]
        counts = allowed[:, :, :, j, np.newaxis] & ~finite[:, :, np.newaxis, j]
        o = o + np.where(counts, term, 0.0)
    return o


def scaled(x: ArrayLike, scale: ArrayLike | None) -> ArrayLike:
    """Return x (..., D) times scale (...), as float64; x itself without a scale."""
    if scale is None:
        return x
    tokens: Float64Array = np.asarray(x).astype(np.float64)
    return tokens * np.asarray(scale).astype(np.float64)[..., np.newaxis]
