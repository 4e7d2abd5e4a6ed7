"""Texts that are written together, token by token: continuous batching over one pool of pages.

    step: admit → read a chunk of a prompt or some → one token for each text that is being written

A text is admitted when there are free pages for all that it may come to have, so that none that has
begun must wait for memory, or lose what it has. Texts are admitted in the order in which they came.
What a text becomes does not depend on those beside it, bit by bit: rows of a step do not, and the
chunks in which a prompt is read follow from the prompt alone. With the same `chunk` and
greedily, it is what `generate` writes.

Whole chunks at the beginning of a prompt are kept in their pages, and a prompt that begins alike
does not read them. They are what it would read, bit by bit, so that this holds of it as well. Kept
pages are promised to nobody: whoever is written has them when there is no other. A text that shares
some is admitted as if it did not; once it does, they are counted once for all (promises.py).

With a draft a text may get several tokens in a step: guesses by what followed the same words before
are read with its last token, and those stay that are what the text then chooses.

(Yu et al., "Orca", 2022; Kwon et al., "Efficient Memory Management for Large Language Model Serving
with PagedAttention", 2023; Agrawal et al., "Sarathi-Serve", 2024.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import lcm
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numattn import PagedKVCache
from numattn.models.decoders.drafts import NgramDraft
from numattn.models.decoders.prefix_cache import PrefixCache
from numattn.models.sampling import greedy
from numattn.models.token_lists import padded

from .promises import Promises
from .sequence import Sequence

if TYPE_CHECKING:
    from numattn.models import Gpt, Llama

    from .limits import Limits


class Written(NamedTuple):
    """What a step has done for one text."""

    sequence: Sequence
    tokens: list[int]
    """What the text has more; none beside an error."""
    error: BaseException | None = None
    first: bool = False
    """Whether they begin the text: its prompt has been read."""
    guessed: int = 0
    """How many tokens were guessed, for this step to verify,"""
    accepted: int = 0
    """and how many of them are the text's."""


@dataclass(eq=False)
class Reading:
    """A text of which the prompt is being read, into a cache of its own in the common pool."""

    sequence: Sequence
    cache: PagedKVCache


