"""Guesses of what comes next: by what followed the same words before, or by a smaller model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from numattn._arguments import bounded_integer
from numattn.cache import KVCache

from ..arrays import Int64Array
from ..sampling import Sampler, drawn
from ..token_lists import padded
from .generation import LanguageModel
from .speculation import Guess


class NgramDraft:
    """Guesses that what followed the last tokens when they were last written follows again.

    Good where a text repeats its prompt: code, summaries, questions about a document.

    Parameters
    ----------
    tokens : int
        How many are guessed at once, at most.
    longest : int
        How many of the last tokens are looked for; fewer where these are found nowhere.
    branches : int
        With more than 1 a guess is a tree: what followed at so many earlier places, the last ones,
        which shares of `tokens` go to. For texts in which the same words go on in several ways.

    Raises
    ------
    ValueError
        One of them is below 1.

    Notes
    -----
    Saxena, "Prompt Lookup Decoding" (2023).

    Examples
    --------
    >>> from numattn.models.sampling import greedy
    >>> draft = NgramDraft(tokens=2)
    >>> draft.propose([np.array([5, 6, 7, 8])], [[9, 5, 6]], [2], greedy())
    [Guess(tokens=[7, 8], probabilities=None, parents=None)]
    """

    def __init__(self, tokens: int = 8, longest: int = 3, branches: int = 1) -> None:
        self.most = at_least_one("tokens", tokens)
        self.longest = at_least_one("longest", longest)
        self.branches = at_least_one("branches", branches)

    def begin(self, model: LanguageModel, batch: int) -> None:
        """Do nothing: guesses follow from the texts alone."""

    def propose(
        self,
        prompts: Sequence[Int64Array],
        texts: Sequence[Sequence[int]],
        counts: Sequence[int],
        sampler: Sampler,
    ) -> list[Guess]:
        """Return a guess of at most counts[b] tokens for each text; the sampler has no part."""
        wholes = (
            np.concatenate([prompt, np.asarray(text, dtype=np.int64)])
            for prompt, text in zip(prompts, texts, strict=True)
        )
        return [self._guess(*each) for each in zip(wholes, counts, strict=True)]

    def _guess(self, whole: Int64Array, count: int) -> Guess:
        """Return up to `count` tokens that followed earlier places like the end of a text."""
        ends = self._ends(whole)[: min(self.branches, count)] if count > 0 else []
        tree = Tree()
        for number, end in enumerate(ends):
            # What earlier branches have left of the tokens, to those that are to come alike.
            share = -(-(count - len(tree.tokens)) // (len(ends) - number))
            tree.add(whole[end : end + count].tolist(), share)
        if len(ends) < 2:
            return Guess(tree.tokens)
        return Guess(tree.tokens, None, tree.parents)

    def _ends(self, whole: Int64Array) -> list[int]:
        """Return where places end that are like the end of a text, the last first."""
        for size in range(min(self.longest, whole.size - 1), 0, -1):
            starts = np.arange(whole.size - size)
            alike = np.ones(starts.size, dtype=np.bool_)
            for place in range(size):
                alike &= whole[starts + place] == whole[whole.size - size + place]
            found = np.flatnonzero(alike)
            if found.size:
                return [int(place) + size for place in found[::-1]]
        return []


class Tree:
    """Guesses that branch where they differ.

    Examples
    --------
    >>> tree = Tree()
    >>> tree.add([5, 6, 7], 2)
    >>> tree.add([5, 8], 2)
    >>> tree.tokens, tree.parents
    ([5, 6, 8], [-1, 0, 0])
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self._places: dict[tuple[int, int], int] = {}  # of a token behind another

    def add(self, tokens: Sequence[int], most: int) -> None:
        """Add a branch, but at most so many tokens that are not there yet."""
        node = -1
        for token in tokens:
            found = self._places.get((node, token))
            if found is None:
                if not most:
                    return
                most -= 1
                found = len(self.tokens)
                self._places[node, token] = found
                self.tokens.append(token)
                self.parents.append(node)
            node = found


