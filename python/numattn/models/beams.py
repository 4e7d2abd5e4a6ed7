"""The core of beam search: which texts of a prompt go on, which have ended, and what they score.

A text of n new tokens has the score Σ log p(token) / n^length_penalty. At each step those `beams`
unfinished texts of a prompt go on whose sums are largest, and of the finished ones those `beams`
are kept whose scores are largest. This is the search of transformers' generate(num_beams=…), whose
sequences and scores it has, step by step.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .arrays import Int64Array

EarlyStopping: TypeAlias = 'bool | Literal["never"]'

# The sum of a text that is none, which keeps a place.
NONE = -1e9
UNLIKELY = "logits must not be NaN, +inf, or -inf throughout a row"
"""What to say where no token is the likeliest."""


class Beam(NamedTuple):
    """A text that a search has found."""

    tokens: list[int]
    """The new ones, with the one that ended it."""
    score: float
    """Σ log p(token) / n^length_penalty over its n tokens."""


class Rules(NamedTuple):
    """What is the same for all prompts of a search."""

    beams: int
    length_penalty: float
    early_stopping: EarlyStopping
    most: int
    ends: Int64Array


class Search:
    """The search after one prompt.

    Attributes
    ----------
    prompt : int array (n,)
        Its tokens.
    texts : list of lists of int
        Those that go on, the likeliest first.
    sums : array (beams,)
        Their Σ log p.
    sources : int array (beams,)
        Which of the texts before the last step each of them continues.
    finished : list of Beam
        The best that have ended, the best first.
    done : bool
        Whether no more is searched.
    """

    def __init__(self, prompt: Int64Array, rules: Rules) -> None:
        self.prompt, self._rules = prompt, rules
        self.texts: list[list[int]] = [[] for _ in range(rules.beams)]
        # All are the same as yet: one counts.
        self.sums = np.full(rules.beams, NONE)
        self.sums[0] = 0
        self.sources = np.arange(rules.beams)
        self.finished: list[Beam] = []
        self.done = False

    def advance(self, logs: NDArray[np.floating[Any]]) -> None:
        """Take a step, given log p (beams, V) of each token after each text that goes on.

        Raises
        ------
        ValueError
            If one is NaN, as log p of logits are among which none is the largest.
        """
        rules = self._rules
        count = len(self.texts[0]) + 1
        sums = (self.sums[:, np.newaxis] + logs).reshape(-1)
        if np.isnan(sums).any():
            raise ValueError(UNLIKELY)
        # So many that `beams` go on whichever of them end.
        best = largest(sums, max(2, 1 + rules.ends.size) * rules.beams)
        sources, tokens = np.divmod(best, logs.shape[1])
        ended = np.isin(tokens, rules.ends) | (count == rules.most)
        for place in np.flatnonzero(ended[: rules.beams]).tolist():
            text = [*self.texts[sources[place]], int(tokens[place])]
            score = float(sums[best[place]]) / count**rules.length_penalty
            if score > NONE / 2:
                self.finished.append(Beam(text, score))
        self.finished.sort(key=lambda beam: -beam.score)
        del self.finished[rules.beams :]
        going = np.argsort(ended, kind="stable")[: rules.beams]
        self.sums = sums[best[going]] + NONE * ended[going]
        self.texts = [
            [*self.texts[source], int(token)]
            for source, token in zip(sources[going], tokens[going], strict=True)
        ]
        self.sources = sources[going]
        if going.size < rules.beams:  # of fewer tokens than that
            self._fill(rules.beams - going.size)
        self.done = count == rules.most or self._hopeless(count)

    def _fill(self, missing: int) -> None:
        """Let the last of the texts keep the places of those that are missing."""
        self.texts += [self.texts[-1]] * missing
        self.sums = np.concatenate([self.sums, np.full(missing, NONE)])
        self.sources = np.concatenate([self.sources, np.repeat(self.sources[-1:], missing)])

    def _hopeless(self, count: int) -> bool:
        """Return whether no text that goes on can be expected to be among the best."""
        rules = self._rules
        if len(self.finished) < rules.beams:
            return False
        if rules.early_stopping is True:
            return True
        long = rules.early_stopping == "never" and rules.length_penalty > 0
        length = rules.most if long else count
        return bool(self.sums[0] / length**rules.length_penalty <= self.finished[-1].score)


def log_softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return log p of the last axis, in float64."""
    x = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # of infinities; what comes of them is NaN
        x -= x.max(axis=-1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return x


def largest(values: NDArray[np.float64], count: int) -> Int64Array:
    """Return where the largest values stand, the largest first; of equal ones the first."""
    places = np.arange(values.size)
    if count < values.size:
        threshold = np.partition(values, values.size - count)[values.size - count]
        places = np.flatnonzero(values >= threshold)
    order = np.argsort(-values[places], kind="stable")[:count]
    return np.asarray(places[order], dtype=np.int64)
