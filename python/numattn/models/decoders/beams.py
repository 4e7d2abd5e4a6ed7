"""Beam search: the likeliest texts of a model, several for each prompt, with their scores.

A text of n new tokens has the score Σ log p(token) / n^length_penalty. At each step those `beams`
unfinished texts of a prompt go on whose sums are largest, and of the finished ones those `beams`
are kept whose scores are largest. This is the search of transformers' generate(num_beams=…), whose
sequences and scores it has, step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from numattn._arguments import bounded_integer
from numattn.cache import Cache

from ..arrays import Float32Array, Int64Array
from ..token_lists import TokenLists, padded, token_lists
from .generate import Stop, stop_tokens
from .generation import (
    LanguageModel,
    check_prompts,
    checked_cache,
    grown_beyond,
    read_parts,
)
from .penalties import finite

EarlyStopping: TypeAlias = 'bool | Literal["never"]'

# The sum of a text that is none, which keeps a place.
NONE = -1e9


class Beam(NamedTuple):
    """A text that a search has found."""

    tokens: list[int]
    """The new ones, with the one that ended it."""
    score: float
    """Σ log p(token) / n^length_penalty over its n tokens."""


def beam_search(
    model: LanguageModel,
    prompts: TokenLists,
    max_new_tokens: int,
    *,
    beams: int = 4,
    length_penalty: float = 1.0,
    early_stopping: EarlyStopping = False,
    num_return: int = 1,
    stop: Stop = None,
    cache: Cache | None = None,
    chunk: int | None = None,
    num_threads: int | None = None,
) -> list[list[Beam]]:
    """Return the likeliest texts after each prompt that a search with beams finds.

    Parameters
    ----------
    model, prompts, max_new_tokens, stop, chunk, num_threads
        As for `generate`.
    beams : int
        How many texts of each prompt are kept at each step.
    length_penalty : float
        Above 0 long texts are preferred, below 0 short ones.
    early_stopping : {False, True, "never"}
        Whether a prompt's search ends once `beams` texts have ended; otherwise when those that go
        on can hardly become better (False), or, for a positive length_penalty, cannot ("never").
    num_return : int
        How many texts of each prompt are returned, at most `beams`.
    cache : KVCache or PagedKVCache, optional
        Empty, of as many rows as there are prompts; afterwards it has `beams` rows for each. Of
        pages the beams share those that they have in common, and a KVCache is copied when they
        change places. A new KVCache by default.

    Returns
    -------
    list of lists of Beam
        For each prompt up to num_return texts, the best first.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `generate`; ValueError also if beams, num_return or a penalty is out of range, or the
        cache holds tokens.

    Examples
    --------
    >>> (found,) = model.beam_search([[1, 5, 7]], 20, num_return=2)  # doctest: +SKIP
    >>> found[0].tokens, found[0].score  # doctest: +SKIP
    ([9, 4, 2], -0.71)
    """
    most = bounded_integer("max_new_tokens", max_new_tokens)
    if most < 1:
        raise ValueError(f"max_new_tokens must be 1 or more, not {most}")
    if chunk is not None and bounded_integer("chunk", chunk) < 1:
        raise ValueError(f"chunk must be 1 or more, not {chunk}")
    width, returned = bounded_integer("beams", beams), bounded_integer("num_return", num_return)
    if width < 1 or not 1 <= returned <= width:
        raise ValueError(f"num_return must be 1 … beams, and is {num_return} of {beams}")
    if early_stopping not in (False, True, "never"):
        raise ValueError(f'early_stopping must be False, True or "never", not {early_stopping!r}')
    rules = Rules(
        width, finite("length_penalty", length_penalty), early_stopping, most,
        np.array(sorted(stop_tokens(stop, model.vocab_size)), dtype=np.int64),
    )  # fmt: skip
    given = token_lists("prompts", prompts, model.vocab_size)
    check_prompts(given)
    ids, lengths = padded(given, 0)
    if not given:
        return []
    cache = checked_cache(model, cache, given, most)
    if cache.lengths.any():
        raise ValueError("the cache of a beam search must be empty")
    logits = read_parts(model, ids, lengths, cache, chunk, num_threads)
    cache.fork(np.repeat(np.arange(len(given)), width))
    logits = np.repeat(logits, width, axis=0)
    searches = [Search(prompt, rules) for prompt in given]
    while True:
        for number, search in enumerate(searches):
            if not search.done:
                search.advance(logits[number * width : (number + 1) * width])
        if all(search.done for search in searches):
            return [search.finished[:returned] for search in searches]
        sources = np.concatenate(
            [number * width + search.sources for number, search in enumerate(searches)]
        )
        if (sources != np.arange(sources.size)).any():
            cache.fork(sources)
        ids, lengths = next_tokens(searches, cache, model.switch_length, width)
        logits = read_parts(model, ids, lengths, cache, chunk, num_threads)


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

    def advance(self, logits: Float32Array) -> None:
        """Take a step, given the logits (beams, V) after each text that goes on."""
        rules = self._rules
        count = len(self.texts[0]) + 1
        sums = (self.sums[:, np.newaxis] + log_softmax(logits)).reshape(-1)
        # So many that `beams` go on whichever of them end.
        best = largest(sums, max(2, 1 + rules.ends.size) * rules.beams)
        sources, tokens = np.divmod(best, logits.shape[1])
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


def next_tokens(
    searches: Sequence[Search], cache: Cache, switch: int | None, width: int
) -> tuple[Int64Array, Int64Array]:
    """Return what is to be read before the next step: ids (B, S), and how many of each row.

    That is a text's last token, or the whole text where it is read anew, beyond what it was turned
    for.
    """
    active = np.repeat([not search.done for search in searches], width).astype(np.int64)
    anew = grown_beyond(switch, cache, active)
    if anew.any():
        cache.truncate(np.where(anew, 0, cache.lengths))
    rows = [(search.prompt, text) for search in searches for text in search.texts]
    return padded(
        [
            np.array([*prompt, *text] if again else text[-1:] * alive, dtype=np.int64)
            for (prompt, text), again, alive in zip(rows, anew, active, strict=True)
        ],
        0,
    )


def log_softmax(logits: Float32Array) -> NDArray[np.float64]:
    """Return log p of the last axis, in float64."""
    x = logits.astype(np.float64)
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
