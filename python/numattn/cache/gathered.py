"""Several caches of one pool: rows of some, continued by another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .paged import PagedKVCache


def gathered(pool: PagedKVCache, rows: Sequence[tuple[PagedKVCache, int]]) -> PagedKVCache:
    """Return a cache whose row i continues a row of another: rows[i].

    No token is copied, and all caches go on by themselves, in one thread: pages that several name
    are copied when one of them writes. A cache that is not needed any more gives back its pages by
    ``truncate(0)``. A copy of a cache has a pool of its own.

    Parameters
    ----------
    pool : PagedKVCache
        Of which pages are taken.
    rows : sequence of (PagedKVCache, int)
        Caches of this pool, which may be `pool` itself, and which of their rows.

    Raises
    ------
    ValueError
        None is named, a cache is of another pool, or a row does not exist.

    Examples
    --------
    >>> import numattn as na
    >>> cache = na.PagedKVCache(1, batch=2, kv_heads=2, head_dim=16, pages=8, page_size=4)
    >>> prompt = np.ones((2, 2, 6, 16), np.float32)
    >>> held = cache.append(0, prompt, prompt)
    >>> other = cache.gather([(cache, 1), (cache, 1), (cache, 0)])
    >>> other.block_table()
    array([[2, 3],
           [2, 3],
           [0, 1]], dtype=int32)
    >>> cache.free_pages
    4
    """
    if not rows:
        raise ValueError("rows must name one or more")
    for cache, row in rows:
        if getattr(cache, "_allocator", None) is not pool._allocator:
            raise ValueError("rows must be of caches of one pool, as `gather` makes them")
        if not 0 <= row < cache.batch:
            raise ValueError(f"there is no row {row} in a cache of {cache.batch}")
    tables = [list(cache._tables[row]) for cache, row in rows]
    for table in tables:
        pool._allocator.share(table)
    lengths = np.stack([cache._lengths[:, row] for cache, row in rows], axis=1)
    return pool._sibling(tables, lengths)
