"""Text from a decoder, token by token, for several prompts at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from numattn._arguments import bounded_integer
from numattn.cache import Cache, KVCache

from ..arrays import Float32Array, Int64Array
from .sampling import Sampler, greedy


class LanguageModel(Protocol):
    """What a model must have: `Decoder` has it."""

    @property
    def vocab_size(self) -> int: ...

    def new_cache(self, batch: int, *, capacity: int = 0) -> KVCache: ...

    def __call__(
        self,
        token_ids: ArrayLike,
        lengths: ArrayLike | None = None,
        *,
        cache: Cache | None = None,
        only_last: bool = False,
        num_threads: int | None = None,
    ) -> Float32Array: ...


def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    sampler: Sampler | None = None,
    stop: int | Sequence[int] = (),
    cache: Cache | None = None,
    chunk: int | None = None,
    num_threads: int | None = None,
) -> list[list[int]]:
    """Return what a model writes after each prompt.

    Parameters
    ----------
    model : Decoder
        The model.
    prompts : sequence of sequences of int
        Token ids, of any lengths, each of one token or more.
    max_new_tokens : int
        Upper limit for each text.
    sampler : Sampler, optional
        How tokens are chosen; greedily by default.
    stop : int or sequence of int
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
        caller's then holds the tokens that had been read before.

    Examples
    --------
    >>> from numattn.models import Llama, Sampler
    >>> model = Llama.from_folder(folder)  # doctest: +SKIP
    >>> model.generate([[1, 5, 7]], 20, sampler=Sampler(top_p=0.9, seed=0))  # doctest: +SKIP
    """
    if bounded_integer("max_new_tokens", max_new_tokens) < 0:
        raise ValueError(f"max_new_tokens must be 0 or more, not {max_new_tokens}")
    if chunk is not None and bounded_integer("chunk", chunk) < 1:
        raise ValueError(f"chunk must be 1 or more, not {chunk}")
    ids, lengths = padded(prompts, model.vocab_size)
    texts: list[list[int]] = [[] for _ in prompts]
    if not texts or max_new_tokens == 0:
        return texts
    if cache is None:
        cache = model.new_cache(len(texts), capacity=ids.shape[1] + max_new_tokens - 1)
    else:
        check_kind(cache)
        if cache.batch != len(texts):
            raise ValueError(
                f"the cache has {cache.batch} rows, and there are {len(texts)} prompts"
            )
    # The last token of a text is not read.
    check_length(cache, lengths + max_new_tokens - 1)
    choose = greedy() if sampler is None else sampler
    ends = {stop} if isinstance(stop, int) else set(stop)

    logits = read_prompts(model, ids, lengths, cache, chunk or ids.shape[1], num_threads)
    active = np.ones(len(texts), dtype=np.int64)
    for count in range(1, max_new_tokens + 1):
        tokens = choose(logits)
        for row in np.flatnonzero(active):
            texts[row].append(int(tokens[row]))
            active[row] = int(tokens[row]) not in ends
        if count == max_new_tokens or not active.any():
            return texts
        # A row that has ended takes part with no token.
        logits = model(
            tokens[:, np.newaxis], active, cache=cache, only_last=True, num_threads=num_threads
        )
    return texts


def check_kind(cache: object) -> None:
    """Raise TypeError for what is no cache."""
    if not isinstance(cache, Cache):
        raise TypeError(f"cache must be a KVCache or PagedKVCache, not {type(cache).__name__}")


def check_length(cache: Cache, new: Int64Array) -> None:
    """Raise ValueError if the rows of a cache cannot have that many new tokens (B,)."""
    ends = cache.lengths + new
    if cache.max_length is not None and ends.max() > cache.max_length:
        row = int(ends.argmax())
        raise ValueError(
            f"text {row} could have {ends[row]} tokens to be read, prompt and new ones, and the "
            f"cache holds {cache.max_length} (max_length)"
        )


def padded(prompts: Sequence[Sequence[int]], vocab_size: int) -> tuple[Int64Array, Int64Array]:
    """Return prompts as ids (B, S), filled up with 0 on the right, and their lengths (B,)."""
    lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
    if lengths.size and lengths.min() == 0:
        raise ValueError(f"prompt {int(lengths.argmin())} is empty")
    ids = np.zeros((lengths.size, int(lengths.max(initial=0))), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        tokens = np.asarray(prompt)
        if tokens.dtype.kind not in "iu" or tokens.ndim != 1:
            raise TypeError(f"prompt {row} must be a sequence of integers, not {prompt!r}")
        if not (0 <= tokens.min() and tokens.max() < vocab_size):
            raise ValueError(
                f"the tokens of prompt {row} must be in 0 … {vocab_size - 1}, not {tokens.min()} "
                f"… {tokens.max()}"
            )
        ids[row, : tokens.size] = tokens
    return ids, lengths


def read_prompts(
    model: LanguageModel,
    ids: Int64Array,
    lengths: Int64Array,
    cache: Cache,
    chunk: int,
    num_threads: int | None,
) -> Float32Array:
    """Return the logits after each prompt (B, V), whose keys and values the cache then has."""
    result: Float32Array | None = None
    for start in range(0, ids.shape[1], chunk):
        part = ids[:, start : start + chunk]
        counts = np.clip(lengths - start, 0, part.shape[1])
        logits = model(part, counts, cache=cache, only_last=True, num_threads=num_threads)
        if result is None:
            result = logits
        result = np.where(counts[:, np.newaxis] > 0, logits, result)
    assert result is not None  # ids has a column
    return result
