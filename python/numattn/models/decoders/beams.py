"""Beam search: the likeliest texts of a model, several for each prompt, with their scores.

Which texts go on, and what they score, is ../beams.py's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numattn._arguments import bounded_integer
from numattn.cache import Cache

from ..arrays import Int64Array
from ..beams import Beam, EarlyStopping, Rules, Search, log_softmax
from ..penalties import finite
from ..token_lists import TokenLists, padded, token_lists
from .generate import Stop, stop_tokens
from .generation import (
    LanguageModel,
    check_prompts,
    checked_cache,
    grown_beyond,
    read_parts,
)


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
                search.advance(log_softmax(logits[number * width : (number + 1) * width]))
        if all(search.done for search in searches):
            return [search.finished[:returned] for search in searches]
        sources = np.concatenate(
            [number * width + search.sources for number, search in enumerate(searches)]
        )
        if (sources != np.arange(sources.size)).any():
            cache.fork(sources)
        ids, lengths = next_tokens(searches, cache, model.switch_length, width)
        logits = read_parts(model, ids, lengths, cache, chunk, num_threads)


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
