"""Tokens of a cache: sizes, how many each layer and row has, and how they come and go.

A cache holds keys and values of `layers` layers for `batch` rows. Row b of a layer has
lengths[b] tokens, at positions 0 … lengths[b] − 1; the next one gets position lengths[b]. What
attends to them is not known here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from numattn._arguments import bounded_integer, flag, size
from numattn._dtypes import COMPUTED, as_dtype
from numattn._names import Array, Int64Array, Layout
from numattn._quantize import Storage

from .moves import Move, moves_of
from .row_numbers import new_tokens
from .storage import Form, Tokens, check_storage, wide_channels, wide_table
from .token_kind import TokenKind


class TokenCache(ABC):
    """What `Cache` is without attention: tokens that are appended, cut off, moved and continued.

    Where they lie is for `KVCache` and `PagedKVCache` to say, by the methods that are abstract.
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        kv_heads: int,
        head_dim: int,
        value_dim: int | None,
        shared_values: bool,
        dtype: DTypeLike,
        storage: Storage,
        wide_keys: ArrayLike | None,
        max_length: int | None,
    ) -> None:
        self.layers = size("layers", layers)
        self.kv_heads = size("kv_heads", kv_heads)
        self.head_dim = size("head_dim", head_dim)
        self.value_dim = self.head_dim if value_dim is None else size("value_dim", value_dim)
        self.dtype: np.dtype[Any] = as_dtype(dtype, COMPUTED)
        self.max_length = None if max_length is None else size("max_length", max_length)
        self.shared_values = flag("shared_values", shared_values)
        self._kind = TokenKind(
            self.kv_heads, self.head_dim, self.value_dim, self.dtype, self.shared_values
        )
        check_storage(storage)
        self.storage = storage
        self.wide_keys: NDArray[np.bool_] | None = None
        if wide_keys is not None:
            shape = (self.layers, self.kv_heads, self.head_dim)
            self.wide_keys = wide_channels(wide_keys, shape, storage, self.shared_values)
        self._forms = [
            Form(storage, None if self.wide_keys is None else wide_table(self.wide_keys[layer]))
            for layer in range(self.layers)
        ]
        self._lengths = np.zeros((self.layers, size("batch", batch)), dtype=np.int64)
        # So many tokens more every row of a layer can take as things stand; there may be room for
        # more.
        self._rooms = [0] * self.layers

    @property
    def batch(self) -> int:
        """Return the number of rows."""
        return int(self._lengths.shape[1])

    @property
    def lengths(self) -> Int64Array:
        """Return how many tokens each row has in every layer, (B,)."""
        return np.asarray(self._lengths.min(axis=0))

    def layer_lengths(self, layer: int) -> Int64Array:
        """Return how many tokens each row has in one layer, (B,)."""
        return np.array(self._lengths[self._layer(layer)])

    @abstractmethod
    def reserve(self, counts: ArrayLike) -> None:
        """Make room in every layer for that many more tokens of each row; int or int array (B,).

        Afterwards `append` of these tokens cannot run out of memory.

        Raises
        ------
        ValueError
            A row would have more tokens than `max_length`; nothing is changed.
        MemoryError
            There is no room; no token is lost and no length changed.
        """

    @abstractmethod
    def append(
        self,
        layer: int,
        k: Array,
        v: Array | None = None,
        *,
        counts: ArrayLike | None = None,
        layout: Layout = "bhsd",
    ) -> Any:
        """Store new tokens after those that the layer has; return what attention is to read.

        Parameters
        ----------
        layer : int
            Counted from 0.
        k : array of shape (B, Hkv, S, D), the cache's dtype
            Keys of the new tokens, in the positions that `lengths` names. They may be views of what
            the cache itself holds.
        v : array of shape (B, Hkv, S, Dv), the cache's dtype
            Not given to a cache with `shared_values`.
        counts : int array of shape (B,), optional
            Only the first counts[b] of the S tokens of row b are real; all by default.
        layout : {"bhsd", "bshd"}
            "bshd": k is (B, S, Hkv, D), v likewise, and so is what is returned.

        Raises
        ------
        TypeError
            k or v has another dtype than the cache, or v is given to one with `shared_values`, or
            to another one not.
        ValueError
            There is no such layer, a shape does not fit, or a row would have more tokens than
            `max_length`; nothing is stored.
        MemoryError
            There is no room; nothing is stored.
        """

    def _prepared(
        self,
        index: int,
        k: Array,
        v: Array | None,
        count: int,
        counts: Int64Array | None,
        layout: Layout,
    ) -> tuple[Array | None, ...]:
        """Make room for new tokens in a layer, and return them in the form that it stores."""
        if count > self._rooms[index]:
            held, lengths = self._place(index)[0], self._lengths[index]
            new = new_tokens(counts, count, self.batch)
            k = held.apart(k)
            v = None if v is None else held.apart(v)
            self._check_lengths(lengths + new)
            self._rooms[index] = self._new_room(index, lengths, new)
        return self._forms[index].of(k, v, layout)

    @abstractmethod
    def _place(self, index: int) -> tuple[Tokens, Int64Array | None, Int64Array | None]:
        """Return a layer's memory, the pages of each row, and the position of its first slot.

        The pages are None where each row is in one piece, the positions where all are 0.
        """

    @abstractmethod
    def _new_room(self, index: int, lengths: Int64Array, new: Int64Array) -> int:
        """Make room for new[b] tokens behind lengths[b]; return how many every row can take."""

    @abstractmethod
    def truncate(self, lengths: ArrayLike) -> None:
        """Forget the tokens of each row from position lengths[b] on; int or int array (B,).

        A row that is shorter stays as it is.
        """

    def keep_only(self, starts: ArrayLike, places: Sequence[ArrayLike]) -> None:
        """Keep, of each row's tokens from position starts[b] on, those at the places named.

        For guesses that branch, of which one branch is right: their tokens move together.

        Parameters
        ----------
        starts : int or int array (B,)
        places : sequence of int arrays, one for each row
            Counted from starts[b], in order, of tokens that the row has. ``range(n)`` keeps the
            first n, as ``truncate(starts + n)`` does.

        Raises
        ------
        TypeError
            They are not integers.
        ValueError
            There is not one for each row, or they are not in order or name tokens that the row
            does not have; or tokens would have to move in a cache with windows, which count tokens
            as they came. Nothing is changed.
        MemoryError
            There is no page for a copy of one that is shared; nothing is changed.

        Examples
        --------
        >>> import numpy as np
        >>> import numattn as na
        >>> cache = na.KVCache(layers=1, batch=1, kv_heads=1, head_dim=1)
        >>> tokens = np.arange(6, dtype=np.float32).reshape(1, 1, 6, 1)
        >>> held = cache.append(0, tokens, tokens)
        >>> cache.keep_only(2, [[1, 3]])
        >>> cache.append(0, tokens[:, :, :0], tokens[:, :, :0]).k.ravel()
        array([0., 1., 3., 5.], dtype=float32)
        """
        limits, moves = moves_of(starts, places, self.lengths)
        if moves:
            self._move(moves, limits)
        self.truncate(limits)

    @abstractmethod
    def _move(self, moves: Sequence[Move], limits: Int64Array) -> None:
        """Bring tokens of rows to where they are to be, before limits[b]."""

    @abstractmethod
    def fork(self, indices: ArrayLike) -> None:
        """Make row i continue what was row indices[i]: for the beams of a search.

        Parameters
        ----------
        indices : int array of shape (new B,)
            Rows may be named several times, or not at all; then their tokens are forgotten. The
            number of rows may change.

        Raises
        ------
        ValueError
            A row does not exist, or none is named.
        MemoryError
            There is no room for the copies; nothing is changed.
        """

    def _forget(self, layer: int, lengths: Int64Array) -> None:
        """Take back the tokens appended since the layer had so many in each row, (B,)."""
        self._lengths[layer] = lengths

    def _layer(self, layer: int) -> int:
        index = bounded_integer("layer", layer)
        if not 0 <= index < self.layers:
            raise ValueError(f"layer must be in 0 … {self.layers - 1}, not {index}")
        return index

    def _no_tokens(self) -> list[Tokens]:
        """Return for each layer arrays of 0 tokens, as they are stored: (Hkv, 0, D) and so on."""
        k, v = (
            np.empty((self.kv_heads, 0, width), self.dtype)
            for width in (self.head_dim, self.value_dim)
        )
        return [form.of(k, None if self.shared_values else v) for form in self._forms]

    def _check_lengths(self, lengths: Int64Array) -> None:
        """Raise ValueError if rows (B,) were to have more tokens than `max_length`."""
        if self.max_length is not None and lengths.max() > self.max_length:
            row = int(lengths.argmax())
            raise ValueError(
                f"the cache holds at most {self.max_length} tokens a row (max_length), "
                f"and row {row} would have {lengths[row]}"
            )
