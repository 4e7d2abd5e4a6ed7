"""Keys and values of one layer in memory that grows, and that a window keeps short.

Slot s of row b holds the key at position first[b] + s. Slots from lengths[b] − first[b] on hold
nothing yet, and attention does not read them.

Keys and values are stored as they come. Storage in int8 with a scale for each token and head would
stand here: two arrays of scales (B, Hkv, capacity) beside k and v, filled by `write` and moved by
`make_room` and `of_rows` as those are, and handed out by `KVCache.append`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Array, Int64Array


class Store:
    """k (B, Hkv, capacity, D) and v (B, Hkv, capacity, Dv) of one layer, and first (B,)."""

    def __init__(
        self,
        batch: int,
        kv_heads: int,
        head_dim: int,
        value_dim: int,
        dtype: np.dtype[Any],
        first_capacity: int,
        max_length: int | None,
        window: int | None,
    ) -> None:
        self.k: Array = np.empty((batch, kv_heads, 0, head_dim), dtype=dtype)
        self.v: Array = np.empty((batch, kv_heads, 0, value_dim), dtype=dtype)
        self.first = np.zeros(batch, dtype=np.int64)
        self.first_capacity = first_capacity
        self.max_length = max_length
        self.window = window

    @property
    def capacity(self) -> int:
        """Return the number of slots of a row."""
        return int(self.k.shape[2])

    def make_room(self, lengths: Int64Array, new: Int64Array) -> None:
        """Have slots for new[b] more tokens in each row that has lengths[b].

        Tokens are moved to the front or into larger arrays, less those that the window hides from
        every query at position lengths[b] and later.
        """
        held = lengths - self.first
        if int((held + new).max()) <= self.capacity:
            return
        kept = held if self.window is None else np.minimum(held, self.window)
        capacity = self._next_capacity(int((kept + new).max()), int(new.max()))
        if capacity > self.capacity:
            # Both are taken before anything is changed.
            k, v = self._empty(capacity, self.k.shape[0])
        else:
            k, v = self.k, self.v
        for row, (count, end) in enumerate(zip(kept.tolist(), held.tolist(), strict=True)):
            for target, source in ((k, self.k), (v, self.v)):
                # NumPy copies as if through a buffer where the two overlap.
                target[row, :, :count] = source[row, :, end - count : end]
        self.k, self.v = k, v
        self.first = lengths - kept

    def _next_capacity(self, needed: int, new: int) -> int:
        """Return how many slots to have when `needed` of them are, for `new` tokens at once.

        Without a window, twice what there is. With one, slots beyond window + max(window, new)
        would never be needed: when they are full, at most `window` tokens move to the front, and
        as many or more have come since they did so last. So a token is moved once on average.
        """
        capacity = max(2 * self.capacity, self.first_capacity)
        if self.window is not None:
            enough = self.window + max(self.window, new)
            capacity = max(min(capacity, enough), self.capacity)
        if self.max_length is not None:
            capacity = min(capacity, self.max_length)
        return max(capacity, needed)

    def _empty(self, capacity: int, batch: int) -> tuple[Array, Array]:
        def like(array: Array) -> Array:
            return np.empty((batch, array.shape[1], capacity, array.shape[3]), dtype=array.dtype)

        return like(self.k), like(self.v)

    def write(self, start: Int64Array, k: Array, v: Array, new: Int64Array) -> None:
        """Put the first new[b] tokens of k and v (B, Hkv, S, ...) into the slots from start[b]."""
        size = k.shape[2]
        if (start == start[0]).all() and (new == size).all():  # all rows alike: one assignment
            begin = int(start[0])
            self.k[:, :, begin : begin + size] = k
            self.v[:, :, begin : begin + size] = v
            return
        for row, (begin, count) in enumerate(zip(start.tolist(), new.tolist(), strict=True)):
            self.k[row, :, begin : begin + count] = k[row, :, :count]
            self.v[row, :, begin : begin + count] = v[row, :, :count]

    def first_row_in_want(self, lengths: Int64Array, limits: Int64Array) -> int | None:
        """Return a row that cannot be cut to limits[b] tokens, as the window has dropped some.

        The next query sees positions limits[b] − window and later. An empty row wants nothing.
        """
        if self.window is None:
            return None
        lacks = self.first > np.maximum(limits - self.window, 0)
        rows = np.flatnonzero((0 < limits) & (limits < lengths) & lacks)
        return int(rows[0]) if rows.size else None

    def of_rows(self, rows: Int64Array, lengths: Int64Array) -> Store:
        """Return a store whose row i is a copy of row rows[i]."""
        held = int((lengths - self.first).max())
        store = Store(
            rows.size, self.k.shape[1], self.k.shape[3], self.v.shape[3], self.k.dtype,
            self.first_capacity, self.max_length, self.window,
        )  # fmt: skip
        store.k, store.v = self._empty(self.capacity, rows.size)
        for row, source_row in enumerate(rows.tolist()):
            store.k[row, :, :held] = self.k[source_row, :, :held]
            store.v[row, :, :held] = self.v[source_row, :, :held]
        store.first = self.first[rows]
        return store
