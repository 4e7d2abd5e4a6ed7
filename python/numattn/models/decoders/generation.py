"""Several texts in progress on one cache: at each step, a token more of each that has not ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn._arguments import bounded_integer
from numattn.cache import Cache, KVCache, PagedKVCache

from ..arrays import Float32Array, Int64Array
from ..sampling import Sampler, greedy
from ..token_lists import TokenLists, padded, token_lists
from .prefix_cache import PrefixCache

# For how many new tokens of each text a cache has room from the start. It grows when it is full,
# and most texts end long before their limit.
ROOM = 1024


class LanguageModel(Protocol):
    """What a model must have: `Decoder` has it."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def switch_length(self) -> int | None: ...

    @property
    def verifies_trees(self) -> bool: ...

    def new_cache(self, batch: int, *, capacity: int = 0, slack: int = 0) -> KVCache: ...

    def __call__(
        self,
        token_ids: ArrayLike,
        lengths: ArrayLike | None = None,
        *,
        cache: Cache | None = None,
        only_last: bool = False,
        text_lengths: ArrayLike | None = None,
        parents: ArrayLike | None = None,
        num_threads: int | None = None,
    ) -> Float32Array: ...


class Generation:
    """The texts that a model writes after prompts.

    Parameters
    ----------
    model, prompts, max_new_tokens, sampler, cache, chunk, num_threads
        As for `generate`.
    slack : int
        How many tokens must be able to be taken back from the cache.
    prefixes : PrefixCache, optional
        Texts that are kept, in place of a cache. Call `finish` then, whatever happens.

    Attributes
    ----------
    prompts : list of int arrays (n,)
        Their ids.
    texts : list of lists of int
        The new tokens of each.
    active : int array (B,)
        1 for a text that goes on, else 0.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `generate`.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompts: TokenLists,
        max_new_tokens: int,
        *,
        sampler: Sampler | None = None,
        cache: Cache | None = None,
        chunk: int | None = None,
        num_threads: int | None = None,
        slack: int = 0,
        prefixes: PrefixCache | None = None,
    ) -> None:
        self._most = bounded_integer("max_new_tokens", max_new_tokens)
        if self._most < 0:
            raise ValueError(f"max_new_tokens must be 0 or more, not {self._most}")
        if chunk is not None and bounded_integer("chunk", chunk) < 1:
            raise ValueError(f"chunk must be 1 or more, not {chunk}")
        self._model, self._chunk, self._threads = model, chunk, num_threads
        self._sampler = greedy() if sampler is None else sampler
        self.prompts = token_lists("prompts", prompts, model.vocab_size)
        check_prompts(self.prompts)
        self.texts: list[list[int]] = [[] for _ in self.prompts]
        self.active = np.full(len(self.prompts), self._most > 0, dtype=np.int64)
        self._prefixes: PrefixCache | None = None
        if prefixes is not None and cache is not None:
            raise ValueError("give a cache or prefixes, not both")
        if self.active.any() and prefixes is None:
            self._begin(cache, self.prompts, slack)
        elif self.active.any() and prefixes is not None:
            self._begin_with(prefixes, slack)

    def _begin(self, cache: Cache | None, unread: Sequence[Int64Array], slack: int) -> None:
        self._ids, self._lengths = padded(unread, 0)  # what is to be read next
        self._cache = checked_cache(self._model, cache, unread, self._most, slack)

    def _begin_with(self, prefixes: PrefixCache, slack: int) -> None:
        """Begin with a cache that holds what is kept of the prompts' beginnings."""
        cache = prefixes.begin(self.prompts, self._most - 1)
        try:
            parts = zip(self.prompts, cache.lengths, strict=True)
            self._begin(cache, [prompt[length:] for prompt, length in parts], slack)
        except BaseException:
            cache.truncate(0)
            raise
        self._prefixes = prefixes

    def finish(self) -> None:
        """Let `prefixes`, if there are any, keep the texts as they are; no step follows."""
        prefixes, self._prefixes = self._prefixes, None
        if prefixes is not None and isinstance(self._cache, PagedKVCache):
            self.active[:] = 0
            parts = zip(self.prompts, self.texts, strict=True)
            wholes = [np.array([*prompt, *text], dtype=np.int64) for prompt, text in parts]
            prefixes.finish(self._cache, wholes)

    def step(self) -> list[list[int]]:
        """Read what is new, and return what is added to each text: a token of those that go on.

        Only while one is active.
        """
        if any(self.texts):
            self._ids, self._lengths = self._new()
        logits = read_parts(
            self._model, self._ids, self._lengths, self._cache, self._chunk, self._threads
        )
        tokens = self._sampler(logits, self.prompts, self.texts).tolist()
        new = [[token] * alive for token, alive in zip(tokens, self.active, strict=True)]
        self._add(new)
        return new

    def _add(self, new: Sequence[Sequence[int]]) -> None:
        """Add tokens to the texts, and end those that have as many as they may."""
        for row, tokens in enumerate(new):
            self.texts[row] += tokens
            if len(self.texts[row]) == self._most:
                self.end(row)

    def end(self, row: int, dropped: int = 0) -> None:
        """Let a text have no more tokens, and without the last `dropped` of those that it has."""
        self.active[row] = 0
        if dropped:
            del self.texts[row][-dropped:]
            lengths = self._cache.lengths
            lengths[row] -= dropped
            self._cache.truncate(lengths)

    def _new(self) -> tuple[Int64Array, Int64Array]:
        """Return what is to be read before the next step: ids (B, S), and how many of each row.

        That is the last token, or a whole text that is read anew; of one that has ended, nothing.
        """
        anew = grown_beyond(self._model.switch_length, self._cache, self.active)
        if not anew.any():
            last = np.array([[text[-1]] for text in self.texts], dtype=np.int64)
            return last, self.active
        self._cache.truncate(np.where(anew, 0, self._cache.lengths))
        parts = zip(self.prompts, self.texts, anew, self.active, strict=True)
        return padded(
            [
                np.array([*prompt, *text] if again else text[-1:] * alive, dtype=np.int64)
                for prompt, text, again, alive in parts
            ],
            0,
        )


