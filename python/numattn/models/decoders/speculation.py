"""Speculative decoding: guesses of the next tokens, all verified by one step of the model.

A guess that is drawn from q is kept with probability min(1, p / q), p being what the model gives
it. The first that is not kept is replaced by a draw from max(p − q, 0), made to add up to 1, and
those after it are forgotten. Of a tree of guesses, tokens are drawn from p one after the other, for
as long as the one that is drawn was guessed there. So tokens are distributed as without guesses,
whatever these are; and without chance, at temperature 0, they are the same. (Leviathan, Kalman and
Matias, "Fast Inference from Transformers via Speculative Decoding", 2023; Chen et al.,
"Accelerating Large Language Model Decoding with Speculative Sampling", 2023; Miao et al.,
"SpecInfer", 2023.)
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
    """(n, V): from what each was drawn; None if there was no choice, or they branch."""
    parents: list[int] | None = None
    """Which of the guesses each one follows, −1 for the text itself; None for a chain.

    A tree may have several guesses for one place: the text goes on along whichever it chooses."""


class Verified(NamedTuple):
    """What a step has found of a guess."""

    tokens: list[int]
    """Of the text, new."""
    path: list[int]
    """Which of the tokens that were read are the text's: its last one, and guesses."""


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
        if not self._model.verifies_trees:
            guesses = [chain_of(guess) for guess in guesses]
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
            logits = self._model(
                ids, lengths, cache=self._cache, parents=parents_of(guesses, ids.shape[1]),
                num_threads=self._threads,
            )  # fmt: skip
            verified = [
                self._verified(row, guesses[row], logits[row]) if alive else Verified([], [])
                for row, alive in enumerate(self.active.tolist())
            ]
            # The last token of each is not read yet.
            self._cache.keep_only(before, [each.path for each in verified])
        except BaseException:
            self._cache.truncate(before)
            raise
        new = [each.tokens for each in verified]
        added = np.array([len(tokens) for tokens in new], dtype=np.int64)
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

    def _verified(self, row: int, guess: Guess, logits: Float32Array) -> Verified:
        """Return the tokens of a guess that are kept, and one more, given logits (n + 1, V)."""
        if guess.parents is not None:
            return self._chosen(row, guess.tokens, guess.parents, logits)
        tokens = self._kept(row, guess, logits)
        return Verified(tokens, [*range(len(tokens))])

    def _chosen(
        self, row: int, guesses: list[int], parents: list[int], logits: Float32Array
    ) -> Verified:
        """Draw token after token for as long as the one before has such a guess behind it.

        Whatever is guessed, each is drawn as it would be without.
        """
        sampler, prompt = self._sampler, self.prompts[row]
        text, begin = list(self.texts[row]), len(self.texts[row])
        behind = {
            (parent, token): place
            for place, (parent, token) in reversed([*enumerate(zip(parents, guesses, strict=True))])
        }
        node, path = -1, [0]
        while True:
            wanted = sampler.probabilities(logits[node + 1], prompt, text)
            text.append(drawn(wanted, sampler.uniform(row)))
            found = behind.get((node, text[-1]))
            if found is None:
                return Verified(text[begin:], path)
            node = found
            path.append(node + 1)

    def _kept(self, row: int, guess: Guess, logits: Float32Array) -> list[int]:
        """Return the tokens of a chain that are kept by the rejection rule, and one more."""
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


def parents_of(guesses: Sequence[Guess], size: int) -> Int64Array | None:
    """Return which of `size` tokens of a row each one follows, the first being the text's last.

    None where all are chains.

    Raises
    ------
    ValueError
        A guess has not as many parents as tokens.
    """
    if all(guess.parents is None for guess in guesses):
        return None
    parents = np.tile(np.arange(-1, size - 1), (len(guesses), 1))
    for own, guess in zip(parents, guesses, strict=True):
        if guess.parents is not None:
            if len(guess.parents) != len(guess.tokens):
                raise ValueError(
                    f"a guess of {len(guess.tokens)} tokens has {len(guess.parents)} parents"
                )
            own[1 : len(guess.parents) + 1] = np.array(guess.parents, dtype=np.int64) + 1
    return parents


def chain_of(guess: Guess) -> Guess:
    """Return a guess without its branches: from each token on the first that follows it."""
    if guess.parents is None:
        return guess
    node, tokens = -1, []
    while node in guess.parents:
        node = guess.parents.index(node)
        tokens.append(guess.tokens[node])
    return Guess(tokens)
