"""Speculative decoding: guesses of the next tokens, all verified by one step of the model.

A guess that is drawn from q is kept with probability min(1, p / q), p being what the model gives
it. The first that is not kept is replaced by a draw from max(p − q, 0), made to add up to 1, and
those after it are forgotten. So tokens are distributed as without guesses, whatever these are; and
without chance, at temperature 0, they are the same. (Leviathan, Kalman and Matias, "Fast Inference
from Transformers via Speculative Decoding", 2023; Chen et al., "Accelerating Large Language Model
Decoding with Speculative Sampling", 2023.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from numattn.cache import Cache

from ..arrays import Float32Array, Int64Array
from ..sampling import Sampler, drawn
from ..token_lists import TokenLists, padded
from .generation import Generation, LanguageModel, grown_beyond
from .prefix_cache import PrefixCache


class Guess(NamedTuple):
    """What may come next in one text."""

    tokens: list[int]
    probabilities: NDArray[np.float64] | None = None
    """(n, V): from what each was drawn; None if there was no choice."""


class Draft(Protocol):
    """Who guesses."""

    @property
    def most(self) -> int:
        """How many tokens are guessed at once, at most."""

    def begin(self, model: LanguageModel, batch: int) -> None:
        """Forget all texts: guesses are for so many texts of a model now, or raise ValueError."""

    def propose(
        self,
        prompts: Sequence[Int64Array],
        texts: Sequence[Sequence[int]],
        counts: Sequence[int],
        sampler: Sampler,
    ) -> list[Guess]:
        """Return a guess of at most counts[b] tokens for each text, drawn as the sampler draws."""


class Speculation(Generation):
    """The texts that a model writes after prompts, several tokens at a step where guesses are good.

    Parameters
    ----------
    draft : Draft
        Who guesses. It serves one generation at a time.
    model, prompts, max_new_tokens, sampler, cache, chunk, num_threads
        As for `Generation`.

    Attributes
    ----------
    proposed, accepted : int
        How many tokens have been guessed, and how many of these were kept.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompts: TokenLists,
        max_new_tokens: int,
        *,
        draft: Draft,
        sampler: Sampler | None = None,
        cache: Cache | None = None,
        chunk: int | None = None,
        num_threads: int | None = None,
        prefixes: PrefixCache | None = None,
    ) -> None:
        self._draft = draft
        self.proposed = self.accepted = 0
        super().__init__(
            model, prompts, max_new_tokens,
            sampler=sampler, cache=cache, chunk=chunk, num_threads=num_threads, slack=draft.most,
            prefixes=prefixes,
        )  # fmt: skip
        try:
            draft.begin(model, len(self.texts))
        except BaseException:
            self.finish()
            raise

    def step(self) -> list[list[int]]:
        """Read what is new and what is guessed, and add to each text the tokens that are kept."""
        if (
            not any(self.texts)
            or grown_beyond(self._model.switch_length, self._cache, self.active).any()
        ):
            return super().step()
        guesses = self._draft.propose(self.prompts, self.texts, self._counts(), self._sampler)
        parts = zip(self.texts, guesses, self.active, strict=True)
        ids, lengths = padded(
            [
                np.array([text[-1], *guess.tokens] if alive else [], dtype=np.int64)
                for text, guess, alive in parts
            ],
            0,
        )
        before = self._cache.lengths
        try:
            logits = self._model(ids, lengths, cache=self._cache, num_threads=self._threads)
            new = [
                self._verified(row, guesses[row], logits[row]) if alive else []
                for row, alive in enumerate(self.active.tolist())
            ]
        except BaseException:
            self._cache.truncate(before)
            raise
        added = np.array([len(tokens) for tokens in new], dtype=np.int64)
        self._cache.truncate(before + added)  # the last token of each is not read yet
        self.proposed += sum(len(guesses[row].tokens) for row in np.flatnonzero(added))
        self.accepted += int(np.maximum(added - 1, 0).sum())
        self._add(new)
        return new

    def _counts(self) -> list[int]:
        """Return how many tokens more than the last of each text may be read at once."""
        switch = self._model.switch_length
        counts = []
        for text, held, alive in zip(self.texts, self._cache.lengths, self.active, strict=True):
            count = min(self._draft.most, self._most - 1 - len(text)) if alive else 0
            if switch is not None and held <= switch:
                count = min(count, switch - int(held) - 1)
            counts.append(count)
        return counts

    def _verified(self, row: int, guess: Guess, logits: Float32Array) -> list[int]:
        """Return the tokens of a guess that are kept, and one more, given logits (n + 1, V)."""
        sampler, prompt = self._sampler, self.prompts[row]
        text = list(self.texts[row])
        begin = len(text)
        for place, token in enumerate(guess.tokens):
            wanted = sampler.probabilities(logits[place], prompt, text)
            given = None if guess.probabilities is None else guess.probabilities[place]
            likely = 1.0 if given is None else given[token]
            if sampler.uniform(row) * likely >= wanted[token]:
                rest = missed(wanted, given, token)
                return [*text[begin:], drawn(rest, sampler.uniform(row))]
            text.append(token)
        wanted = sampler.probabilities(logits[len(guess.tokens)], prompt, text)
        return [*text[begin:], drawn(wanted, sampler.uniform(row))]


def missed(
    wanted: NDArray[np.float64], given: NDArray[np.float64] | None, token: int
) -> NDArray[np.float64]:
    """Return how the token in the place of one that was not kept is distributed.

    That one was drawn from `given`, or without a choice.
    """
    if given is None:
        rest = wanted.copy()
        rest[token] = 0
    else:
        rest = np.maximum(wanted - given, 0)
    total = rest.sum()
    return rest / total if total > 0 else wanted  # which is `given` but for rounding
