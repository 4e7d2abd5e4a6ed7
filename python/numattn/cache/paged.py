"""`PagedKVCache`: tokens in pages of one pool, shared between rows until one of them writes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from numattn import _core
from numattn._arguments import size
from numattn._names import Array, Int64Array, Layout
from numattn._quantize import Storage
from numattn.paged import attention_paged

from .base import Cache
from .cached_pages import CachedPages
from .moves import Move
from .page_tables import PageTables, filled_up
from .pages import PageAllocator
from .pool import PagePool
from .row_numbers import kept_lengths, new_tokens, per_row, row_indices
from .storage import Tokens

if TYPE_CHECKING:
    from numattn.approx import PageBounds


class PagedKVCache(Cache):
    """Keys and values of all layers in pages of a fixed number of tokens, taken from one pool.

    A page holds the same tokens in every layer. Rows made by `fork` share their pages; the row that
    first writes into a shared page gets a copy of its own. All memory is taken at construction.

    Parameters
    ----------
    layers, batch, kv_heads, head_dim : int
        Sizes; Hkv = kv_heads and D = head_dim. `fork` may change the number of rows.
    pages : int
        P, pages in the pool.
    page_size : int
        Tokens in a page.
    value_dim : int, optional
        Dv; D by default.
    dtype : float32, float16 or bfloat16
        Of keys and values, which are stored as they come.
    shared_values, storage, wide_keys
        As for :class:`numattn.KVCache`.
    max_length : int, optional
        The most tokens that a row may have.

    Attributes
    ----------
    page_size : int
    shared_values : bool
    storage : str or None
    wide_keys : bool array of shape (layers, Hkv, D), or None

    Raises
    ------
    TypeError, ValueError
        As for :class:`numattn.KVCache`.
    ImportError
        The dtype is bfloat16 by name, and the package ml_dtypes is not installed.
    MemoryError
        There is no memory for the pool.

    Notes
    -----
    Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention"
    (2023). Arguments, results and errors of the methods are those of `numattn.cache.Cache`; where
    pages run out, the MemoryError says how many are needed, and nothing is changed.

    A page's tokens of one head lie side by side in memory, whatever the order of the axes: decoding
    reads them as fast as tokens in one piece, and faster than pages with the heads innermost.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> cache = na.PagedKVCache(1, batch=1, kv_heads=2, head_dim=16, pages=8, page_size=4)
    >>> prompt = np.ones((1, 2, 6, 16), np.float32)
    >>> cache.append(0, prompt, prompt).block_table
    array([[0, 1]], dtype=int32)
    >>> cache.fork([0, 0])  # two continuations of one prompt
    >>> cache.free_pages
    6
    >>> token = np.ones((2, 2, 1, 16), np.float32)
    >>> cache.append(0, token, token).block_table  # one of them has its own second page now
    array([[0, 2],
           [0, 1]], dtype=int32)
    """

    _attention = staticmethod(attention_paged)

    def __init__(
        self,
        layers: int,
        batch: int,
        kv_heads: int,
        head_dim: int,
        *,
        pages: int,
        page_size: int = 16,
        value_dim: int | None = None,
        shared_values: bool = False,
        dtype: DTypeLike = np.float32,
        storage: Storage = None,
        wide_keys: ArrayLike | None = None,
        max_length: int | None = None,
    ) -> None:
        super().__init__(
            layers, batch, kv_heads, head_dim, value_dim, shared_values, dtype, storage, wide_keys,
            max_length,
        )  # fmt: skip
        self.page_size = size("page_size", page_size)
        self._pool = PagePool(
            PageAllocator(size("pages", pages)), self.page_size, self._no_tokens()
        )
        self._set_rows([[] for _ in range(self.batch)], self._lengths)

    def __getstate__(self) -> dict[str, Any]:
        """Return all but the free pages' tokens."""
        kept = {name: value for name, value in vars(self).items() if name != "_rooms"}
        return {
            **kept,
            "_tables": self._tables.rows,
            "_pool": (self._pool.allocator, self._pool.used()),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        allocator, used = state["_pool"]
        kept, allocator = copy.deepcopy(({**state, "_pool": None}, allocator))
        vars(self).update(kept)
        self._pool = PagePool(allocator, self.page_size, self._no_tokens())
        self._pool.fill(used)
        self._set_rows(kept["_tables"], self._lengths)

    def __repr__(self) -> str:
        return (
            f"PagedKVCache(layers={self.layers}, batch={self.batch}, kv_heads={self.kv_heads}, "
            f"head_dim={self.head_dim}, dtype={self.dtype}, lengths={self.lengths.tolist()}, "
            f"{self.free_pages} of {self._pool.allocator.pages} pages of {self.page_size} tokens "
            f"free)"
        )

    @property
    def nbytes(self) -> int:
        """Return the memory that the pool takes."""
        return self._pool.nbytes

    @property
    def free_pages(self) -> int:
        """Return how many pages no row names."""
        return self._pool.allocator.free

    def block_table(self, rows: ArrayLike | None = None) -> NDArray[np.int32]:
        """Return the pages of some rows, or of all: (R, n), filled up with 0.

        n is what the longest row needs. Entries beyond a row's own pages name tokens that lie
        beyond its `kv_lens`, and are never read.
        """
        if rows is None:
            return self._tables.array().astype(np.int32)
        indices = row_indices("rows", rows, self.batch)
        return filled_up([self._tables.rows[row] for row in indices.tolist()], np.int32)

    def page_bounds(self, layer: int) -> PageBounds:
        """Return bounds of the keys of each page of a layer, for :func:`numattn.approx.top_pages`.

        The cache keeps them: a call looks at pages that were filled since the last. They are right
        for pages that rows name and that are full.

        Returns
        -------
        numattn.approx.PageBounds
            Arrays (P, Hkv, D) of the cache's dtype, its own, which later calls change.

        Raises
        ------
        ValueError
            There is no such layer, or the cache stores integers.

        Examples
        --------
        >>> import numpy as np
        >>> import numattn as na
        >>> cache = na.PagedKVCache(1, batch=1, kv_heads=1, head_dim=2, pages=1, page_size=2)
        >>> k = np.array([[[[1, 4], [3, 2]]]], np.float32)
        >>> held = cache.append(0, k, k)
        >>> cache.page_bounds(0).high[0]
        array([[3., 4.]], dtype=float32)
        """
        from numattn.approx import PageBounds

        index = self._layer(layer)
        if self.storage is not None:
            raise ValueError(f"a cache of storage {self.storage!r} has no bounds of its pages")
        table = self._tables.array()
        full = np.arange(table.shape[1]) < (self._lengths[index] // self.page_size)[:, np.newaxis]
        pages = self._pool.layers[index].k
        return PageBounds(*self._pool.bounds.of(index, pages, table[full])[:2])

    def reserve(self, counts: ArrayLike) -> None:
        new = new_tokens(counts, None, self.batch)
        ends = (self._lengths + new).max(axis=0)
        self._check_lengths(ends)
        self._tables.make_room(np.where(new > 0, self.lengths, ends), ends)

    def append(
        self,
        layer: int,
        k: Array,
        v: Array | None = None,
        *,
        counts: ArrayLike | None = None,
        layout: Layout = "bhsd",
    ) -> CachedPages:
        index = self._layer(layer)
        k, v, count = self._kind.checked(k, v, self.batch, layout)
        rows = None if counts is None else per_row("counts", counts, self.batch)
        tokens = self._prepared(index, k, v, count, rows, layout)
        pages, lengths, table = self._pool.layers[index], self._lengths[index], self._tables.array()
        q_offset = lengths.copy()
        _core.append_to_cache(pages, tokens, table, lengths, None, rows, layout)
        self._rooms[index] -= count
        held = pages.with_values(self.value_dim)
        return CachedPages(
            held.k, held.values(self.value_dim), table.astype(np.int32), q_offset, lengths.copy(),
            held.k_scale, held.v_scale, self._forms[index].wide,
        )  # fmt: skip

    def _place(self, index: int) -> tuple[Tokens, Int64Array, None]:
        return self._pool.layers[index], self._tables.array(), None

    def _new_room(self, index: int, lengths: Int64Array, new: Int64Array) -> int:
        self._tables.make_room(lengths, lengths + new)
        return self._tables.room(lengths, self.max_length)

    def _forget(self, layer: int, lengths: Int64Array) -> None:
        super()._forget(layer, lengths)
        self._release_unused()

    def truncate(self, lengths: ArrayLike) -> None:
        """Forget the tokens of each row from position lengths[b] on; int or int array (B,).

        A row that is shorter stays as it is. Pages that no row names any more are free.
        """
        np.minimum(self._lengths, kept_lengths(lengths, self.batch), out=self._lengths)
        self._release_unused()

    def _release_unused(self) -> None:
        """Give back the pages beyond the last token of each row."""
        self._tables.cut(self._lengths.min(axis=0), self._lengths.max(axis=0))
        self._rooms = [0] * self.layers

    def _move(self, moves: Sequence[Move], limits: Int64Array) -> None:
        starts = limits.copy()
        for row, start, _ in moves:
            starts[row] = start
        self._tables.make_room(starts, limits)  # pages of their own
        pages = self._tables.array()
        for row, start, source in moves:
            self._pool.move(pages[row], source, np.arange(start, start + source.size))
        self._rooms = [0] * self.layers

    def free(self, rows: ArrayLike) -> None:
        """Forget all tokens of some rows, which stay as empty rows."""
        limits = self._lengths.max(axis=0)
        limits[row_indices("rows", rows, self.batch)] = 0
        self.truncate(limits)

    def fork(self, indices: ArrayLike) -> None:
        """Make row i continue what was row indices[i]: for beams, and for prompts in common.

        No token is copied: rows that continue the same one share its pages.

        Raises
        ------
        ValueError
            A row does not exist, or none is named.
        """
        rows = row_indices("indices", indices, self.batch)
        former = self._tables.rows
        tables = self._pool.share(former[row] for row in rows.tolist())
        for table in former:
            self._pool.allocator.release(table)
        self._set_rows(tables, np.ascontiguousarray(self._lengths[:, rows]))

    def gather(self, rows: Sequence[tuple[PagedKVCache, int]]) -> PagedKVCache:
        """Return a cache of the same pool whose row i continues a row of another: rows[i].

        No token is copied, and all caches go on by themselves, in one thread: pages that several
        name are copied when one of them writes. A cache that is not needed any more gives back its
        pages by ``truncate(0)``. A copy of a cache has a pool of its own.

        Parameters
        ----------
        rows : sequence of (PagedKVCache, int)
            Caches of this pool, this one included, and which of their rows.

        Raises
        ------
        ValueError
            None is named, a cache is of another pool, or a row does not exist.

        Examples
        --------
        >>> import numpy as np
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
            if getattr(cache, "_pool", None) is not self._pool:
                raise ValueError("rows must be of caches of one pool, as `gather` makes them")
            if not 0 <= row < cache.batch:
                raise ValueError(f"there is no row {row} in a cache of {cache.batch}")
        tables = self._pool.share(cache._tables.rows[row] for cache, row in rows)
        lengths = np.stack([cache._lengths[:, row] for cache, row in rows], axis=1)
        return self._sibling(tables, lengths)

    def beside(self, batch: int) -> PagedKVCache:
        """Return an empty cache of that many other rows, which take pages of the same pool.

        So a prompt can be read while other texts go on, and then join them, all in one thread.
        A cache that is forgotten leaves its pages taken: free its rows. A copy has its own pool.

        Examples
        --------
        >>> import numattn as na
        >>> cache = na.PagedKVCache(1, batch=1, kv_heads=2, head_dim=16, pages=8)
        >>> cache.join(cache.beside(2))
        >>> cache.batch
        3
        """
        lengths = np.zeros((self.layers, size("batch", batch)), dtype=np.int64)
        return self._sibling([[] for _ in lengths[0]], lengths)

    def join(self, other: PagedKVCache) -> None:
        """Take over all rows of a cache of the same pool, behind these; it keeps empty ones.

        Raises
        ------
        ValueError
            The other is this one, or was not made by `beside`.
        """
        if other is self or other._pool is not self._pool:
            raise ValueError("a cache can be joined by another of the same pool (beside), only")
        both = np.concatenate([self._lengths, other._lengths], axis=1)
        self._set_rows(self._tables.rows + other._tables.rows, both)
        other._set_rows([[] for _ in range(other.batch)], np.zeros_like(other._lengths))

    def _sibling(self, tables: list[list[int]], lengths: Int64Array) -> PagedKVCache:
        """Return a cache of the same pool, with rows of its own as `_set_rows` takes them."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other._set_rows(tables, lengths)
        return other

    def _set_rows(self, tables: list[list[int]], lengths: Int64Array) -> None:
        """Have rows of these pages and of so many tokens in each layer, (layers, B)."""
        self._tables, self._lengths = PageTables(self._pool, tables), lengths
        self._rooms = [0] * self.layers
