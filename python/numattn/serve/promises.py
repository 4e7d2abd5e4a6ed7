"""Pages that texts which have begun may come to have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Many

from .sequence import Sequence


class Promises:
    """Pages promised to texts, of which those that several share are counted once.

    A text is promised so many. Those of its beginning that others may share, or that it has of
    another, are then named. All texts together never hold more than `pages`, whoever ends first: a
    page that is named is promised for as long as one of those lives that named it.

    Examples
    --------
    >>> promises, one, other = Promises(), Sequence([1], 9, None), Sequence([1], 9, None)
    >>> promises.make(one, 5)
    >>> promises.make(other, 6)
    >>> promises.name(one, [3, 4])
    >>> promises.name(other, [3, 4])
    >>> promises.name(other, [3, 4, 7])
    >>> promises.pages  # 3 and 3 of their own, and three that are named
    9
    >>> promises.end(other)
    >>> promises.pages
    5
    """

    def __init__(self) -> None:
        self._own: dict[Sequence, int] = {}
        self._named: dict[Sequence, Many[int]] = {}
        self._names: Counter[int] = Counter()  # of each page, how many name it

    @property
    def pages(self) -> int:
        """Return how many pages all may come to hold."""
        return sum(self._own.values()) + len(self._names)

    def make(self, sequence: Sequence, pages: int) -> None:
        """Promise pages to a text."""
        self._own[sequence] = pages

    def name(self, sequence: Sequence, pages: Many[int]) -> None:
        """Say which pages a text begins with, of those promised to it; later, of more of it."""
        new = pages[len(self._named.get(sequence, ())) :]
        self._own[sequence] -= len(new)
        self._names.update(new)
        self._named[sequence] = pages

    def end(self, sequence: Sequence) -> None:
        """Take back what a text was promised."""
        del self._own[sequence]
        for page in self._named.pop(sequence, ()):
            self._names[page] -= 1
            if not self._names[page]:
                del self._names[page]
