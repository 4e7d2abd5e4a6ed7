"""Text from a decoder, token by token, for several prompts at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn._arguments import bounded_integer
from numattn.cache import Cache, KVCache

from ..arrays import Float32Array, Int64Array
from ..token_lists import TokenLists, padded, token_list, token_lists
from .sampling import Sampler, greedy

Stop: TypeAlias = "int | Iterable[int] | ArrayLike | None"

# For how many new tokens of each text a cache has room from the start. It grows when it is full,
# and most texts end long before their limit.
ROOM = 1024


class LanguageModel(Protocol):
    """What a model must have: `Decoder` has it."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def switch_length(self) -> int | None: ...

    def new_cache(self, batch: int, *, capacity: int = 0) -> KVCache: ...

    def __call__(
        self,
        token_ids: ArrayLike,
        lengths: ArrayLike | None = None,
        *,
        cache: Cache | None = None,
        only_last: bool = False,
        text_lengths: ArrayLike | None = None,
        num_threads: int | None = None,
    ) -> Float32Array: ...


def generate(
    model: LanguageModel,
    prompts: TokenLists,
    max_new_tokens: int,
    *,
    sampler: Sampler | None = None,
    stop: Stop = None,
    cache: Cache | None = None,
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
    cache : KVCache or PagedKVCache, optional
        The tokens in it come before the prompts, and afterwards it holds all but the last token of
        each text. A new KVCache by default.
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
    most = bounded_integer("max_new_tokens", max_new_tokens)
    if most < 0:
        raise ValueError(f"max_new_tokens must be 0 or more, not {most}")
    if chunk is not None and bounded_integer("chunk", chunk) < 1:
        raise ValueError(f"chunk must be 1 or more, not {chunk}")
    ends = stop_tokens(stop, model.vocab_size)
    given = token_lists("prompts", prompts, model.vocab_size)
    for number, prompt in enumerate(given):
        if prompt.size == 0:
            raise ValueError(f"prompt {number} is empty")
    ids, lengths = padded(given, 0)
    texts: list[list[int]] = [[] for _ in given]
    if not texts or most == 0:
        return texts
    if cache is None:
        cache = model.new_cache(len(texts), capacity=ids.shape[1] + min(most - 1, ROOM))
    else:
        check_kind(cache)
        if cache.batch != len(texts):
            raise ValueError(
                f"the cache has {cache.batch} rows, and there are {len(texts)} prompts"
            )
    check_length(cache, lengths, most)
    check_switch(cache, lengths, most, model.switch_length)
    choose = greedy() if sampler is None else sampler

    active = np.ones(len(texts), dtype=np.int64)
    for count in range(1, most + 1):
        logits = read_parts(model, ids, lengths, cache, chunk, num_threads)
        tokens = choose(logits)
        for row in np.flatnonzero(active):
            texts[row].append(int(tokens[row]))
            active[row] = int(tokens[row]) not in ends
        if count == most or not active.any():
            return texts
        # A row that has ended takes part with no token.
        ids, lengths = tokens[:, np.newaxis], active
        anew = grown_beyond(model.switch_length, cache, active)
        if anew.any():
            cache.truncate(np.where(anew, 0, cache.lengths))
            parts = zip(given, texts, anew, active, strict=True)
            ids, lengths = padded(
                [
                    np.array([*prompt, *text] if again else text[-1:] * alive, dtype=np.int64)
                    for prompt, text, again, alive in parts
                ],
                0,
            )
    return texts


def check_kind(cache: object) -> None:
    """Raise TypeError for what is no cache."""
    if not isinstance(cache, Cache):
        raise TypeError(f"cache must be a KVCache or PagedKVCache, not {type(cache).__name__}")


def check_length(cache: Cache, prompts: Int64Array, most: int) -> None:
    """Raise ValueError if a cache cannot hold the prompts' tokens, (B,), and `most` new ones.

    The last token of a text is not read.
    """
    if cache.max_length is None:
        return
    held = cache.lengths + prompts
    row = int(held.argmax())
    longest = int(held[row]) + most - 1
    if longest > cache.max_length:
        raise ValueError(
            f"text {row} could have {longest} tokens to be read, prompt and new ones, and the "
            f"cache holds {cache.max_length} (max_length)"
        )


def stop_tokens(stop: Stop, vocab_size: int) -> set[int]:
    """Return the tokens at which a text ends, or raise."""
    if stop is None:
        return set()
    if isinstance(stop, str):
        raise TypeError(f"stop must be token ids, not the text {stop!r}: give its tokens' ids")
    tokens: Any
    if hasattr(stop, "__array__"):  # an array, a tensor, or a number of one
        tokens = np.atleast_1d(np.asarray(stop))
    else:
        tokens = [*stop] if isinstance(stop, Iterable) else [stop]
    return set(token_list("stop", tokens, vocab_size).tolist())


def check_switch(cache: Cache, prompts: Int64Array, most: int, switch: int | None) -> None:
    """Raise ValueError if a text would have to be read anew whose beginning is known by keys only.

    Those of the tokens that a cache has are turned for a text of at most `switch` tokens.
    """
    if switch is None:
        return
    held = cache.lengths
    rows = np.flatnonzero((0 < held) & (held <= switch) & (held + prompts > switch - most + 1))
    if rows.size:
        row = int(rows[0])
        raise ValueError(
            f"text {row} could have {int(held[row] + prompts[row]) + most - 1} tokens to be read, "
            f"and the {held[row]} in the cache are turned for a text of at most {switch}: give "
            "them as part of the prompt, with an empty cache"
        )


def grown_beyond(switch: int | None, cache: Cache, new: Int64Array) -> NDArray[np.bool_]:
    """Return which rows (B,) grow by their new tokens beyond what they are turned for."""
    if switch is None:
        return np.zeros(new.shape, dtype=bool)
    lengths = cache.lengths
    return np.asarray((lengths <= switch) & (lengths + new > switch))


def read_parts(
    model: LanguageModel,
    ids: Int64Array,
    lengths: Int64Array,
    cache: Cache,
    chunk: int | None,
    num_threads: int | None,
) -> Float32Array:
    """Return the logits after the last of lengths[b] tokens of each row, (B, V), read in parts.

    The cache then has their keys and values. A row without a token has numbers without meaning.
    """
    size = ids.shape[1]
    chunk = size if chunk is None else min(chunk, size)
    wholes = None if chunk == size else cache.lengths + lengths
    result: Float32Array | None = None
    for start in range(0, size, chunk):
        part = ids[:, start : start + chunk]
        counts = np.clip(lengths - start, 0, part.shape[1])
        logits = model(
            part, counts, cache=cache, only_last=True, text_lengths=wholes, num_threads=num_threads
        )
        result = logits if result is None else np.where(counts[:, np.newaxis] > 0, logits, result)
    assert result is not None  # ids has a column
    return result
