"""Beam search: the likeliest of several texts that grow side by side.

Of each row `beams` texts are kept. A text scores the sum of its tokens' log-probabilities, one that
has ended that sum over its number of tokens to the power of `length_penalty`. (The form in which
transformers has it, whose texts and scores these are.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .arrays import Float32Array, Int64Array

EarlyStopping: TypeAlias = bool | Literal["never"]
# (texts (N, t), scores (N, V)) → scores, in which what must not come next is −inf.
Rules: TypeAlias = Callable[[Int64Array, Float32Array], Float32Array]
# (last tokens (N,), rows of the step before that they continue (N,)) → logits (N, V).
Step: TypeAlias = Callable[[Int64Array, Int64Array], Float32Array]

UNLIKELY = np.float32(-1e9)  # below all sums of log-probabilities


class Hypothesis(NamedTuple):
    """A text that a search has found."""

    tokens: list[int]
    """After the prompt, the end token included if there is one."""
    score: float
    """Sum of log-probabilities over length to the power of length_penalty."""


@dataclass(frozen=True)
class Search:
    """How a search goes on and when it ends."""

    beams: int
    most: int
    """New tokens of a text, at most."""
    ends: tuple[int, ...]
    """Tokens after which a text ends."""
    length_penalty: float = 1.0
    """Above 0 longer texts are favoured."""
    early_stopping: EarlyStopping = False
    """Whether a row is done with its first `beams` ended texts; "never": when none can be better.
    False: when none of the present length can."""


def log_softmax(logits: Float32Array) -> Float32Array:
    """Return log-probabilities of rows of logits (N, V)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True, dtype=np.float64)
    result: Float32Array = shifted - np.log(total).astype(np.float32)
    return result


def largest(values: Float32Array, count: int) -> NDArray[np.intp]:
    """Return the places of the largest values of each row (B, N), in falling order (B, count)."""
    if count < values.shape[1]:
        among = np.argpartition(-values, count - 1, axis=1)[:, :count]
        among.sort(axis=1)  # the first of equal ones comes first
    else:
        among = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    order = np.argsort(-np.take_along_axis(values, among, axis=1), axis=1, kind="stable")
    return np.take_along_axis(among, order, axis=1)[:, :count]


