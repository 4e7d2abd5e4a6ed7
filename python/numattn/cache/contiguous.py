"""`KVCache`: the tokens of each row side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from numattn import _core
from numattn._arguments import bounded_integer, size
from numattn._attention import attention
from numattn._names import Array, Int64Array, Layout
from numattn._quantize import Storage
from numattn._score import CachedScore, Score, Window

from .base import Cache
from .memory import LayerMemory
from .moves import Move
from .row_numbers import kept_lengths, new_tokens, per_row, row_indices
from .rules import left_of
from .slots import in_slots
from .storage import Tokens
from .store import Store


class Cached(NamedTuple):
    """The tokens of one layer as attention reads them: its arguments of these names."""

    k: Array
    """(B, Hkv, n, D), a view of the cache; overwritten by what is appended later. With wide
    channels (B, Hkv, n, D + E)."""
    v: Array
    """(B, Hkv, n, Dv), likewise."""
    q_offset: Int64Array
    """(B,): where the first new token of each row stands among the keys of k."""
    kv_lens: Int64Array
    """(B,): how many keys of k each row has."""
    k_scale: Array | None = None
    """(B, Hkv, n): what the integers of k are multiplied by, if the cache stores such."""
    v_scale: Array | None = None
    """(B, Hkv, n), likewise."""
    k_wide: Int64Array | None = None
    """(Hkv, E): which channels of k have 16 bits, if any do."""

    @property
    def keys(self) -> int:
        """Return how many keys attention finds there for each row, Sk."""
        return int(self.kv_lens.max())

    def row(self, index: int) -> Cached:
        """Return the tokens of one row, as a batch of its own."""
        own = self._replace(k_wide=None)  # which is of all rows
        rows: Any = (None if array is None else array[index : index + 1] for array in own)
        return Cached(*rows)._replace(k_wide=self.k_wide)


class KVCache(Cache):
    """Keys and values of all layers, each row of a layer in one piece of memory.

    The memory grows to at least twice its size when it is full, so that n tokens cost O(n) copies.
    With a window, keys that no later query sees are dropped: then key 0 of the views is not
    position 0 any more, and `q_offset` and `kv_lens` count from the first key that is left. With
    sink tokens, these stay before the others, and `q_offset` and `kv_lens` count them as if the
    others came right after them.

    Parameters
    ----------
    layers, batch, kv_heads, head_dim : int
        Sizes; Hkv = kv_heads and D = head_dim.
    value_dim : int, optional
        Dv; D by default.
    shared_values : bool
        Values are the first Dv elements of keys, and `append` and `attend` take keys alone: the
        latents of multi-head latent attention (DeepSeek-V2 and V3: kv_heads=1, head_dim=576,
        value_dim=512), which are then held once.
    dtype : float32, float16 or bfloat16
        Of keys and values, which are stored as they come.
    storage : str, optional
        "int8" stores 8-bit integers instead, with a scale for each token and head: a quarter of
        the memory of float32, and of what a step reads. Elements err by up to 1/254 of their
        token's largest (:func:`numattn.quantize`).
    wide_keys : bool array of shape (layers, Hkv, D), optional
        With a storage: channels of keys that get 16 bits, and do not count for the scales of the
        others. For a few channels that are far larger than the others in every key, as the biases
        of some Qwen-2 models make them: the others are lost in the error of those, and the
        likeliest token is often another. A cache that a model makes knows its own. Broadcast to
        that shape. Each head's row of a layer's keys grows by a byte for every channel of the head
        that has the most, up to a multiple of 8.
    capacity : int
        Tokens a row for which memory is taken at the first append. More are possible.
    max_length : int, optional
        The most tokens that a row may have, evicted ones included.
    window : int or None, or a sequence of these for the layers
        How many keys before its own position a query sees: `left` of attention's window. None
        keeps all. A sliding window of W tokens, the query's own included, is ``window=W - 1``.
    slack : int
        How many tokens can be taken back by `truncate` from the most that a row has had, whatever
        the window: so many keys more are kept. For guesses of several tokens, some of which turn
        out wrong (speculative decoding).

    sink_tokens : int
        The first tokens of each row, so many, stay whatever the window, and every query sees them:
        attention sinks, with which a model stays fluent beyond its window.

    Attributes
    ----------
    windows : tuple of int or None
        The window of each layer.
    sink_tokens : int
    slack : int
    shared_values : bool
    storage : str or None
    wide_keys : bool array of shape (layers, Hkv, D), or None

    Raises
    ------
    ValueError
        A size is not positive, the dtype or the storage is another one, or `wide_keys` does not
        fit, or is given without a storage or with `shared_values`; or `value_dim` is larger than
        `head_dim` with `shared_values`.
    TypeError
        `wide_keys` does not hold flags.
    ImportError
        The dtype is bfloat16 by name, and the package ml_dtypes is not installed.

    Notes
    -----
    Sinks are those of StreamingLLM (Xiao et al., 2023), with the positions that tokens have in the
    text. Arguments, results and errors of the methods are those of `numattn.cache.Cache`.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> cache = na.KVCache(layers=1, batch=2, kv_heads=2, head_dim=16)
    >>> prompt = np.ones((2, 2, 5, 16), np.float32)
    >>> held = cache.append(0, prompt, prompt, counts=[5, 3])
    >>> held.k.shape, held.q_offset, held.kv_lens
    ((2, 2, 5, 16), array([0, 0]), array([5, 3]))
    >>> q = token = np.ones((2, 2, 1, 16), np.float32)
    >>> held = cache.append(0, token, token)
    >>> na.attention(q, is_causal=True, **held._asdict()).shape
    (2, 2, 1, 16)
    >>> cache.lengths
    array([6, 4])
    """

    _attention = staticmethod(attention)

    def __init__(
        self,
        layers: int,
        batch: int,
        kv_heads: int,
        head_dim: int,
        *,
        value_dim: int | None = None,
        shared_values: bool = False,
        dtype: DTypeLike = np.float32,
        storage: Storage = None,
        wide_keys: ArrayLike | None = None,
        capacity: int = 0,
        max_length: int | None = None,
        window: int | None | Sequence[int | None] = None,
        slack: int = 0,
        sink_tokens: int = 0,
    ) -> None:
        super().__init__(
            layers, batch, kv_heads, head_dim, value_dim, shared_values, dtype, storage, wide_keys,
            max_length,
        )  # fmt: skip
        first_capacity = size("capacity", capacity, least=0)
        if self.max_length is not None:
            first_capacity = min(first_capacity, self.max_length)
        self.windows = windows_of(window, self.layers)
        self.slack = bounded_integer("slack", slack)
        if self.slack < 0:
            raise ValueError(f"slack must be 0 or more, not {self.slack}")
        self.sink_tokens = size("sink_tokens", sink_tokens, least=0)
        memory = LayerMemory(self.layers)
        self._stores = [
            Store(
                self.batch,
                nothing,
                first_capacity,
                self.max_length,
                each,
                self.slack,
                self.sink_tokens,
                memory,
            )
            for nothing, each in zip(self._no_tokens(), self.windows, strict=True)
        ]

    def __repr__(self) -> str:
        return (
            f"KVCache(layers={self.layers}, batch={self.batch}, kv_heads={self.kv_heads}, "
            f"head_dim={self.head_dim}, dtype={self.dtype}, lengths={self.lengths.tolist()})"
        )

    def __getstate__(self) -> dict[str, Any]:
        stores = zip(self._stores, self._lengths, strict=True)
        used = [store.in_use(lengths) for store, lengths in stores]
        return {**vars(self), "_stores": used, "_rooms": [0] * self.layers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lengths = self._lengths.copy()
        for store in self._stores:  # pickle may have given memory of another, or read-only
            store.own_memory()

    @property
    def nbytes(self) -> int:
        """Return the memory that keys and values take, used or not."""
        return sum(store.tokens.nbytes for store in self._stores)

    def reserve(self, counts: ArrayLike) -> None:
        new = new_tokens(counts, None, self.batch)
        self._check_lengths((self._lengths + new).max(axis=0))
        for index, lengths in enumerate(self._lengths):
            self._rooms[index] = self._new_room(index, lengths, new)

    def append(
        self,
        layer: int,
        k: Array,
        v: Array | None = None,
        *,
        counts: ArrayLike | None = None,
        layout: Layout = "bhsd",
    ) -> Cached:
        index = self._layer(layer)
        k, v, count = self._kind.checked(k, v, self.batch, layout)
        rows = None if counts is None else per_row("counts", counts, self.batch)
        tokens = self._prepared(index, k, v, count, rows, layout)
        store, lengths = self._stores[index], self._lengths[index]
        q_offset = lengths - store.first
        _core.append_to_cache(store.tokens, tokens, None, lengths, store.first, rows, layout)
        self._rooms[index] -= count
        kv_lens = lengths - store.first
        end = int(kv_lens.max())
        held = store.tokens.with_values(self.value_dim)
        if layout == "bshd":
            held = held.map(lambda array: array[:, :, :end].swapaxes(1, 2))
        else:
            held = held.map(lambda array: array[:, :, :end])
        wide = self._forms[index].wide
        return Cached(
            held.k, held.values(self.value_dim), q_offset, kv_lens, held.k_scale, held.v_scale, wide
        )

    def _place(self, index: int) -> tuple[Tokens, None, Int64Array]:
        store = self._stores[index]
        return store.tokens, None, store.first

    def _in_slots(
        self, index: int, q: Array, ends: Int64Array, rules: Score, layout: Layout
    ) -> Score:
        rules = super()._in_slots(index, q, ends, rules, layout)
        store = self._stores[index]
        return in_slots(rules, ends, store.first, store.sinks)

    def _new_room(self, index: int, lengths: Int64Array, new: Int64Array) -> int:
        return self._stores[index].make_room(lengths, new)

    def truncate(self, lengths: ArrayLike) -> None:
        """Forget the tokens of each row from position lengths[b] on; int or int array (B,).

        A row that is shorter stays as it is.

        Raises
        ------
        ValueError
            A length is negative, or a window has dropped keys that the next query would see;
            nothing is changed.
        """
        limits = kept_lengths(lengths, self.batch)
        for layer, store in enumerate(self._stores):
            row = store.first_row_in_want(self._lengths[layer], limits)
            if row is not None:
                raise ValueError(
                    f"row {row} cannot be cut to {limits[row]} tokens: the window of "
                    f"{store.window} has dropped the first {store.first[row]} from layer {layer} "
                    f"(slack={self.slack} tokens can be taken back)"
                )
        np.minimum(self._lengths, limits, out=self._lengths)
        for store in self._stores:
            np.minimum(store.first, limits, out=store.first)

    def _move(self, moves: Sequence[Move], limits: Int64Array) -> None:
        if any(window is not None for window in self.windows):
            raise ValueError(
                f"a cache with windows {self.windows} keeps tokens in the order in which they came"
            )
        for row, start, source in moves:
            for store in self._stores:
                for array in store.tokens.arrays:
                    array[row, :, start : start + source.size] = array[row][:, source]

    def fork(self, indices: ArrayLike) -> None:
        """Make row i continue what was row indices[i]: for the beams of a search.

        All rows are copied, and until that is done there is memory for both.

        Raises
        ------
        ValueError
            A row does not exist, or none is named.
        MemoryError
            There is no room for the copies; nothing is changed.
        """
        rows = row_indices("indices", indices, self.batch)
        self._stores = [
            store.of_rows(rows, lengths)
            for store, lengths in zip(self._stores, self._lengths, strict=True)
        ]
        self._lengths = np.ascontiguousarray(self._lengths[:, rows])
        self._rooms = [0] * self.layers

    def _window(self, layer: int, window: Window) -> tuple[int, int]:
        """Return the sides of the window that is to be used: the one given, or the layer's own."""
        kept = self.windows[layer]
        if window is None:
            return (-1 if kept is None else kept, -1)
        left = left_of(window)
        if kept is None:
            return (-1 if left is None else left, -1)
        if left is None or left > kept:
            raise ValueError(
                f"window must reach back {kept} keys at most, which layer {layer} of the cache "
                f"keeps, not {window!r}"
            )
        return (left, -1)

    def _sinks(self, layer: int, score: CachedScore) -> int:
        """Return how many tokens every query sees: as many as given, or the cache's own."""
        given = score.get("sink_tokens")
        sinks = self.sink_tokens if given is None else size("sink_tokens", given, least=0)
        if self.windows[layer] is None:
            return sinks
        if sinks > self.sink_tokens:
            raise ValueError(
                f"sink_tokens must be {self.sink_tokens} at most, as the cache keeps, not {sinks}"
            )
        if sinks and not (score.get("alibi_slopes") is None and score.get("relative") is None):
            raise ValueError(
                "alibi_slopes and relative go by distance, which the cache does not keep for its "
                "sink_tokens: they cannot be had together"
            )
        return sinks


def windows_of(window: int | None | Sequence[int | None], layers: int) -> tuple[int | None, ...]:
    """Return the window of each layer."""
    each = tuple(window) if isinstance(window, Sequence) else (window,) * layers
    if len(each) != layers:
        raise ValueError(f"window must have one entry for each of {layers} layers, not {len(each)}")
    for left in each:
        if left is not None and bounded_integer("window", left) < 0:
            raise ValueError(f"window must be 0 or more, or None, not {left}")
    return each
