"""Keys and values of one layer in memory that grows, and that a window keeps short.

Slot s of row b holds the key at position first[b] + s, but for the sinks: the first tokens, which
slots of the same numbers keep whatever the window drops. Slots from lengths[b] − first[b] on hold
nothing yet, and attention does not read them.

Keys and values are stored as they come, or as integers with scales: then there are four arrays
that are written and moved alike, not two (`numattn.cache.storage`).
"""

from __future__ import annotations

import copy

import numpy as np

from numattn._names import Array, Int64Array

from .memory import LayerMemory
from .storage import Tokens


class Store:
    """Keys (B, Hkv, capacity, D), values (B, Hkv, capacity, Dv) and scales (B, Hkv, capacity)."""

    def __init__(
        self,
        batch: int,
        nothing: Tokens,
        first_capacity: int,
        max_length: int | None,
        window: int | None,
        slack: int,
        sinks: int,
        memory: LayerMemory,
    ) -> None:
        """Take arrays of no tokens (Hkv, 0, ...) for what is to be stored."""
        self.memory = memory
        self.tokens = nothing.map(lambda array: np.empty((batch, *array.shape), array.dtype))
        self.first = np.zeros(batch, dtype=np.int64)
        self.first_capacity = first_capacity
        self.max_length = max_length
        self.window = window
        self.slack = slack
        self.sinks = sinks

    @property
    def batch(self) -> int:
        """Return the number of rows."""
        return int(self.first.size)

    @property
    def capacity(self) -> int:
        """Return the number of slots of a row."""
        return int(self.tokens.k.shape[2])

    def make_room(self, lengths: Int64Array, new: Int64Array) -> int:
        """Have slots for new[b] more tokens in each row that has lengths[b].

        Returns so many tokens as every row can take then.

        Tokens are moved to the front or into larger arrays, less those that the window hides from
        every query at position lengths[b] − slack and later, and that are no sinks.
        """
        held = lengths - self.first
        if int((held + new).max()) > self.capacity:
            self._move(held, lengths, new)
        room = self.capacity - int((lengths - self.first).max())
        return room if self.max_length is None else min(room, self.max_length - int(lengths.max()))

    def _move(self, held: Int64Array, lengths: Int64Array, new: Int64Array) -> None:
        """Bring the tokens that are kept to where there are slots for `new` more."""
        kept = held if self.window is None else np.minimum(held, self._most_kept(self.window))
        capacity = self._next_capacity(int((kept + new).max()), int(new.max()))
        # All are taken before anything is changed.
        larger = self._empty(capacity, self.batch) if capacity > self.capacity else self.tokens
        for row, (count, end) in enumerate(zip(kept.tolist(), held.tolist(), strict=True)):
            for target, source in zip(larger.arrays, self.tokens.arrays, strict=True):
                # NumPy copies as if through a buffer where the two overlap.
                sinks = min(self.sinks, count)
                if target is not source:
                    target[row, :, :sinks] = source[row, :, :sinks]
                target[row, :, sinks:count] = source[row, :, end - count + sinks : end]
        self.tokens = larger
        self.first = lengths - kept

    def _next_capacity(self, needed: int, new: int) -> int:
        """Return how many slots to have when `needed` of them are, for `new` tokens at once.

        Without a window, twice what there is. With one, of which `most` tokens are kept, slots
        beyond most + max(most, new) would never be needed: when they are full, at most so many
        move to the front, and as many or more have come since they did so last. So a token is moved
        once on average.
        """
        capacity = max(2 * self.capacity, self.first_capacity)
        if self.window is not None:
            most = self._most_kept(self.window)
            enough = most + max(most, new)
            capacity = max(min(capacity, enough), self.capacity)
        if self.max_length is not None:
            capacity = min(capacity, self.max_length)
        return max(capacity, needed)

    def _most_kept(self, window: int) -> int:
        return window + self.slack + self.sinks

    def _empty(self, capacity: int, batch: int) -> Tokens:
        return self.memory.take(self.tokens, lambda array: _shape(array, capacity, batch))

    def first_row_in_want(self, lengths: Int64Array, limits: Int64Array) -> int | None:
        """Return a row that cannot be cut to limits[b] tokens, as the window has dropped some.

        The next query sees the sinks, and positions limits[b] − window and later. An empty row
        wants nothing.
        """
        if self.window is None:
            return None
        lacks = self.first > np.maximum(limits - self.window - self.sinks, 0)
        rows = np.flatnonzero((0 < limits) & (limits < lengths) & lacks)
        return int(rows[0]) if rows.size else None

    def in_use(self, lengths: Int64Array) -> Store:
        """Return a store of the same tokens without slots that no row uses, for pickle."""
        held = lengths - self.first
        store = copy.copy(self)
        if int(held.min()) < self.capacity:
            shape = (int(held.max()), self.batch)
            # What nobody wrote is not handed on.
            store.tokens = self.tokens.map(lambda each: np.zeros(_shape(each, *shape), each.dtype))
            for row, count in enumerate(held.tolist()):
                for target, source in zip(store.tokens.arrays, self.tokens.arrays, strict=True):
                    target[row, :, :count] = source[row, :, :count]
        return store

    def own_memory(self) -> None:
        """Copy what it holds into memory of its own."""
        given = self.tokens
        self.tokens = self.memory.take(given, lambda array: array.shape)
        for target, source in zip(self.tokens.arrays, given.arrays, strict=True):
            target[...] = source
        self.first = self.first.copy()

    def of_rows(self, rows: Int64Array, lengths: Int64Array) -> Store:
        """Return a store whose row i is a copy of row rows[i]."""
        held = int((lengths - self.first).max())
        nothing = self.tokens.map(lambda array: array[0, :, :0])
        store = Store(
            rows.size, nothing, self.first_capacity, self.max_length, self.window, self.slack,
            self.sinks, self.memory,
        )  # fmt: skip
        store.tokens = self._empty(self.capacity, rows.size)
        for row, source_row in enumerate(rows.tolist()):
            for target, source in zip(store.tokens.arrays, self.tokens.arrays, strict=True):
                target[row, :, :held] = source[source_row, :, :held]
        store.first = self.first[rows]
        return store


def _shape(array: Array, capacity: int, batch: int) -> tuple[int, ...]:
    """Return the shape of an array of slots that holds what `array` does."""
    return (batch, array.shape[1], capacity, *array.shape[3:])
