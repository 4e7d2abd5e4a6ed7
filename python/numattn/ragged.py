"""Attention over sequences of different lengths that lie one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from numattn import _core
from numattn._arguments import (
    as_array,
    as_output,
    flag,
    in_kind_of,
    integer_array,
    precision_name,
    thread_count,
)
from numattn._memory import require_apart
from numattn._names import Output, Precision
from numattn._score import BlockMasks, PackedScore, Score, require_known, spelled_out
from numattn.block_mask import BlockMask

if TYPE_CHECKING:
    from typing_extensions import Unpack


@spelled_out(PackedScore)
def attention_varlen(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    cu_seqlens_q: ArrayLike,
    cu_seqlens_k: ArrayLike,
    *,
    precision: Precision = "highest",
    out: Output | None = None,
    return_lse: bool = False,
    num_threads: int | None = None,
    **score: Unpack[PackedScore],
) -> Any:
    """Attention within each of several sequences packed into one array, without padding.

    Sequence i has the queries ``q[cu_seqlens_q[i]:cu_seqlens_q[i + 1]]`` and the keys and values
    ``k[cu_seqlens_k[i]:cu_seqlens_k[i + 1]]``; its result is that of :func:`numattn.attention` on
    them alone, bit by bit.

    Parameters
    ----------
    q : array of shape (total queries, Hq, D)
        float32, float16 or bfloat16; any strides.
    k, v : arrays of shapes (total keys, Hkv, D) and (total keys, Hkv, Dv)
        q's dtype.
    cu_seqlens_q, cu_seqlens_k : int arrays of shape (N + 1,)
        Prefix sums of the lengths: they start at 0, never fall, and end at the totals.
    precision, **score
        As for :func:`numattn.attention`, with the N sequences for B; slopes of shape (Hq,) alone.
        `key_spans` broadcast to (1, Hq, total queries), and count the keys of each sequence from 0.
        `block_mask` is one mask for each sequence, in a list, of its own Sq and Sk, None where all
        keys are seen; or one that fits them all.
    out : array of shape (total queries, Hq, Dv), optional
        Where the result goes.
    return_lse : bool
        Also return the log-sum-exp of each row's logits.
    num_threads : int, optional
        Upper limit for this call.

    Returns
    -------
    o : array of shape (total queries, Hq, Dv)
        In q's dtype.
    lse : float32 array of shape (Hq, total queries)
        With ``return_lse=True``.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As for :func:`numattn.attention`; ValueError also for prefix sums that do not start at 0,
        fall, or do not end at the totals.

    Notes
    -----
    The packing is that of FlashAttention's ``flash_attn_varlen_func`` (Dao et al., 2022).

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> q = k = v = np.eye(4, dtype=np.float32)[:, None]  # lengths 1 and 3
    >>> na.attention_varlen(q, k, v, [0, 1, 4], [0, 1, 4], scale=1.0)[1, 0].round(3)
    array([0.   , 0.576, 0.212, 0.212], dtype=float32)
    """
    require_known("attention_varlen", score, PackedScore)
    others: dict[str, Any] = {**score, "block_mask": None}
    rules = Score.of(**others)
    slopes = rules.alibi_slopes
    if slopes is not None and slopes.ndim != 1:
        raise ValueError(
            f"alibi_slopes must have shape (Hq,), not {slopes.shape}: sequences share it"
        )
    model = q
    q, k, v = as_array("q", q), as_array("k", k), as_array("v", v)
    query_starts = integer_array("cu_seqlens_q", cu_seqlens_q, scalar=False)
    key_starts = integer_array("cu_seqlens_k", cu_seqlens_k, scalar=False)
    masks = _each_mask(score.get("block_mask"), max(query_starts.size - 1, 0))
    written = None if out is None else as_output(out)
    if written is not None:
        starts = {"cu_seqlens_q": query_starts, "cu_seqlens_k": key_starts}
        require_apart(written, {"q": q, "k": k, "v": v, **starts, "score": rules})
    result = _core.attention_varlen(
        q, k, v, query_starts, key_starts, rules, masks, precision_name(precision),
        thread_count(num_threads), written, flag("return_lse", return_lse),
    )  # fmt: skip
    return in_kind_of(model, result, out)


def _each_mask(given: BlockMasks, sequences: int) -> tuple[BlockMask | None, ...] | None:
    """Return the mask of each sequence; None where none has one."""
    if given is None:
        return None
    if isinstance(given, BlockMask):
        return (given,) * sequences
    masks = tuple(given) if isinstance(given, (list, tuple)) else (given,)
    for mask in masks:
        if not (mask is None or isinstance(mask, BlockMask)):
            raise TypeError(
                "block_mask must be a numattn.BlockMask, or a list of one for each sequence, not "
                f"{'a list with one of ' if mask is not given else ''}{type(mask).__name__}"
            )
    return masks