class Running:
    """What of B rows a search has before a token: texts that go on, and texts that have ended."""

    def __init__(self, batch: int, prompt: Int64Array, search: Search) -> None:
        shape = (batch, search.beams)
        self.search, self.prompt_size = search, prompt.size
        self.texts = np.zeros((*shape, prompt.size + search.most), dtype=np.int64)
        self.texts[:, :, : prompt.size] = prompt
        self.scores = np.zeros(shape, dtype=np.float32)
        self.scores[:, 1:] = UNLIKELY  # all are the same yet
        self.ended = self.texts.copy()
        self.ended_sizes = np.zeros(shape, dtype=np.int64)
        self.ended_scores = np.full(shape, UNLIKELY)
        self.is_ended = np.zeros(shape, dtype=np.bool_)
        self.may_improve = np.ones((batch, 1), dtype=np.bool_)
        self.size = prompt.size
        self.done = False

    def take(self, log_probabilities: Float32Array) -> tuple[Int64Array, Int64Array]:
        """Go on by a token; return the last tokens of texts that go on, and which they continue."""
        search, (batch, beams) = self.search, self.scores.shape
        vocabulary = log_probabilities.shape[1]
        sums = log_probabilities.reshape(batch, beams, -1) + self.scores[:, :, np.newaxis]
        kept = max(2, 1 + len(search.ends)) * beams
        places = largest(sums.reshape(batch, -1), kept)
        scores = np.take_along_axis(sums.reshape(batch, -1), places, axis=1)
        parents, tokens = places // vocabulary, places % vocabulary
        texts = np.take_along_axis(self.texts, parents[:, :, np.newaxis], axis=1)
        texts[:, :, self.size] = tokens
        self.size += 1
        stops = np.isin(tokens, search.ends)
        if self.size == self.prompt_size + search.most:
            stops[:] = True
        self._end(texts, scores, stops)
        scores = scores + stops * UNLIKELY
        going = largest(scores, beams)
        self.texts = np.take_along_axis(texts, going[:, :, np.newaxis], axis=1)
        self.scores = np.take_along_axis(scores, going, axis=1)
        self._judge(bool(stops.all()))
        parents = np.take_along_axis(parents, going, axis=1)
        parents += beams * np.arange(batch)[:, np.newaxis]
        return self.texts[:, :, self.size - 1].reshape(-1), parents.reshape(-1).astype(np.int64)

    def _end(self, texts: Int64Array, scores: Float32Array, stops: NDArray[np.bool_]) -> None:
        """Keep the best of texts that have ended before, and of those that end now."""
        search, beams = self.search, self.search.beams
        stops = stops.copy()
        stops[:, beams:] = False  # the others are there only so that enough texts go on
        new = self.size - self.prompt_size
        scores = scores / np.float32(new**search.length_penalty)
        if search.early_stopping is True:
            scores = scores + self.is_ended.all(axis=1, keepdims=True) * UNLIKELY
        scores = scores + ~self.may_improve * UNLIKELY + ~stops * UNLIKELY
        merged = np.concatenate([self.ended_scores, scores], axis=1).astype(np.float32)
        best = largest(merged, beams)
        sizes = np.full(scores.shape, new)
        self.ended = np.take_along_axis(
            np.concatenate([self.ended, texts], axis=1), best[:, :, np.newaxis], axis=1
        )
        self.ended_scores = np.take_along_axis(merged, best, axis=1)
        self.ended_sizes = np.take_along_axis(
            np.concatenate([self.ended_sizes, sizes], axis=1), best, axis=1
        )
        self.is_ended = np.take_along_axis(
            np.concatenate([self.is_ended, stops], axis=1), best, axis=1
        )

    def _judge(self, all_stop: bool) -> None:
        """Find out which rows may still improve, and whether the search is done."""
        search = self.search
        size = self.size - self.prompt_size
        if search.early_stopping == "never" and search.length_penalty > 0:
            size = search.most
        best = self.scores[:, :1] / np.float32(size**search.length_penalty)
        worst = np.where(self.is_ended, self.ended_scores.min(axis=1, keepdims=True), UNLIKELY)
        self.may_improve = self.may_improve & (best > worst).any(axis=1, keepdims=True)
        full = search.early_stopping is True and bool(self.is_ended.all())
        self.done = all_stop or full or not self.may_improve.any()

    def hypotheses(self) -> list[list[Hypothesis]]:
        """Return the texts of each row, best first."""
        first = self.prompt_size
        return [
            [
                Hypothesis(text[first : first + size].tolist(), float(score))
                for text, size, score in zip(texts, sizes, scores, strict=True)
            ]
            for texts, sizes, scores in zip(
                self.ended, self.ended_sizes, self.ended_scores, strict=True
            )
        ]


def beam_search(
    logits: Float32Array, step: Step, prompt: Int64Array, search: Search, rules: Rules
) -> list[list[Hypothesis]]:
    """Return the best `beams` texts of each row, best first.

    Parameters
    ----------
    logits : float32 array (B, V)
        After the prompt.
    step : callable
        Called with last tokens and with the rows that they continue, both (B · beams,): first of
        the B rows, then of its own last ones.
    prompt : int64 array (P,)
        What all texts begin with.
    search, rules
        How it goes on; and what must not come next.
    """
    batch, beams = logits.shape[0], search.beams
    running = Running(batch, prompt, search)
    logits = np.repeat(logits, beams, axis=0)
    rows = np.repeat(np.arange(batch), beams)
    first = True
    while True:
        texts = running.texts[:, :, : running.size].reshape(batch * beams, -1)
        tokens, parents = running.take(rules(texts, log_softmax(logits)))
        if running.done:
            return running.hypotheses()
        logits = step(tokens, rows[parents] if first else parents)
        first = False


def greedy_search(
    logits: Float32Array, step: Step, prompt: Int64Array, search: Search, rules: Rules
) -> list[list[int]]:
    """Return the likeliest token after token for each row; arguments are those of `beam_search`."""
    batch = logits.shape[0]
    texts = np.repeat(prompt[np.newaxis], batch, axis=0)
    results: list[list[int]] = [[] for _ in range(batch)]
    rows, going = np.arange(batch), np.ones(batch, dtype=np.bool_)
    while True:
        tokens = np.asarray(rules(texts, logits.copy()).argmax(axis=1), dtype=np.int64)
        texts = np.concatenate([texts, tokens[:, np.newaxis]], axis=1)
        for row in np.flatnonzero(going).tolist():
            results[row].append(int(tokens[row]))
            going[row] = results[row][-1] not in search.ends and len(results[row]) < search.most
        if not going.any():
            return results
        logits = step(tokens, rows)