class ModelDraft:
    """Guesses by a smaller model with the same tokens.

    Parameters
    ----------
    model : Decoder
        The smaller model.
    tokens : int
        How many are guessed at once, at most.

    Raises
    ------
    ValueError
        If tokens is below 1; by `begin`, if the vocabularies differ.

    Examples
    --------
    >>> draft = ModelDraft(Llama.from_folder(small))  # doctest: +SKIP
    >>> large.generate([[1, 5, 7]], 100, draft=draft)  # doctest: +SKIP
    """

    def __init__(self, model: LanguageModel, tokens: int = 4) -> None:
        self._model = model
        self.most = at_least_one("tokens", tokens)
        self._cache: KVCache | None = None
        self._read: list[list[int]] = []  # the tokens of each row of the cache
        self._sure: list[int] = []  # so many of them are the text's

    def begin(self, model: LanguageModel, batch: int) -> None:
        """Take an empty cache for that many texts.

        Raises
        ------
        ValueError
            If the model that verifies has another vocabulary.
        """
        if model.vocab_size != self._model.vocab_size:
            raise ValueError(
                f"the draft's model has {self._model.vocab_size} tokens, and the model that "
                f"verifies {model.vocab_size}: they must be the same"
            )
        self._cache = self._model.new_cache(max(batch, 1), slack=self.most)
        self._read = [[] for _ in range(batch)]
        self._sure = [0] * batch

    def propose(
        self,
        prompts: Sequence[Int64Array],
        texts: Sequence[Sequence[int]],
        counts: Sequence[int],
        sampler: Sampler,
    ) -> list[Guess]:
        """Return a guess of at most counts[b] tokens for each text, drawn as the sampler draws."""
        guesses = [Guess([], None) for _ in texts]
        if self._cache is None:
            raise ValueError("a draft must begin before it guesses")
        wanted = self._fitting(prompts, texts, counts)
        if not any(wanted):
            return guesses
        probabilities: list[list[NDArray[np.float64]]] = [[] for _ in texts]
        pending = self._pending(self._cache, prompts, texts, wanted)
        for step in range(max(wanted)):
            ids, lengths = padded([np.array(each, dtype=np.int64) for each in pending], 0)
            logits = self._model(ids, lengths, cache=self._cache, only_last=True)
            for row, new in enumerate(pending):
                self._read[row] += new
            pending = [[] for _ in texts]
            for row, count in enumerate(wanted):
                if step < count:
                    tokens = guesses[row].tokens
                    q = sampler.probabilities(logits[row], prompts[row], [*texts[row], *tokens])
                    tokens.append(drawn(q, sampler.uniform(row)))
                    probabilities[row].append(q)
                    pending[row] = tokens[-1:] if step + 1 < count else []
        return [
            Guess(guess.tokens, np.array(own) if own else None)
            for guess, own in zip(guesses, probabilities, strict=True)
        ]

    def _fitting(
        self,
        prompts: Sequence[Int64Array],
        texts: Sequence[Sequence[int]],
        counts: Sequence[int],
    ) -> list[int]:
        """Return how many tokens each guess may have: the last of them is not read."""
        limit = None if self._cache is None else self._cache.max_length
        if limit is None:
            return [*counts]
        lengths = (len(p) + len(t) for p, t in zip(prompts, texts, strict=True))
        return [
            max(0, min(count, limit + 1 - length))
            for count, length in zip(counts, lengths, strict=True)
        ]

    def _pending(
        self,
        cache: KVCache,
        prompts: Sequence[Int64Array],
        texts: Sequence[Sequence[int]],
        wanted: Sequence[int],
    ) -> list[list[int]]:
        """Take back guesses that were wrong, and return what is to be read of each text first."""
        lengths = cache.lengths
        pending: list[list[int]] = []
        for row, count in enumerate(wanted):
            if not count:
                pending.append([])
                continue
            whole, read = [*prompts[row].tolist(), *texts[row]], self._read[row]
            same, most = self._sure[row], min(len(read), len(whole) - 1)
            while same < most and read[same] == whole[same]:
                same += 1
            del read[same:]
            lengths[row], self._sure[row] = same, same
            pending.append(whole[same:])
        cache.truncate(lengths)
        return pending


def at_least_one(name: str, value: int) -> int:
    """Return a whole number, or raise ValueError if it is below 1."""
    number = bounded_integer(name, value)
    if number < 1:
        raise ValueError(f"{name} must be 1 or more, not {value}")
    return number
