"""Which pages of a pool are in use, and by how many rows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


class PageAllocator:
    """Pages 0 … pages − 1, each with the number of rows that name it; 0 is a free page.

    Examples
    --------
    >>> allocator = PageAllocator(3)
    >>> first, second = allocator.take(2)
    >>> allocator.share([first])
    >>> allocator.release([first, second])
    >>> allocator.free, allocator.references(first)
    (2, 1)
    """

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self._references = [0] * pages
        self._begun = 0  # pages from here on have never been taken
        self._released: list[int] = []

    @property
    def free(self) -> int:
        """Return how many pages are free."""
        return self.pages - self._begun + len(self._released)

    def references(self, page: int) -> int:
        """Return how many rows name a page."""
        return self._references[page]

    def in_use(self) -> NDArray[np.int64]:
        """Return the pages that some row names, in order."""
        return np.flatnonzero(self._references).astype(np.int64)

    def take(self, count: int) -> list[int]:
        """Return `count` free pages, each now named once.

        Raises
        ------
        MemoryError
            There are not as many; none is taken.
        """
        if count > self.free:
            raise MemoryError(
                f"out of pages: {count} more are needed, and {self.free} of {self.pages} are free"
            )
        reused = [self._released.pop() for _ in range(min(count, len(self._released)))]
        begun = self._begun + count - len(reused)
        taken = [*reused, *range(self._begun, begun)]
        self._begun = begun
        for page in taken:
            self._references[page] = 1
        return taken

    def share(self, pages: Iterable[int]) -> None:
        """Count one more row for each page; a page may be given several times."""
        for page in pages:
            self._references[page] += 1

    def release(self, pages: Iterable[int]) -> None:
        """Count one row less for each page; those without any are free."""
        for page in pages:
            self._references[page] -= 1
            if self._references[page] == 0:
                self._released.append(page)
