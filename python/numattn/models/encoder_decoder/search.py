"""The search for the texts of sources: the likeliest token after token, or with beams."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from ..arrays import Float32Array, Int64Array
from ..beams import UNLIKELY, Beam, Rules, Search, log_softmax
from .token_rules import Rule, Scores

# (last tokens (N,), rows of the step before that they continue (N,)) → logits (N, V).
Step: TypeAlias = Callable[[Int64Array, Int64Array], Float32Array]
# Scores (N, V) → a token of each row (N,).
Choose: TypeAlias = Callable[[Scores], Int64Array]


def beam_search(
    logits: Float32Array, step: Step, prompt: Int64Array, rules: Rules, allow: Rule
) -> list[list[Beam]]:
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
    rules, allow
        How it goes on; and what must not come next.
    """
    batch, width = logits.shape[0], rules.beams
    searches = [Search(prompt, rules) for _ in range(batch)]
    logits = np.repeat(logits, width, axis=0)
    rows = np.repeat(np.arange(batch), width)
    texts = np.repeat(prompt[np.newaxis], batch * width, axis=0)
    while True:
        logs = allow(texts, log_softmax(logits))
        for number, search in enumerate(searches):
            if not search.done:
                search.advance(logs[number * width : (number + 1) * width])
        if all(search.done for search in searches):
            return [search.finished or [Beam(search.texts[0], -np.inf)] for search in searches]
        sources = np.concatenate(
            [number * width + search.sources for number, search in enumerate(searches)]
        )
        # Of a row that is done, the last token once more.
        tokens = np.array([text[-1] for search in searches for text in search.texts])
        texts = np.concatenate([texts[sources], tokens[:, np.newaxis]], axis=1)
        logits = step(tokens, rows[sources])
        rows = np.arange(batch * width)


def greedy_search(
    logits: Float32Array, step: Step, prompt: Int64Array, rules: Rules, allow: Rule, choose: Choose
) -> list[list[int]]:
    """Return for each row token after token, as `choose` does; arguments as for `beam_search`."""
    batch = logits.shape[0]
    texts = np.repeat(prompt[np.newaxis], batch, axis=0)
    results: list[list[int]] = [[] for _ in range(batch)]
    rows, going = np.arange(batch), np.ones(batch, dtype=np.bool_)
    while True:
        scores = allow(texts, logits.copy())
        if np.isnan(scores.max(axis=1)[going]).any():
            raise ValueError(UNLIKELY)
        tokens = choose(scores)
        texts = np.concatenate([texts, tokens[:, np.newaxis]], axis=1)
        for row in np.flatnonzero(going).tolist():
            results[row].append(int(tokens[row]))
            going[row] = results[row][-1] not in rules.ends and len(results[row]) < rules.most
        if not going.any():
            return results
        logits = step(tokens, rows)


def likeliest(scores: Scores) -> Int64Array:
    """Return the likeliest token of each row."""
    return np.asarray(scores.argmax(axis=1), dtype=np.int64)
