"""Which pages of a pool each row of a cache has, and how it gets more and gives them back."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numattn._names import Int64Array

from .pool import PagePool


class PageTables:
    """Token t of row b is in slot t % page of page rows[b][t // page].

    Attributes
    ----------
    pool : PagePool
    rows : list of lists of int
        The pages of each row, which the pool counts as named by it.
    """

    def __init__(self, pool: PagePool, rows: list[list[int]]) -> None:
        self.pool = pool
        self.rows = rows
        self._array: Int64Array | None = None

    def array(self) -> Int64Array:
        """Return the pages of all rows, (B, n), filled up with 0; made when they have changed."""
        if self._array is None:
            self._array = filled_up(self.rows, np.int64)
        return self._array

    def room(self, lengths: Int64Array, max_length: int | None) -> int:
        """Return how many tokens every row can take that has lengths[b], in pages of its own."""
        allocator, page_size = self.pool.allocator, self.pool.page_size
        rooms: list[int] = []
        for table, length in zip(self.rows, lengths.tolist(), strict=True):
            end = length // page_size
            while end < len(table) and allocator.references(table[end]) == 1:
                end += 1
            limit = end * page_size
            if max_length is not None:
                limit = min(limit, max_length)
            rooms.append(limit - length)
        return max(min(rooms), 0)

    def make_room(self, starts: Int64Array, ends: Int64Array) -> None:
        """Give each row b pages of its own for the slots starts[b] … ends[b] − 1.

        Pages that several rows name are copied for all of them but the last. First all pages are
        taken that are needed for that; if there are too few, nothing has been changed.
        """
        allocator, page_size = self.pool.allocator, self.pool.page_size
        claims: Counter[int] = Counter()  # how many rows gave up a page in what follows
        copies: list[tuple[int, int]] = []  # (row, index in its table)
        additions = 0
        for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            table, needed = self.rows[row], self._pages_of(end)
            additions += max(needed - len(table), 0)
            first = start // page_size if end > start else len(table)
            for index in range(first, min(needed, len(table))):
                page = table[index]
                if allocator.references(page) - claims[page] > 1:
                    claims[page] += 1
                    copies.append((row, index))
        if not additions and not copies:
            return
        fresh = self.pool.take(additions + len(copies))
        self._array = None
        for row, index in copies:
            old, new = self.rows[row][index], fresh.pop(0)
            self.pool.copy_page(old, new)
            self.rows[row][index] = new
            allocator.release([old])
        for table, end in zip(self.rows, ends.tolist(), strict=True):
            count = max(self._pages_of(end) - len(table), 0)
            table += fresh[:count]
            del fresh[:count]

    def cut(self, least: Int64Array, most: Int64Array) -> None:
        """Give back the pages beyond the last token of each row.

        A row has least[b] tokens in the layer that has the fewest, most[b] in that of the most.
        """
        for table, fewest, length in zip(self.rows, least.tolist(), most.tolist(), strict=True):
            self.pool.bounds.forget(table[fewest // self.pool.page_size :])
            needed = self._pages_of(length)
            self.pool.allocator.release(table[needed:])
            del table[needed:]
        self._array = None

    def _pages_of(self, length: int) -> int:
        """Return how many pages that many tokens take."""
        return -(-length // self.pool.page_size)


def filled_up(tables: list[list[int]], dtype: type[Any]) -> NDArray[Any]:
    """Return lists of pages as rows as long as the longest, filled up with 0."""
    result = np.zeros((len(tables), max(map(len, tables), default=0)), dtype=dtype)
    for row, table in enumerate(tables):
        result[row, : len(table)] = table
    return result
