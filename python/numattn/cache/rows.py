"""New tokens of which rows have several each, and not as many: attention row by row.

How queries are computed follows from how many there are. Each row computed by itself, what its
queries give does not depend on how many the other rows have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from numattn._aligned import empty
from numattn._arguments import as_array
from numattn._names import Array, Int64Array, Layout
from numattn.block_mask.parts import first_queries


def differ(counts: Int64Array, q: Array, layout: Layout) -> bool:
    """Return whether of several tokens of q (B, ...), counts (B,) are not all real."""
    if q.ndim != 4 or len(q) != counts.size:
        return False  # attention will say so
    tokens = q.shape[1 if layout == "bshd" else 2]
    return tokens > 1 and not (counts == tokens).all()


def may_be_result(out: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Return whether there is no `out`, or one that attention would not refuse."""
    if not isinstance(out, np.ndarray):
        return out is None
    return out.shape == shape and out.dtype == dtype and out.flags.writeable


def attend_by_rows(
    attention: Callable[..., Any],
    q: Array,
    cached: Any,
    counts: Int64Array,
    out: Array | None,
    options: dict[str, Any],
) -> Array:
    """Return attention of the first counts[b] queries of each row b, and 0 for the others.

    Parameters
    ----------
    attention : callable
        What is called, with fields of `cached` and `options` as its arguments.
    q : array (B, Hq, S, D), or (B, S, Hq, D) if the layout among `options` is "bshd"
    cached : Cached or CachedPages
        Keys and values of all rows.
    counts : int array (B,)
    out : array, optional
        Where the result goes.
    options : dict
        Further arguments; `key_spans` (2, B, Hq, S) and `block_mask`, checked.
    """
    width = cached[1].shape[-1]
    o = empty((*q.shape[:3], width), q.dtype) if out is None else out
    slopes = options.pop("alibi_slopes", None)
    if slopes is not None:
        slopes = as_array("alibi_slopes", slopes)
    spans, mask = options.pop("key_spans", None), options.pop("block_mask", None)
    heads = [] if options["layout"] == "bshd" else [slice(None)]
    for row, count in enumerate(counts.tolist()):
        one = slice(row, row + 1)
        real, rest = (one, *heads, slice(count)), (one, *heads, slice(count, None))
        own = {
            "alibi_slopes": slopes[one] if slopes is not None and slopes.ndim == 2 else slopes,
            "key_spans": None if spans is None else first_spans(spans, row, count),
            "block_mask": None if mask is None else first_queries(mask, row, count, cached.keys),
        }
        attention(q[real], out=o[real], **own, **cached.row(row)._asdict(), **options)
        o[rest] = 0
    return o


def first_spans(spans: Int64Array, row: int, count: int) -> Int64Array:
    """Return the intervals (2, 1, Hq, count) of a row's first queries; an axis may be 1 for all."""
    own = spans[:, row : row + 1] if spans.shape[1] > 1 else spans
    return own[..., :count] if spans.shape[3] > 1 else own
