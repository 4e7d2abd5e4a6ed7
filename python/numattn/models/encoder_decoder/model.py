"""What encoder–decoders of every family share: a source in, the logits of a text out.

    source = encoder(source)
    for each token of the text:
        x = decoder(token, what is before it, source)
        logits = x · head

Keys and values that the decoder reads of the source are computed once, before its first step.
(Vaswani et al., "Attention Is All You Need", 2017.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from numattn import Linear
from numattn._arguments import bounded_integer
from numattn._dtypes import storage_name
from numattn.cache import KVCache

from ..arrays import Float32Array, Int64Array
from ..beams import Beam, EarlyStopping, Rules
from ..files.storage import number_dtype, storage_dtype
from ..ids import check_ids
from .generation_config import GenerationConfig
from .layers import DecoderLayer
from .search import Choose, beam_search, greedy_search, likeliest
from .state import DecoderState
from .token_rules import Rule

# New tokens of a text where neither a call nor the folder says how many.
MOST = 256


class Sizes(Protocol):
    """What of a configuration every family has."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def num_heads(self) -> int:
        """Of the decoder."""

    @property
    def head_size(self) -> int: ...
    @property
    def max_positions(self) -> int | None:
        """How many tokens a text may have, if positions are learned."""


class EncoderDecoder(ABC):
    """An encoder–decoder on numattn's public API.

    Any number of threads may call one model at once, each with a state of its own.

    Attributes
    ----------
    dtype : numpy.dtype
        What weights are stored in: float32, bfloat16 or int8.
    storage : str
        The same by its name, which tells "w8a8" from "int8" (see :class:`numattn.Linear`).
    generation : GenerationConfig
        How texts are searched for where a call does not say it.
    """

    _tables: list[NDArray[Any]]
    """Of the embeddings that sources and texts begin with; texts' last."""
    _decoder: Sequence[DecoderLayer]
    _head: Linear
    generation: GenerationConfig

    def __init__(self, sizes: Sizes, dtype: DTypeLike | None) -> None:
        self._sizes = sizes
        self.storage = storage_name(dtype)
        self.dtype = storage_dtype(self.storage)

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickle carries; of bfloat16 it makes no buffers, of integers it does."""
        views = {id(table): table.view(f"u{table.itemsize}") for table in self._tables}
        return {**vars(self), "_tables": [views[id(table)] for table in self._tables]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        views = {id(table): table.view(self._number) for table in self._tables}
        self._tables = [views[id(table)] for table in self._tables]

    @property
    def _number(self) -> np.dtype[Any]:
        """Return what tables, keys and values are."""
        return number_dtype(self.storage)

    @property
    def vocab_size(self) -> int:
        """Return V: token ids are 0 … V − 1."""
        return self._sizes.vocab_size

    @abstractmethod
    def _decoded(
        self, ids: Int64Array, state: DecoderState, num_threads: int | None
    ) -> Float32Array:
        """Return what the head reads (N, S, E) for further tokens (N, S) of the texts."""

    def _started(
        self, encoded: Float32Array, lengths: Int64Array, num_threads: int | None
    ) -> DecoderState:
        """Return where the decoder begins for encoded sources (B, S, E)."""
        sources = [layer.cross.source(encoded, num_threads) for layer in self._decoder]
        cache = KVCache(
            len(self._decoder), lengths.size, self._sizes.num_heads, self._sizes.head_size,
            dtype=number_dtype(self.storage), max_length=self._sizes.max_positions,
        )  # fmt: skip
        return DecoderState(sources, lengths, cache)

    def logits(
        self, decoder_ids: ArrayLike, state: DecoderState, *, num_threads: int | None = None
    ) -> Float32Array:
        """Return the logits (N, S, V) after each of further tokens (N, S) of the texts.

        The state goes S steps on.

        Raises
        ------
        TypeError
            If ids are not integers; the state is as it was, as after a ValueError.
        ValueError
            If they are not (N, S) with S of 1 or more, one is out of range, or texts would have
            more tokens than there are positions.
        """
        ids = self._further(decoder_ids, state)
        hidden = self._decoded(ids, state, num_threads)
        return self._head(hidden, num_threads=num_threads)

    def step(
        self, token_ids: ArrayLike, state: DecoderState, *, num_threads: int | None = None
    ) -> Float32Array:
        """Return the logits (N, V) after a further token (N,) of each text, or after S (N, S).

        The state goes on by these tokens. Errors are those of `logits`.
        """
        ids = np.asarray(token_ids)
        ids = self._further(ids[:, np.newaxis] if ids.ndim == 1 else ids, state)
        hidden = self._decoded(ids, state, num_threads)[:, -1]
        return self._head(np.ascontiguousarray(hidden), num_threads=num_threads)

    def _further(self, given: ArrayLike, state: DecoderState) -> Int64Array:
        """Return further tokens (N, S) of a state's texts, or raise."""
        ids = check_ids("token_ids", given, self.vocab_size)
        batch, limit = state.cache.batch, self._sizes.max_positions
        if ids.shape[0] != batch or not ids.shape[1]:
            raise ValueError(
                f"token_ids must be ({batch}, S) with S of 1 or more, or ({batch},), "
                f"not {ids.shape}"
            )
        if limit is not None and state.position + ids.shape[1] > limit:
            raise ValueError(
                f"texts would have {state.position + ids.shape[1]} tokens, and the model has "
                f"{limit} positions"
            )
        return ids

    def _searched(
        self,
        state: DecoderState,
        prompt: Int64Array,
        *more: Rule,
        beams: int | None = None,
        max_tokens: int | None = None,
        length_penalty: float | None = None,
        early_stopping: EarlyStopping | None = None,
        choose: Choose | None = None,
        num_threads: int | None = None,
    ) -> list[list[Beam]]:
        """Return the texts that a search finds for each source, best first.

        With one beam `choose` says which token comes next; the likeliest by default.
        """
        rules = self._rules(prompt.size, beams, max_tokens, length_penalty, early_stopping)
        allow = self.generation.rules.of(prompt.size, rules.most, *more)
        ids = np.repeat(prompt[np.newaxis], state.cache.batch, axis=0)
        logits = self.step(ids, state, num_threads=num_threads)
        rows = np.arange(state.cache.batch)

        def step(tokens: Int64Array, parents: Int64Array) -> Float32Array:
            if not np.array_equal(parents, np.arange(state.cache.batch)):
                state.fork(parents)
            return self.step(tokens, state, num_threads=num_threads)

        if rules.beams == 1:
            texts = greedy_search(logits, step, prompt, rules, allow, choose or likeliest)
            return [[Beam(texts[row], float("nan"))] for row in rows.tolist()]
        return beam_search(logits, step, prompt, rules, allow)

    def _rules(
        self,
        prompt_size: int,
        beams: int | None,
        max_tokens: int | None,
        length_penalty: float | None,
        early_stopping: EarlyStopping | None,
    ) -> Rules:
        """Return how a search goes on, by a call's arguments and the folder's settings."""
        own, limit = self.generation, self._sizes.max_positions
        count = own.beams if beams is None else bounded_integer("beams", beams)
        if count < 1:
            raise ValueError(f"beams must be 1 or more, not {beams}")
        if max_tokens is None:
            most = own.most(prompt_size, limit, MOST)
        else:
            most = bounded_integer("max_tokens", max_tokens)
            if limit is not None and prompt_size + most > limit:
                raise ValueError(
                    f"max_tokens must be at most {limit - prompt_size}, since the model has "
                    f"{limit} positions and {prompt_size} are of the prompt; not {max_tokens}"
                )
        if most < 1:
            raise ValueError(f"max_tokens must be 1 or more, not {most}")
        early = own.early_stopping if early_stopping is None else early_stopping
        if early not in (True, False, "never"):
            raise ValueError(f"early_stopping must be True, False or 'never', not {early!r}")
        penalty = own.length_penalty if length_penalty is None else float(length_penalty)
        ends = np.array(own.rules.ends, dtype=np.int64)
        return Rules(count, penalty, early, most, ends)
