"""`PagedKVCache`: tokens in pages of one pool, shared between rows until one of them writes."""

from __future__ import annotations

import copy
from collections import Counter
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
from .bounds import PoolBounds
from .cached_pages import CachedPages
from .gathered import gathered
from .memory import arrays_in, bytes_of, new_memory
from .moves import Move
from .pages import PageAllocator, filled_up
from .row_numbers import kept_lengths, new_tokens, per_row, row_indices
from .storage import Tokens

if TYPE_CHECKING:
    from numattn.approx import PageBounds

DERIVED = frozenset(("_rooms", "_table", "_bounds"))


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
        self._allocator = PageAllocator(size("pages", pages))
        self._tables: list[list[int]] = [[] for _ in range(self.batch)]
        self._take_pools()

    def _take_pools(self) -> None:
        """Take the memory of all layers: arrays (P, page, Hkv, ...) for each.

        In memory page and Hkv have changed places.
        """
        nothing = self._no_tokens()
        outer = (self._allocator.pages, self.kv_heads, self.page_size)

        def shape_of(array: Array) -> tuple[int, ...]:
            return (*outer, *array.shape[2:])

        sizes = [bytes_of(tokens, shape_of) for tokens in nothing]
        memory, begin = new_memory(sum(sizes)), 0
        self._bounds = PoolBounds()
        self._pools: list[Tokens] = []
        for tokens, length in zip(nothing, sizes, strict=True):
            arrays = arrays_in(memory[begin : begin + length], tokens, shape_of)
            self._pools.append(arrays.map(lambda array: array.swapaxes(1, 2)))
            begin += length
        self._pages_changed()

    def _pages_changed(self) -> None:
        """Forget what follows from the pages that each row has."""
        self._rooms = [0] * self.layers
        self._table: Int64Array | None = None  # `_tables` as an array

    def __getstate__(self) -> dict[str, Any]:
        """Return all but the free pages' tokens."""
        used = self._allocator.in_use()
        pools = [tokens.map(lambda pool: pool.swapaxes(1, 2)) for tokens in self._pools]
        if used.size < self._allocator.pages:
            pools = [tokens.map(lambda pool: pool[used]) for tokens in pools]
        kept = {name: value for name, value in vars(self).items() if name not in DERIVED}
        return {**kept, "_pools": pools}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(copy.deepcopy({**state, "_pools": None}))
        self._take_pools()
        used = self._allocator.in_use()
        for tokens, kept in zip(self._pools, state["_pools"], strict=True):
            for pool, pages in zip(tokens.arrays, kept.arrays, strict=True):
                pool.swapaxes(1, 2)[used] = pages

    def __repr__(self) -> str:
        return (
            f"PagedKVCache(layers={self.layers}, batch={self.batch}, kv_heads={self.kv_heads}, "
            f"head_dim={self.head_dim}, dtype={self.dtype}, lengths={self.lengths.tolist()}, "
            f"{self.free_pages} of {self._allocator.pages} pages of {self.page_size} tokens free)"
        )

    @property
    def nbytes(self) -> int:
        """Return the memory that the pool takes."""
        return sum(tokens.nbytes for tokens in self._pools)

    @property
    def free_pages(self) -> int:
        """Return how many pages no row names."""
        return self._allocator.free

    def block_table(self, rows: ArrayLike | None = None) -> NDArray[np.int32]:
        """Return the pages of some rows, or of all: (R, n), filled up with 0.

        n is what the longest row needs. Entries beyond a row's own pages name tokens that lie
        beyond its `kv_lens`, and are never read.
        """
        if rows is None:
            return self._all_pages().astype(np.int32)
        return filled_up(
            [self._tables[row] for row in row_indices("rows", rows, self.batch).tolist()], np.int32
        )

    def _all_pages(self) -> Int64Array:
        if self._table is None:
            self._table = filled_up(self._tables, np.int64)
        return self._table

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
        table = self._all_pages()
        full = np.arange(table.shape[1]) < (self._lengths[index] // self.page_size)[:, np.newaxis]
        return PageBounds(*self._bounds.of(index, self._pools[index].k, table[full])[:2])

    def gather(self, rows: Sequence[tuple[PagedKVCache, int]]) -> PagedKVCache:
        """Return a cache of the same pool whose row i continues rows[i], a row of a cache of it.

        No token is copied. See `numattn.cache.gathered`.
        """
        return gathered(self, rows)

    def reserve(self, counts: ArrayLike) -> None:
        new = new_tokens(counts, None, self.batch)
        ends = (self._lengths + new).max(axis=0)
        self._check_lengths(ends)
        self._make_room(np.where(new > 0, self.lengths, ends), ends)

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
        pools, lengths, table = self._pools[index], self._lengths[index], self._all_pages()
        q_offset = lengths.copy()
        _core.append_to_cache(pools, tokens, table, lengths, None, rows, layout)
        self._rooms[index] -= count
        held = pools.with_values(self.value_dim)
        return CachedPages(
            held.k, held.values(self.value_dim), table.astype(np.int32), q_offset, lengths.copy(),
            held.k_scale, held.v_scale, self._forms[index].wide,
        )  # fmt: skip

    def _room(self, lengths: Int64Array) -> int:
        """Return how many tokens every row can take that has lengths[b], in pages of its own."""
        rooms: list[int] = []
        for table, length in zip(self._tables, lengths.tolist(), strict=True):
            end = length // self.page_size
            while end < len(table) and self._allocator.references(table[end]) == 1:
                end += 1
            limit = end * self.page_size
            if self.max_length is not None:
                limit = min(limit, self.max_length)
            rooms.append(limit - length)
        return max(min(rooms), 0)

    def _place(self, index: int) -> tuple[Tokens, Int64Array, None]:
        return self._pools[index], self._all_pages(), None

    def _new_room(self, index: int, lengths: Int64Array, new: Int64Array) -> int:
        self._make_room(lengths, lengths + new)
        return self._room(lengths)

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
        ends = (self._lengths.min(axis=0).tolist(), self._lengths.max(axis=0).tolist())
        for table, least, length in zip(self._tables, *ends, strict=True):
            self._bounds.forget(table[least // self.page_size :])
            needed = self._pages_of(length)
            self._allocator.release(table[needed:])
            del table[needed:]
        self._pages_changed()

    def _move(self, moves: Sequence[Move], limits: Int64Array) -> None:
        starts = limits.copy()
        for row, start, _ in moves:
            starts[row] = start
        self._make_room(starts, limits)  # pages of their own
        for row, start, source in moves:
            table = np.array(self._tables[row], dtype=np.int64)
            target = np.arange(start, start + source.size)
            self._bounds.forget(table[target // self.page_size].tolist())
            (to, to_slot), (of, slot) = (
                (table[each // self.page_size], each % self.page_size) for each in (target, source)
            )
            for tokens in self._pools:
                for pool in tokens.arrays:
                    pool[to, to_slot] = pool[of, slot]
        self._pages_changed()

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
        former = self._tables
        tables = [list(former[row]) for row in rows.tolist()]
        for table in tables:
            self._allocator.share(table)
        for table in former:
            self._allocator.release(table)
        self._set_rows(tables, np.ascontiguousarray(self._lengths[:, rows]))

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
        if other is self or other._allocator is not self._allocator:
            raise ValueError("a cache can be joined by another of the same pool (beside), only")
        both = np.concatenate([self._lengths, other._lengths], axis=1)
        self._set_rows(self._tables + other._tables, both)
        other._set_rows([[] for _ in other._tables], np.zeros_like(other._lengths))

    def _sibling(self, tables: list[list[int]], lengths: Int64Array) -> PagedKVCache:
        """Return a cache of the same pool, with rows of its own as `_set_rows` takes them."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other._set_rows(tables, lengths)
        return other

    def _set_rows(self, tables: list[list[int]], lengths: Int64Array) -> None:
        """Have rows of these pages and of so many tokens in each layer, (layers, B)."""
        self._tables, self._lengths = tables, lengths
        self._pages_changed()

    def _pages_of(self, length: int) -> int:
        """Return how many pages that many tokens take."""
        return -(-length // self.page_size)

    def _make_room(self, starts: Int64Array, ends: Int64Array) -> None:
        """Give each row b pages of its own for the slots starts[b] … ends[b] − 1.

        Pages that several rows name are copied for all of them but the last. First all pages are
        taken that are needed for that; if there are too few, nothing has been changed.
        """
        claims: Counter[int] = Counter()  # how many rows gave up a page in what follows
        copies: list[tuple[int, int]] = []  # (row, index in its table)
        additions = 0
        for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            table = self._tables[row]
            additions += max(self._pages_of(end) - len(table), 0)
            first = start // self.page_size if end > start else len(table)
            for index in range(first, min(self._pages_of(end), len(table))):
                page = table[index]
                if self._allocator.references(page) - claims[page] > 1:
                    claims[page] += 1
                    copies.append((row, index))
        if not additions and not copies:
            return
        fresh = self._allocator.take(additions + len(copies))
        self._bounds.forget(fresh)
        self._table = None
        for row, index in copies:
            old, new = self._tables[row][index], fresh.pop(0)
            for tokens in self._pools:
                for pool in tokens.arrays:
                    pool[new] = pool[old]
            self._tables[row][index] = new
            self._allocator.release([old])
        for table, end in zip(self._tables, ends.tolist(), strict=True):
            count = max(self._pages_of(end) - len(table), 0)
            table += fresh[:count]
            del fresh[:count]
