"""What both caches share: sizes, tokens counted per layer and row, and a step of attention.

A cache holds keys and values of `layers` layers for `batch` rows. Row b of a layer has
lengths[b] tokens, at positions 0 … lengths[b] − 1; the next one gets position lengths[b].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from numattn import _core
from numattn._arguments import (
    as_output,
    bounded_integer,
    flag,
    in_kind_of,
    size,
    thread_count,
)
from numattn._dtypes import COMPUTED, as_dtype
from numattn._memory import require_apart
from numattn._names import Array, Int64Array, Layout, Output
from numattn._quantize import Storage
from numattn._score import CachedScore, Score, Window, require_known, spelled_out, window_sides

from .layer import CacheLayer
from .moves import Move, moves_of
from .row_numbers import new_tokens, per_row
from .rows import attend_by_rows, differ, may_be_result
from .rules import step_rules
from .slots import names_keys, require_fit
from .storage import Form, Tokens, check_storage, wide_channels, wide_table
from .token_kind import TokenKind

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Cache(ABC):
    """The interface of `KVCache` and `PagedKVCache`.

    A model appends to one layer after the other, so that for a while the layers have different
    lengths; `lengths` counts what all of them have. A cache is for one thread at a time.

    Attributes
    ----------
    layers, kv_heads, head_dim, value_dim : int
        Sizes.
    shared_values : bool
        Whether values are the first Dv elements of keys, and stored with them alone.
    dtype : numpy.dtype
        Of keys and values.
    storage : str or None
        The form in which tokens are stored; None is as they come.
    wide_keys : bool array of shape (layers, Hkv, D), or None
        Channels of keys that are stored in 16 bits.
    max_length : int or None
        The most tokens that a row may have.
    """

    _attention: ClassVar[Callable[..., Any]]
    """Attention of q to what `append` returns, whose fields are arguments of it."""

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

    def layer(self, layer: int) -> CacheLayer:
        """Return one layer, for :class:`numattn.MultiHeadAttention`.

        Raises
        ------
        ValueError
            There is no such layer.
        """
        return CacheLayer(self, self._layer(layer))

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

    @spelled_out(CachedScore)
    def attend(
        self,
        layer: int,
        q: Array,
        k: Array,
        v: Array | None = None,
        *,
        counts: ArrayLike | None = None,
        layout: Layout = "bhsd",
        out: Output | None = None,
        num_threads: int | None = None,
        **score: Unpack[CachedScore],
    ) -> Array:
        """Append new tokens, and let their queries attend causally to all tokens of their row.

        Parameters
        ----------
        layer, k, v, counts, layout
            As for `append`.
        q : array of shape (B, Hq, S, D), the cache's dtype
            Queries of the new tokens. Those of tokens beyond counts[b] give numbers without
            meaning; the others, what they give if their row is alone, bit by bit.
        out, num_threads, **score
            As for :func:`numattn.attention`. The window and the sink tokens are the layer's own by
            default. `key_spans` and `block_mask` name keys by their positions, the first token of a
            row being 0; Sk is what the longest row has with its new tokens, Sq is S. What a window
            has dropped is not seen, whether they name it or not.

        Returns
        -------
        array of shape (B, Hq, S, Dv) in the layout of q

        Raises
        ------
        TypeError, ValueError, MemoryError
            As for `append` and :func:`numattn.attention`, or q holds another number of tokens than
            k and v; the layer is as it was.
        """
        if score:
            require_known(f"{type(self).__name__}.attend", score, CachedScore)
        index = self._layer(layer)
        rules = step_rules(
            score, self._window(index, score.get("window")), self._sinks(index, score)
        )
        k, v, count = self._kind.checked(k, v, self.batch, layout)
        queries = self._kind.queries(q, k, layout)
        written = None if out is None else as_output(out)
        rows = None if counts is None else per_row("counts", counts, self.batch)
        if written is not None:
            given = {"q": queries, "k": k, "v": v, "counts": rows, "score": rules, **score}
            require_apart(written, {**given, "the cache": self._place(index)[0]})
        threads = thread_count(num_threads)
        if rows is not None and differ(rows, queries, layout):
            if may_be_result(written, (*queries.shape[:-1], self.value_dim), queries.dtype):
                options = {**score, "window": rules.window, "num_threads": num_threads}
                options["sink_tokens"] = rules.sink_tokens
                o = self._attend_by_rows(
                    index, queries, k, v, rows, rules, layout, written, options
                )
                return in_kind_of(q, o, out)
        o = self._attend(index, queries, k, v, count, rows, rules, layout, threads, written)
        if queries is q and written is out:  # arrays all, told quickly
            return o
        return in_kind_of(q, o, out)

    def _attend(
        self,
        index: int,
        q: Array,
        k: Array,
        v: Array | None,
        count: int,
        counts: Int64Array | None,
        rules: Score,
        layout: Layout,
        threads: int,
        out: Array | None,
    ) -> Array:
        """Do what `attend` does, its arguments checked; k and v hold `count` tokens a row."""
        tokens = self._prepared(index, k, v, count, counts, layout)
        held, table, first = self._place(index)
        held = held.with_values(self.value_dim)
        lengths = self._lengths[index]
        try:
            if first is not None and names_keys(rules) and first.any():
                ends = lengths + (count if counts is None else counts)
                rules = self._in_slots(index, q, ends, rules, layout)
            o: Array = _core.attend_in_cache(
                q, held, tokens, self._forms[index].wide, table, lengths, first, counts, rules,
                layout, threads, out,
            )  # fmt: skip
        except BaseException:
            self._forget(index, lengths)  # the room that was made
            raise
        self._rooms[index] -= count
        return o

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

    def _attend_by_rows(
        self,
        index: int,
        q: Array,
        k: Array,
        v: Array | None,
        counts: Int64Array,
        rules: Score,
        layout: Layout,
        out: Array | None,
        options: dict[str, Any],
    ) -> Array:
        """Do what `_attend` does where rows have several new tokens, and not as many each."""
        before = self._lengths[index].copy()
        cached = self.append(index, k, v, counts=counts, layout=layout)
        options = {**options, "is_causal": True, "layout": layout}
        try:
            if names_keys(rules):
                rules = self._in_slots(index, q, self._lengths[index], rules, layout)
                options |= {"key_spans": rules.key_spans, "block_mask": rules.block_mask}
            return attend_by_rows(self._attention, q, cached, counts, out, options)
        except BaseException:
            self._forget(index, before)
            raise

    def _in_slots(
        self, index: int, q: Array, ends: Int64Array, rules: Score, layout: Layout
    ) -> Score:
        """Return a score that names keys by position as one that names slots of a layer.

        Rows have ends[b] tokens then.

        Raises
        ------
        ValueError
            It does not fit the queries, or as many keys as the longest row has.
        """
        require_fit(rules, q, self._kind, int(ends.max()), layout)
        return rules

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

    def _window(self, layer: int, window: Window) -> tuple[int, int]:
        """Return the sides of the window that is to be used where one, or none, was given."""
        return window_sides(window)

    def _sinks(self, layer: int, score: CachedScore) -> int:
        """Return how many of the first tokens are to be seen whatever the window."""
        return size("sink_tokens", score.get("sink_tokens", 0), least=0)

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