def check_prompts(prompts: Sequence[Int64Array]) -> None:
    """Raise ValueError if one of them is empty."""
    for number, prompt in enumerate(prompts):
        if prompt.size == 0:
            raise ValueError(f"prompt {number} is empty")


def checked_cache(
    model: LanguageModel,
    cache: Cache | None,
    prompts: Sequence[Int64Array],
    most: int,
    slack: int = 0,
) -> Cache:
    """Return a cache that has room for prompts and `most` new tokens, a new one if none is given.

    Raises
    ------
    TypeError, ValueError
        If it is no cache, of another number of rows, or cannot hold as much or give back `slack`
        tokens.
    """
    lengths = np.array([prompt.size for prompt in prompts], dtype=np.int64)
    if cache is None:
        room = int(lengths.max()) + min(most - 1, ROOM)
        cache = model.new_cache(lengths.size, capacity=room, slack=slack)
    check_kind(cache)
    if isinstance(cache, KVCache) and cache.slack < slack and any_window(cache):
        raise ValueError(
            f"the cache has a window and slack {cache.slack}: guesses of {slack} tokens need "
            f"slack={slack}"
        )
    if cache.batch != lengths.size:
        raise ValueError(f"the cache has {cache.batch} rows, and there are {lengths.size} prompts")
    check_length(cache, lengths, most)
    check_switch(cache, lengths, most, model.switch_length)
    return cache


def any_window(cache: KVCache) -> bool:
    """Return whether a layer keeps a window of its keys."""
    return any(window is not None for window in cache.windows)


def check_kind(cache: object) -> None:
    """Raise TypeError for what is no cache."""
    if not isinstance(cache, Cache):
        raise TypeError(f"cache must be a KVCache or PagedKVCache, not {type(cache).__name__}")


def check_length(cache: Cache, prompts: Int64Array, most: int) -> None:
    """Raise ValueError if a cache cannot hold the prompts' tokens, (B,), and `most` new ones.

    The last token of a text is not read.
    """
    if cache.max_length is None:
        return
    held = cache.lengths + prompts
    row = int(held.argmax())
    longest = int(held[row]) + most - 1
    if longest > cache.max_length:
        raise ValueError(
            f"text {row} could have {longest} tokens to be read, prompt and new ones, and the "
            f"cache holds {cache.max_length} (max_length)"
        )


def check_switch(cache: Cache, prompts: Int64Array, most: int, switch: int | None) -> None:
    """Raise ValueError if a text would have to be read anew whose beginning is known by keys only.

    Those of the tokens that a cache has are turned for a text of at most `switch` tokens.
    """
    if switch is None:
        return
    held = cache.lengths
    rows = np.flatnonzero((0 < held) & (held <= switch) & (held + prompts > switch - most + 1))
    if rows.size:
        row = int(rows[0])
        raise ValueError(
            f"text {row} could have {int(held[row] + prompts[row]) + most - 1} tokens to be read, "
            f"and the {held[row]} in the cache are turned for a text of at most {switch}: give "
            "them as part of the prompt, with an empty cache"
        )


def grown_beyond(switch: int | None, cache: Cache, new: Int64Array) -> NDArray[np.bool_]:
    """Return which rows (B,) grow by their new tokens beyond what they are turned for."""
    if switch is None:
        return np.zeros(new.shape, dtype=bool)
    lengths = cache.lengths
    return np.asarray((lengths <= switch) & (lengths + new > switch))


def read_parts(
    model: LanguageModel,
    ids: Int64Array,
    lengths: Int64Array,
    cache: Cache,
    chunk: int | None,
    num_threads: int | None,
) -> Float32Array:
    """Return the logits after the last of lengths[b] tokens of each row, (B, V), read in parts.

    The cache then has their keys and values. A row without a token has numbers without meaning.
    """
    size = ids.shape[1]
    chunk = size if chunk is None else min(chunk, size)
    wholes = None if chunk == size else cache.lengths + lengths
    result: Float32Array | None = None
    for start in range(0, size, chunk):
        part = ids[:, start : start + chunk]
        counts = np.clip(lengths - start, 0, part.shape[1])
        logits = model(
            part, counts, cache=cache, only_last=True, text_lengths=wholes, num_threads=num_threads
        )
        result = logits if result is None else np.where(counts[:, np.newaxis] > 0, logits, result)
    assert result is not None  # ids has a column
    return result
