"""What must not come next in a text, as generation_config.json says it.

Each rule puts −inf where a token must not come, in logits or in their log-probabilities; they apply
in the order in which transformers has them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..arrays import Int64Array
from ..beams import log_softmax

NEVER = np.float32(-np.inf)
Scores: TypeAlias = NDArray[np.floating[Any]]
Rule: TypeAlias = Callable[[Int64Array, Scores], Scores]


@dataclass(frozen=True)
class TokenRules:
    """The rules of a folder."""

    ends: tuple[int, ...] = ()
    """Tokens after which a text ends."""
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    bad_words: tuple[tuple[int, ...], ...] = ()
    min_length: int = 0
    """Tokens before which no text ends, those of the prompt included."""
    min_new_tokens: int = 0
    forced_first: int | None = None
    """The token after a prompt of one."""
    forced_last: tuple[int, ...] = ()
    """One of them is the last token of a text that grows to its limit."""
    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()
    renormalize: bool = False
    """Whether what is left is made log-probabilities again: the sum of those of tokens that may
    come next is one then."""

    def of(self, prompt_size: int, most: int, *more: Rule) -> Rule:
        """Return the rules for texts after a prompt, which get at most `most` tokens more.

        `more` are further rules, which apply last.
        """
        limit = prompt_size + most
        no_end = max(self.min_length, prompt_size + self.min_new_tokens)

        def apply(texts: Int64Array, scores: Scores) -> Scores:
            size = texts.shape[1]
            if self.repetition_penalty != 1:
                penalise(texts, scores, self.repetition_penalty)
            if self.no_repeat_ngram_size:
                for text, row in zip(texts, scores, strict=True):
                    row[repeating(text, self.no_repeat_ngram_size)] = NEVER
            for word in self.bad_words:
                forbid_word(texts, scores, word)
            if size < no_end:
                scores[:, list(self.ends)] = NEVER
            if self.forced_first is not None and size == 1:
                force(scores, (self.forced_first,))
            if self.forced_last and size == limit - 1:
                force(scores, self.forced_last)
            if self.suppressed_first and size == prompt_size + self._forced(prompt_size):
                scores[:, list(self.suppressed_first)] = NEVER
            scores[:, list(self.suppressed)] = NEVER
            for rule in more:
                scores = rule(texts, scores)
            return log_softmax(scores) if self.renormalize else scores

        return apply

    def _forced(self, prompt_size: int) -> int:
        """Return how many tokens after a prompt are no choice."""
        return int(self.forced_first is not None and prompt_size == 1)


def penalise(texts: Int64Array, scores: Scores, penalty: float) -> None:
    """Make tokens that a text has less likely, or more so by a penalty below 1."""
    held = np.take_along_axis(scores, texts, axis=1)
    held = np.where(held < 0, held * np.float32(penalty), held / np.float32(penalty))
    np.put_along_axis(scores, texts, held, axis=1)


def repeating(text: Int64Array, size: int) -> Int64Array:
    """Return the tokens that would end a sequence of `size` tokens that a text has already.

    >>> repeating(np.array([1, 2, 3, 1, 2]), 3)
    array([3])
    """
    if text.size < size:
        return text[:0]
    windows = np.lib.stride_tricks.sliding_window_view(text, size)
    last = text[text.size - size + 1 :]
    result: Int64Array = windows[(windows[:, :-1] == last).all(axis=1), -1]
    return result


def forbid_word(texts: Int64Array, scores: Scores, word: tuple[int, ...]) -> None:
    """Forbid the last token of a word after its other ones."""
    before = len(word) - 1
    if texts.shape[1] >= before:
        ending = (texts[:, texts.shape[1] - before :] == np.array(word[:-1])).all(axis=1)
        scores[ending, word[-1]] = NEVER


def force(scores: Scores, tokens: tuple[int, ...]) -> None:
    """Leave those tokens alone, as if they were certain."""
    scores[:] = NEVER
    scores[:, list(tokens)] = 0
