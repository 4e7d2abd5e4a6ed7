"""The memory of pages that caches share, and which of them are in use."""

from __future__ import annotations

from collections.abc import Iterable

from numattn._names import Array, Int64Array

from .bounds import PoolBounds
from .memory import arrays_in, bytes_of, new_memory
from .pages import PageAllocator
from .storage import Tokens


class PagePool:
    """Pages of `page_size` tokens each, all of whose memory is taken at once.

    Attributes
    ----------
    page_size : int
        Tokens in a page.
    allocator : PageAllocator
        Which pages are in use, by how many rows.
    layers : list of Tokens
        The pages of each layer: arrays (P, page, Hkv, ...). In memory page and Hkv have changed
        places.
    bounds : PoolBounds
        Of the keys of pages that are full.
    """

    def __init__(self, allocator: PageAllocator, page_size: int, nothing: list[Tokens]) -> None:
        """Take for each layer arrays of no tokens, (Hkv, 0, ...), of what is to be stored."""
        self.allocator = allocator
        self.page_size = page_size
        self.bounds = PoolBounds()

        def shape_of(array: Array) -> tuple[int, ...]:
            return (allocator.pages, len(array), page_size, *array.shape[2:])

        sizes = [bytes_of(tokens, shape_of) for tokens in nothing]
        memory, begin = new_memory(sum(sizes)), 0
        self.layers: list[Tokens] = []
        for tokens, length in zip(nothing, sizes, strict=True):
            arrays = arrays_in(memory[begin : begin + length], tokens, shape_of)
            self.layers.append(arrays.map(lambda array: array.swapaxes(1, 2)))
            begin += length

    @property
    def nbytes(self) -> int:
        """Return the memory of all pages."""
        return sum(tokens.nbytes for tokens in self.layers)

    def used(self) -> list[Tokens]:
        """Return the pages in use, in order, as they lie in memory: (n, Hkv, page, ...)."""
        pages = self.allocator.in_use()
        pools = [tokens.map(lambda pool: pool.swapaxes(1, 2)) for tokens in self.layers]
        if pages.size < self.allocator.pages:
            pools = [tokens.map(lambda pool: pool[pages]) for tokens in pools]
        return pools

    def fill(self, used: list[Tokens]) -> None:
        """Write the pages that are in use, as another's `used` has returned them."""
        pages = self.allocator.in_use()
        for tokens, given in zip(self.layers, used, strict=True):
            for pool, source in zip(tokens.arrays, given.arrays, strict=True):
                pool.swapaxes(1, 2)[pages] = source

    def take(self, count: int) -> list[int]:
        """Return free pages to be written to; errors are those of the allocator."""
        pages = self.allocator.take(count)
        self.bounds.forget(pages)
        return pages

    def share(self, tables: Iterable[list[int]]) -> list[list[int]]:
        """Return the pages of rows once more, for rows that continue these; none is copied."""
        others = [list(table) for table in tables]
        for table in others:
            self.allocator.share(table)
        return others

    def copy_page(self, source: int, target: int) -> None:
        """Copy a page, in all layers."""
        for tokens in self.layers:
            for pool in tokens.arrays:
                pool[target] = pool[source]

    def move(self, pages: Int64Array, source: Int64Array, target: Int64Array) -> None:
        """Bring tokens of a row that has these pages from some positions to others, in order."""
        (of, slot), (to, to_slot) = (
            (pages[each // self.page_size], each % self.page_size) for each in (source, target)
        )
        self.bounds.forget(to.tolist())
        for tokens in self.layers:
            for pool in tokens.arrays:
                pool[to, to_slot] = pool[of, slot]
