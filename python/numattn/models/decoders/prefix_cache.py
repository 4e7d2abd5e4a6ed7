"""Texts that are kept, so that a prompt that begins alike is read from where it differs.

A system prompt, a document that is asked about, a chat that goes on: of each the keys and values
stay in pages of one pool, which later texts share without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from numattn._arguments import bounded_integer
from numattn.cache import PagedKVCache

from ..arrays import Int64Array


class Kept(NamedTuple):
    """A text, and its keys and values."""

    tokens: Int64Array
    cache: PagedKVCache
    """Of one row."""


class PrefixCache:
    """Texts of one model in pages of one pool; those that were used longest ago give way.

    Made by `Decoder.new_prefix_cache`, and given to `generate` and its kin as `prefixes`. For one
    thread, and one generation, at a time.

    Parameters
    ----------
    pool : PagedKVCache
        An empty cache of the model, which is nobody else's.
    texts : int
        The most texts that are kept.
    reusable : bool
        False keeps nothing, for models whose keys depend on the length of the whole text.
    whole : int
        Beginnings are kept and reused in multiples of so many tokens. Of a multiple of the chunks
        in which prompts are read, what is reused has the bits that reading would give; of a
        multiple of the pages' size, no page is ever copied.

    Attributes
    ----------
    read, reused : int
        How many tokens of prompts have been read, and how many were there already.

    Raises
    ------
    ValueError
        texts or whole is below 1, or the pool holds tokens.
    """

    def __init__(
        self, pool: PagedKVCache, texts: int = 64, *, reusable: bool = True, whole: int = 1
    ) -> None:
        for name, value in (("texts", texts), ("whole", whole)):
            if bounded_integer(name, value) < 1:
                raise ValueError(f"{name} must be 1 or more, not {value}")
        if pool.lengths.any():
            raise ValueError("the pool of a prefix cache must be empty")
        pool.fork([0])
        self._pool, self._most, self._reusable, self._whole = pool, texts, reusable, whole
        self._kept: list[Kept] = []  # the one used last comes last
        self._kept_pages: int | None = 0  # None where they are to be counted
        self.read = self.reused = 0

    def __len__(self) -> int:
        """Return how many texts are kept."""
        return len(self._kept)

    @property
    def free_pages(self) -> int:
        """Return how many pages hold nothing."""
        return self._pool.free_pages

    @property
    def kept_pages(self) -> int:
        """Return how many pages hold texts that are kept, whoever else shares them."""
        if self._kept_pages is None:
            tables = (kept.cache.block_table()[0].tolist() for kept in self._kept)
            self._kept_pages = len({page for table in tables for page in table})
        return self._kept_pages

    def begin(self, prompts: Sequence[Int64Array], new_tokens: int) -> PagedKVCache:
        """Return a cache with a row for each prompt, which holds what is kept of its beginning.

        At least a prompt's last token is not held, since it must be read for what comes next. Texts
        are forgotten until there are pages for `new_tokens` more of each, or none is left.

        Afterwards call `finish`, whatever happens.
        """
        rows, lengths = [], np.zeros(len(prompts), dtype=np.int64)
        for number, prompt in enumerate(prompts):
            found, lengths[number] = self._longest(prompt)
            rows.append((self._pool if found is None else found.cache, 0))
            if found is not None:
                self._use(found)
        cache = self._pool.gather(rows)
        cache.truncate(lengths)
        size = self._pool.page_size
        # The last page that is shared is copied when it is written.
        needed = sum(
            -(-(prompt.size + new_tokens) // size) - int(length) // size
            for prompt, length in zip(prompts, lengths, strict=True)
        )
        self.make_room(needed)
        self.reused += int(lengths.sum())
        self.read += sum(prompt.size for prompt in prompts) - int(lengths.sum())
        return cache

    def finish(self, cache: PagedKVCache, texts: Sequence[Int64Array]) -> None:
        """Keep what a cache of `begin` holds, of the tokens of its rows, and empty it."""
        for row, (text, length) in enumerate(zip(texts, cache.lengths, strict=True)):
            self.keep(cache, row, text[: int(length)])
        cache.truncate(0)

    def keep(self, cache: PagedKVCache, row: int, tokens: Int64Array) -> None:
        """Keep what a row of a cache of `begin` holds of these, its first tokens."""
        tokens = tokens[: self.whole_part(tokens.size)]
        if not tokens.size or not self._reusable:
            return
        if any(common(tokens, kept.tokens) == tokens.size for kept in self._kept):
            return
        for kept in [*self._kept]:
            if common(tokens, kept.tokens) == kept.tokens.size:  # it is in the new one
                self._forget(kept)
        own = self._pool.gather([(cache, row)])
        own.truncate(tokens.size)
        self._kept.append(Kept(tokens, own))
        self._kept_pages = None
        while len(self._kept) > self._most:
            self._forget(self._kept[0])

    def whole_part(self, size: int) -> int:
        """Return how many of so many tokens are kept."""
        return size // self._whole * self._whole

    def make_room(self, pages: int) -> None:
        """Forget texts until so many pages hold nothing, or none is left."""
        while self._kept and self._pool.free_pages < pages:
            self._forget(self._kept[0])

    def clear(self) -> None:
        """Forget all texts."""
        while self._kept:
            self._forget(self._kept[0])

    def _longest(self, prompt: Int64Array) -> tuple[Kept | None, int]:
        """Return the text that begins most like a prompt, and how many tokens that are."""
        best: Kept | None = None
        longest = 0
        for kept in self._kept:
            length = self.whole_part(common(prompt[:-1], kept.tokens))
            if length > longest:
                best, longest = kept, length
        return best, longest

    def _use(self, kept: Kept) -> None:
        """Let a text be the one used last."""
        self._kept = [each for each in self._kept if each is not kept] + [kept]

    def _forget(self, kept: Kept) -> None:
        self._kept = [each for each in self._kept if each is not kept]
        self._kept_pages = None
        kept.cache.truncate(0)


def common(one: Int64Array, other: Int64Array) -> int:
    """Return how many tokens two texts have in common at their beginning."""
    size = min(one.size, other.size)
    unlike = np.flatnonzero(one[:size] != other[:size])
    return int(unlike[0]) if unlike.size else size
