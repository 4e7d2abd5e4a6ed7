"""Token ids from a decoder, for several prompts at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from numattn.cache import Cache

from ..sampling import Sampler
from ..token_lists import TokenLists, token_list
from .generation import Generation, LanguageModel
from .prefix_cache import PrefixCache
from .speculation import Draft, Speculation

Stop: TypeAlias = "int | Iterable[int] | ArrayLike | None"


def generate(
    model: LanguageModel,
    prompts: TokenLists,
    max_new_tokens: int,
    *,
    sampler: Sampler | None = None,
    stop: Stop = None,
    draft: Draft | None = None,
    cache: Cache | None = None,
    prefixes: PrefixCache | None = None,
    chunk: int | None = None,
    num_threads: int | None = None,
) -> list[list[int]]:
    """Return what a model writes after each prompt.

    Parameters
    ----------
    model : Decoder
        The model.
    prompts : iterable of iterables of int
        Token ids, of any lengths, each of one token or more.
    max_new_tokens : int
        Upper limit for each text.
    sampler : Sampler, optional
        How tokens are chosen; greedily by default.
    stop : int or iterable of int, optional
        A text ends with the first of these tokens, which stays in it.
    draft : NgramDraft, ModelDraft or another Draft, optional
        Who guesses several tokens, which one step of the model verifies. Greedy texts stay as they
        are (but where two tokens are as likely to float32's accuracy), and drawn ones are drawn
        from the same distribution, by other random numbers.
    cache : KVCache or PagedKVCache, optional
        The tokens in it come before the prompts, and afterwards it holds all but the last token of
        each text. A new KVCache by default.
    prefixes : PrefixCache, optional
        In place of a cache: what is kept of texts that begin as the prompts do is not read again,
        and these texts are kept in turn.
    chunk : int, optional
        Read that many tokens of the prompts at once, which bounds the memory; all by default.
    num_threads : int, optional
        Upper limit of threads.

    Returns
    -------
    list of lists of int
        The new tokens of each text.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As the model's call; ValueError also if a prompt is empty, a number is out of range, or a
        text of `max_new_tokens` would have more tokens than the cache may hold. A cache of the
        caller's then holds the tokens that had been read before; fewer of a row that was being read
        anew. ValueError, too, if tokens that only the cache knows would have to be read anew.

    Notes
    -----
    With "longrope" positions, all of a text is turned by other frequencies once it is longer than
    the model's `switch_length`, and is read anew when it grows so long: by its tokens, which of
    what a cache already holds are not known.

    Examples
    --------
    >>> from numattn.models import Llama, Sampler
    >>> model = Llama.from_folder(folder)  # doctest: +SKIP
    >>> model.generate([[1, 5, 7]], 20, sampler=Sampler(top_p=0.9, seed=0))  # doctest: +SKIP
    """
    ends = stop_tokens(stop, model.vocab_size)
    generation = generation_of(
        model, prompts, max_new_tokens, draft,
        sampler=sampler, cache=cache, prefixes=prefixes, chunk=chunk, num_threads=num_threads,
    )  # fmt: skip
    try:
        while generation.active.any():
            for row, new in enumerate(generation.step()):
                place = next((place for place, token in enumerate(new) if token in ends), None)
                if place is not None:
                    generation.end(row, len(new) - 1 - place)
    finally:
        generation.finish()
    return generation.texts


def generation_of(
    model: LanguageModel,
    prompts: TokenLists,
    max_new_tokens: int,
    draft: Draft | None,
    **options: Any,
) -> Generation:
    """Return the texts to be written after prompts, with guesses or without."""
    if draft is None:
        return Generation(model, prompts, max_new_tokens, **options)
    return Speculation(model, prompts, max_new_tokens, draft=draft, **options)


def stop_tokens(stop: Stop, vocab_size: int, name: str = "stop") -> set[int]:
    """Return the tokens at which a text ends, or raise."""
    if stop is None:
        return set()
    if isinstance(stop, str):
        raise TypeError(f"{name} must be token ids, not the text {stop!r}: give its tokens' ids")
    tokens: Any
    if hasattr(stop, "__array__"):  # an array, a tensor, or a number of one
        tokens = np.atleast_1d(np.asarray(stop))
    else:
        tokens = [*stop] if isinstance(stop, Iterable) else [stop]
    return set(token_list(name, tokens, vocab_size).tolist())
