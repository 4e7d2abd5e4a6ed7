"""A decoding step over the pages of a cache that can matter most, by bounds of their keys.

    b(page) = Σ_d max(q_d · low_d, q_d · high_d)  ≥  q · k   for every key k of the page

low and high are the least and the largest number of each channel among a page's keys.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import ArrayLike

from numattn._arguments import as_array, integers, size
from numattn._dtypes import check_floating
from numattn._names import Array, Float32Array, Int64Array
from numattn._pickled import reduced
from numattn.approx.operands import softmax_scale
from numattn.paged import attention_paged


class PageBounds(NamedTuple):
    """The least and the largest number of each channel among the keys of each page.

    Made by :func:`page_bounds`.
    """

    low: Array
    """(P, Hkv, D)"""
    high: Array
    """(P, Hkv, D)"""

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(self)


def page_bounds(k_pages: ArrayLike) -> PageBounds:
    """Bounds of the keys of pages, by which :func:`top_pages` chooses.

    Parameters
    ----------
    k_pages : array of shape (P, page, Hkv, D)
        float32, float16 or bfloat16. A page that is not full yet may have any bounds: where it is
        a sequence's last it is always chosen. Make those of a page when it is full:
        ``bounds.low[p], bounds.high[p] = (x[0] for x in page_bounds(k_pages[p:p + 1]))``.

    Returns
    -------
    PageBounds

    Raises
    ------
    TypeError, ValueError
        The dtype is not supported, or the array has not four axes.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> na.approx.page_bounds(np.float32([[[[1, 5]], [[3, 2]]]])).high[0, 0]
    array([3., 5.], dtype=float32)
    """
    pages = _pages_of("k_pages", k_pages)
    with np.errstate(invalid="ignore"):
        return PageBounds(pages.min(axis=1), pages.max(axis=1))


def top_pages(
    q: ArrayLike,
    k_pages: ArrayLike,
    v_pages: ArrayLike,
    block_table: ArrayLike,
    kv_lens: ArrayLike,
    pages: int,
    *,
    bounds: PageBounds | None = None,
    scale: float | None = None,
    num_threads: int | None = None,
) -> Array:
    """Attention of new tokens to at most so many pages of each key head: a decoding step.

    The pages are those with the largest bounds of a score, and the last. What they leave out is
    missed: little where few pages hold most of the weight, much where attention is flat.

    Parameters
    ----------
    q : array of shape (B, Hq, Sq, D)
        float32, float16 or bfloat16. Each sees all tokens, as a decoder's last one does.
    k_pages, v_pages : arrays of shape (P, page, Hkv, D) and (P, page, Hkv, Dv)
        q's dtype. Read in place where the heads of a token lie side by side, as in caches, and
        copied otherwise.
    block_table : int array of shape (B, n)
    kv_lens : int array of shape (B,)
        As for :func:`numattn.attention_paged`.
    pages : int
        How many pages each key head of each entry reads. With as many as there are, the result is
        that of :func:`numattn.attention_paged` but for rounding.
    bounds : PageBounds, optional
        Of k_pages: those that a cache keeps (:meth:`numattn.PagedKVCache.page_bounds`), or the
        caller. Made anew otherwise, which costs more than it spares.
    scale : float, optional
        Default ``1 / sqrt(D)``; positive.
    num_threads : int, optional
        Upper limit for this call.

    Returns
    -------
    array of shape (B, Hq, Sq, Dv), q's dtype

    Raises
    ------
    TypeError, ValueError, MemoryError
        As for :func:`numattn.attention_paged`; ValueError also for bounds of other pages.

    Notes
    -----
    Tang et al., "Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference" (2024). It
    chooses for each query head; here those that share a key head share the pages, by the larger of
    their bounds.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> k = np.eye(4, dtype=np.float32).reshape(4, 1, 1, 4)  # four pages of one token
    >>> q = 9 * k[:1]
    >>> na.approx.top_pages(q, k, k, [[0, 1, 2, 3]], [4], 2)[0, 0].round(3)
    array([[0.989, 0.   , 0.   , 0.011]], dtype=float32)
    """
    chosen = choose_pages(
        q, k_pages, block_table, kv_lens, pages, bounds=bounds
    )  # (B, Hkv, n): places in the table
    queries, keys = as_array("q", q), _pages_of("k_pages", k_pages)
    values = _pages_of("v_pages", v_pages)
    factor = softmax_scale(scale, queries.shape[3])
    table, lengths = integers("block_table", block_table), integers("kv_lens", kv_lens)
    batch, heads = chosen.shape[:2]
    if values.shape[:3] != keys.shape[:3]:
        raise ValueError(f"k_pages {keys.shape} and v_pages {values.shape} must agree")
    key_pool, value_pool = _pool_of_heads(keys), _pool_of_heads(values)
    counts = (chosen >= 0).sum(axis=2)
    page = keys.shape[1]
    filled = np.maximum(-(-lengths // page), 1)  # pages of each entry
    unread = np.where(lengths > 0, filled * page - lengths, 0)
    sizes = np.where(lengths[:, None] > 0, counts * page - unread[:, None], 0)
    numbers = np.take_along_axis(table[:, None], np.maximum(chosen, 0), axis=2)
    if key_pool.strides_of_page != value_pool.strides_of_page:
        key_pool, value_pool = _copied(keys), _copied(values)
    rows = numbers * key_pool.strides_of_page + np.arange(heads)[:, None] * key_pool.of_head
    group = queries.shape[1] // heads
    o: Array = attention_paged(
        queries.reshape(batch * heads, group, *queries.shape[2:]), key_pool.pages,
        value_pool.pages, rows.reshape(batch * heads, -1), sizes.reshape(-1), scale=factor,
        num_threads=num_threads,
    )  # fmt: skip
    whole: Array = o.reshape(batch, queries.shape[1], *o.shape[2:])
    return whole


def choose_pages(
    q: ArrayLike,
    k_pages: ArrayLike,
    block_table: ArrayLike,
    kv_lens: ArrayLike,
    pages: int,
    *,
    bounds: PageBounds | None = None,
) -> Int64Array:
    """Which pages :func:`top_pages` reads.

    Parameters
    ----------
    q, k_pages, block_table, kv_lens, pages, bounds
        As there.

    Returns
    -------
    int64 array of shape (B, Hkv, at most pages)
        Places in the entry's row of the table, rising; −1 beyond those that there are.

    Raises
    ------
    TypeError, ValueError
        As there.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> k = np.eye(4, dtype=np.float32).reshape(4, 1, 1, 4)
    >>> na.approx.choose_pages(9 * k[1:2], k, [[0, 1, 2, 3]], [4], 2)
    array([[[1, 3]]])
    """
    queries, keys = as_array("q", q), _pages_of("k_pages", k_pages)
    check_floating("q", queries)
    most = size("pages", pages)
    table, lengths = integers("block_table", block_table), integers("kv_lens", kv_lens)
    _check_tables(queries, keys, table, lengths)
    limits = page_bounds(keys) if bounds is None else bounds
    expected = (keys.shape[0], *keys.shape[2:])
    for side in limits:
        if side.shape != expected:
            raise ValueError(f"bounds must have shape {expected}, not {side.shape}")
    batch, heads = len(queries), keys.shape[2]
    filled = -(-lengths // keys.shape[1])
    place = np.arange(table.shape[1])
    exists = place < filled[:, np.newaxis]
    numbers = np.where(exists, table, 0)
    grouped = queries.reshape(batch, heads, -1, queries.shape[3]).astype(np.float32)
    # (B, Hkv, group · Sq, n)
    with np.errstate(all="ignore"):
        scores: Float32Array = np.maximum(grouped, 0) @ _by_head(limits.high, numbers)
        scores += np.minimum(grouped, 0) @ _by_head(limits.low, numbers)
    best = np.nan_to_num(scores.max(axis=2, initial=-np.inf), nan=np.inf, neginf=-3e38)
    best = np.where(exists[:, np.newaxis], best, -np.inf)
    last = np.maximum(filled - 1, 0)
    best[np.arange(batch), :, last] = np.inf
    order = np.argsort(-best, axis=2, kind="stable")[..., :most]
    places = np.where(np.take_along_axis(exists[:, np.newaxis], order, axis=2), order, len(place))
    places = np.sort(places, axis=2)
    return np.where(places < len(place), places, -1)


class Pool(NamedTuple):
    """Pages of one head each: page p of head h is number p · strides_of_page + h · of_head."""

    pages: Array
    strides_of_page: int
    of_head: int


def _pool_of_heads(pages: Array) -> Pool:
    """Pages (P, page, H, D) as a pool of pages of one head, which overlap in memory: no copy.

    Page p of head h begins ``p · stride of a page + h · stride of a head`` behind the first. Where
    the former is a multiple of the latter, that is a whole number of strides of a head.
    """
    count, length, heads, width = pages.shape
    page, token, head, element = pages.strides
    if pages.size == 0 or head <= 0 or page <= 0 or page % head:
        return _copied(pages)
    ratio = page // head
    shape = ((count - 1) * ratio + heads, length, 1, width)
    pool = as_strided(pages, shape, (head, token, head, element), writeable=False)
    return Pool(pool, ratio, 1)


def _copied(pages: Array) -> Pool:
    count, length, heads, width = pages.shape
    turned = np.ascontiguousarray(pages.swapaxes(1, 2))
    return Pool(turned.reshape(count * heads, length, 1, width), heads, 1)


def _by_head(limits: Array, numbers: Int64Array) -> Float32Array:
    """Bounds (P, Hkv, D) of the pages of tables (B, n), as (B, Hkv, D, n)."""
    rows: Float32Array = limits[numbers].astype(np.float32, copy=False)
    turned: Float32Array = rows.transpose(0, 2, 3, 1)
    return turned


def _pages_of(name: str, value: ArrayLike) -> Array:
    pages = as_array(name, value)
    check_floating(name, pages)
    if pages.ndim != 4 or pages.shape[1] == 0 or pages.shape[2] == 0:
        raise ValueError(f"{name} must have shape (P, page, Hkv, D), not {pages.shape}")
    return pages


def _check_tables(q: Array, pages: Array, table: Int64Array, lengths: Int64Array) -> None:
    if q.ndim != 4 or q.shape[3] != pages.shape[3] or q.shape[1] % pages.shape[2]:
        raise ValueError(f"q {q.shape} and k_pages {pages.shape} do not fit one another")
    if table.ndim != 2 or len(table) != len(q) or table.shape[1] == 0:
        raise ValueError(f"block_table must have shape ({len(q)}, n), not {table.shape}")
    most = table.shape[1] * pages.shape[1]
    if lengths.shape != (len(q),) or np.any((lengths < 0) | (lengths > most)):
        raise ValueError(f"kv_lens must be {len(q)} numbers up to {most}, not {lengths.tolist()}")
    named = np.arange(table.shape[1]) < -(-lengths // pages.shape[1])[:, np.newaxis]
    wrong = table[named & ((table < 0) | (table >= len(pages)))]
    if wrong.size:
        raise ValueError(f"block_table names page {wrong[0]}, but there are {len(pages)} pages")
