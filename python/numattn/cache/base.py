"""The interface of both caches: their tokens, and a step of attention over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import ArrayLike

from numattn import _core
from numattn._arguments import as_output, in_kind_of, size, thread_count
from numattn._memory import require_apart
from numattn._names import Array, Int64Array, Layout, Output
from numattn._score import CachedScore, Score, Window, require_known, spelled_out, window_sides

from .layer import CacheLayer
from .row_numbers import per_row
from .rows import attend_by_rows, differ, may_be_result
from .rules import step_rules
from .slots import names_keys, require_fit
from .token_cache import TokenCache

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Cache(TokenCache):
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

    def layer(self, layer: int) -> CacheLayer:
        """Return one layer, for :class:`numattn.MultiHeadAttention`.

        Raises
        ------
        ValueError
            There is no such layer.
        """
        return CacheLayer(self, self._layer(layer))

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

    def _window(self, layer: int, window: Window) -> tuple[int, int]:
        """Return the sides of the window that is to be used where one, or none, was given."""
        return window_sides(window)

    def _sinks(self, layer: int, score: CachedScore) -> int:
        """Return how many of the first tokens are to be seen whatever the window."""
        return size("sink_tokens", score.get("sink_tokens", 0), least=0)