class Batch:
    """Texts that wait, that are being read, and that are being written. For one thread.

    Parameters
    ----------
    model : Llama or Gpt
    limits : Limits
        Of it `pages`, `page_size`, `rows`, `chunk`, `prefixes` and `draft`.
    num_threads : int, optional
        Upper limit of threads.
    """

    def __init__(self, model: Llama | Gpt, limits: Limits, num_threads: int | None = None) -> None:
        self._model, self._limits, self._num_threads = model, limits, num_threads
        self._pool = model.new_paged_cache(1, pages=limits.pages, page_size=limits.page_size)
        self._prefixes = PrefixCache(
            self._pool,
            max(limits.prefixes, 1),
            reusable=limits.prefixes > 0 and not model.depends_on_length,
            # No page is shared in part: so none is copied, which would take more than was promised.
            whole=lcm(limits.chunk, limits.page_size),
        )
        self._draft = NgramDraft(limits.draft) if limits.draft else None
        self._waiting: deque[Sequence] = deque()
        self._reading: list[Reading] = []
        self._running: list[Sequence] = []
        self._cache: PagedKVCache | None = None  # a row for each that is running
        self._promises = Promises()  # to those that are admitted

    @property
    def waiting(self) -> int:
        """Return how many texts wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Return how many texts are being read or written."""
        return len(self._reading) + len(self._running)

    @property
    def free_pages(self) -> int:
        """Return how many pages hold nothing."""
        return self._pool.free_pages

    @property
    def kept_pages(self) -> int:
        """Return how many pages hold beginnings of prompts that are kept."""
        return self._prefixes.kept_pages

    def pages_of(self, sequence: Sequence) -> int:
        """Return how many pages a text may come to have."""
        return self._pages(sequence.cached_tokens)

    def _pages(self, tokens: int) -> int:
        return -(-tokens // self._limits.page_size)

    def add(self, sequence: Sequence) -> None:
        """Put a text at the end of those that wait.

        Raises
        ------
        ValueError
            It may come to have more pages than there are.
        """
        if self.pages_of(sequence) > self._limits.pages:
            raise ValueError(
                f"a text of {sequence.limit} tokens takes {self.pages_of(sequence)} pages of "
                f"{self._limits.page_size} tokens, and there are {self._limits.pages}"
            )
        self._waiting.append(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """Forget a text, wherever it stands; its pages are free then."""
        if sequence in self._waiting:
            self._waiting.remove(sequence)
            return
        for reading in self._reading:
            if reading.sequence is sequence:
                reading.cache.free([0])
                self._reading.remove(reading)
                self._promises.end(sequence)
                return
        if sequence in self._running:
            self._leave([sequence])
            self._promises.end(sequence)

    def drop(self) -> list[Sequence]:
        """Forget all texts and whatever is kept, and return the texts."""
        every = [*self._waiting, *(reading.sequence for reading in self._reading), *self._running]
        for sequence in every:
            self.cancel(sequence)
        self._prefixes.clear()
        return every

    def step(self) -> list[Written]:
        """Read some of a prompt, or of some, and write a token of each text that is read."""
        self._admit()
        return [*self._read(), *self._write()]

    def _admit(self) -> None:
        """Begin with texts that wait while there are rows and pages for them."""
        limits = self._limits
        while self._waiting and self.running < limits.rows:
            pages = self.pages_of(self._waiting[0])
            if self._promises.pages + pages > limits.pages:
                return
            self._promises.make(self._waiting[0], pages)
            self._reading.append(Reading(self._waiting.popleft(), self._pool.beside(1)))

    def _read(self) -> list[Written]:
        """Read a chunk of each of the first prompts, a chunk's worth of tokens in all."""
        left = self._limits.chunk
        turn: list[Reading] = []
        for reading in self._reading:
            if left <= 0:
                break
            self._begin(reading)
            left -= reading.sequence.unread(self._limits.chunk).size
            turn.append(reading)
        return self._read_together(turn) if turn else []

    def _read_together(self, readings: list[Reading]) -> list[Written]:
        """Read a chunk of each prompt in one call; what fails there is read alone."""
        try:
            logits = self._read_chunks(readings)
        except Exception as error:
            if len(readings) > 1:
                return [each for reading in readings for each in self._read_together([reading])]
            self.cancel(readings[0].sequence)
            return [Written(readings[0].sequence, [], error)]
        written = []
        for row, reading in enumerate(readings):
            sequence = reading.sequence
            self._keep(reading)
            if sequence.read < len(sequence.tokens):
                continue
            try:
                token = sequence.take(logits[row : row + 1])
            except Exception as error:
                self.cancel(sequence)
                written.append(Written(sequence, [], error))
                continue
            written.append(Written(sequence, [token], first=sequence.new_tokens == 1))
            self._reading.remove(reading)
            if sequence.finish is None and not self._grown(sequence):
                self._enter(sequence, reading.cache)
            else:
                reading.cache.free([0])
                self._end_or_read_anew([sequence])
        return written

    def _read_chunks(self, readings: list[Reading]) -> NDArray[Any]:
        """Return the logits (R, V) after the next chunk of each prompt, which is in its cache then.

        Rows of several tokens each, and not as many, are computed as each is alone.
        """
        sequences = [reading.sequence for reading in readings]
        ids, counts = padded([each.unread(self._limits.chunk)[0] for each in sequences], 0)
        new = zip(sequences, counts.tolist(), strict=True)
        self._prefixes.make_room(sum(self._new_pages(*each) for each in new))
        together = readings[0].cache
        for reading in readings[1:]:
            together.join(reading.cache)
        try:
            logits = self._model(
                ids,
                counts,
                cache=together,
                only_last=True,
                text_lengths=[len(each.tokens) for each in sequences],
                num_threads=self._num_threads,
            )
        finally:
            for row, reading in enumerate(readings):
                reading.cache = self._pool.gather([(together, row)])
            together.truncate(0)
        for sequence, count in zip(sequences, counts.tolist(), strict=True):
            sequence.read += count
        return logits

    def _begin(self, reading: Reading) -> None:
        """Let a text that has nothing yet have what is kept of its beginning."""
        sequence = reading.sequence
        if sequence.read == 0:
            prompt = np.array(sequence.tokens, dtype=np.int64)
            reading.cache = self._prefixes.begin([prompt], 0)
            sequence.read = sequence.reused = int(reading.cache.lengths[0])
            self._name_pages(reading)

    def _keep(self, reading: Reading) -> None:
        """Keep a prompt's whole chunks, once the last of them is read."""
        sequence = reading.sequence
        whole = self._prefixes.whole_part(sequence.prompt_tokens)
        if sequence.read == whole:
            prompt = np.array(sequence.prompt, dtype=np.int64)
            self._prefixes.keep(reading.cache, 0, prompt)
            self._name_pages(reading)

    def _name_pages(self, reading: Reading) -> None:
        """Promise pages that others may share, or share now, once to all that have them."""
        self._promises.name(reading.sequence, reading.cache.block_table()[0].tolist())

    def _new_pages(self, sequence: Sequence, tokens: int) -> int:
        """Return how many pages more a text takes with so many tokens more."""
        return self._pages(sequence.read + tokens) - self._pages(sequence.read)

    def _write(self) -> list[Written]:
        """Write a token of each running text, and those that were guessed and are right."""
        if self._cache is None:
            return []
        running, guesses = [*self._running], self._guesses()
        try:
            logits = self._after_guesses(self._cache, guesses)
        except Exception as error:
            for sequence in running:
                self.cancel(sequence)
            return [Written(sequence, [], error) for sequence in running]
        written = []
        failed = []
        for sequence, guess, own in zip(running, guesses, logits, strict=True):
            try:
                tokens, accepted = sequence.take_verified(guess, own)
                written.append(Written(sequence, tokens, guessed=len(guess), accepted=accepted))
            except Exception as error:
                failed.append(sequence)
                written.append(Written(sequence, [], error))
        if any(guesses):  # the wrong ones are forgotten
            self._cache.truncate([sequence.read for sequence in running])
        for sequence in failed:
            self.cancel(sequence)
        over = [
            sequence
            for sequence in self._running
            if sequence.finish is not None or self._grown(sequence)
        ]
        self._leave(over)
        self._end_or_read_anew(over)
        return written

    def _guesses(self) -> list[list[int]]:
        """Return what may follow each running text, as far as there is room for."""
        if self._draft is None:
            return [[] for _ in self._running]
        counts = [self._most_guessed(sequence) for sequence in self._running]
        texts = [np.array(sequence.tokens, dtype=np.int64) for sequence in self._running]
        found = self._draft.propose(texts, [[] for _ in texts], counts, greedy())
        return [guess.tokens for guess in found]

    def _most_guessed(self, sequence: Sequence) -> int:
        """Return how many tokens may be read beyond a text's last, of all that were promised."""
        count = min(self._limits.draft, sequence.limit - len(sequence.tokens) - 1)
        switch = self._model.switch_length
        if switch is not None and sequence.read <= switch:
            count = min(count, switch - sequence.read - 1)
        return max(count, 0)

    def _after_guesses(self, cache: PagedKVCache, guesses: list[list[int]]) -> NDArray[Any]:
        """Return the logits (B, n, V) after each running text's last token and each guess."""
        ids, counts = padded(
            [
                np.array([sequence.tokens[-1], *guess], dtype=np.int64)
                for sequence, guess in zip(self._running, guesses, strict=True)
            ],
            0,
        )
        new = zip(self._running, counts.tolist(), strict=True)
        self._prefixes.make_room(sum(self._new_pages(*each) for each in new))
        return self._model(ids, counts, cache=cache, num_threads=self._num_threads)

    def _grown(self, sequence: Sequence) -> bool:
        """Return whether a text's last token makes it one of which all is turned otherwise."""
        switch = self._model.switch_length
        return switch is not None and sequence.read <= switch < len(sequence.tokens)

    def _end_or_read_anew(self, sequences: Iterable[Sequence]) -> None:
        """Keep the promises of those whose text goes on, which have no page now; end the others."""
        for sequence in sequences:
            if sequence.finish is None:
                sequence.read = 0
                self._reading.append(Reading(sequence, self._pool.beside(1)))
            else:
                self._promises.end(sequence)

    def _enter(self, sequence: Sequence, cache: PagedKVCache) -> None:
        """Let a text whose prompt is read join the running ones."""
        self._running.append(sequence)
        if self._cache is None:
            self._cache = cache
        else:
            self._cache.join(cache)

    def _leave(self, sequences: list[Sequence]) -> None:
        """Take texts out of the running ones; their pages are free then."""
        if not sequences or self._cache is None:
            return
        gone = {id(sequence) for sequence in sequences}
        keep = [row for row, each in enumerate(self._running) if id(each) not in gone]
        self._running = [self._running[row] for row in keep]
        if keep:
            self._cache.fork(keep)
        else:
            self._cache.free(np.arange(self._cache.batch))
            self._cache = None
