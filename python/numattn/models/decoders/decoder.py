"""What decoders of every family share: tokens in, logits out, with or without a cache."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from numattn._arguments import integer_array
from numattn._dtypes import storage_name
from numattn.cache import Cache, KVCache, PagedKVCache, Storage

from ..arrays import Float32Array, Int64Array
from ..beams import Beam, EarlyStopping
from ..files.storage import number_dtype, storage_dtype
from ..ids import check_ids
from ..sampling import Sampler
from ..token_lists import TokenLists
from .beams import beam_search
from .branches import branch_mask, checked_parents, depths_of
from .fit import DecoderConfig, check_fit
from .generate import Stop, generate
from .generation import check_kind
from .padding import Padding
from .prefix_cache import PrefixCache
from .speculation import Draft
from .step import PackedStep, Step
from .writer import Writer


class DecoderLayer(Protocol):
    """What of a layer every decoder reads."""

    @property
    def wide_keys(self) -> NDArray[np.bool_] | None:
        """Which channels of its keys (Hkv, D) integers need 16 bits for, if any do."""


class Decoder(Writer, ABC):
    """A decoder-only language model on numattn's public API.

    Any number of threads may call one model at once, each with a cache of its own.

    Attributes
    ----------
    dtype : numpy.dtype
        What weights are stored in: float32, bfloat16 or int8. By default keys and values are, too,
        but float32 beside int8.
    storage : str
        What weights are stored in by its name, which tells "w8a8" from "int8" (see
        :class:`numattn.Linear`).
    """

    _embedding: NDArray[Any]
    _layers: Sequence[DecoderLayer]

    def __init__(self, config: DecoderConfig, dtype: DTypeLike | None) -> None:
        self._sizes = config
        self.storage = storage_name(dtype)
        self.dtype = storage_dtype(self.storage)

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickle carries; of bfloat16 it makes no buffers, of integers it does."""
        table = self._embedding
        return {**vars(self), "_embedding": table.view(f"u{table.itemsize}")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._embedding = self._embedding.view(number_dtype(self.storage))

    @property
    def vocab_size(self) -> int:
        """Return V: token ids are 0 … V − 1."""
        return self._sizes.vocab_size

    @property
    def switch_length(self) -> int | None:
        """Return the longest text that is read by the first of two sets of frequencies, if any.

        All tokens of a longer one are turned by the second, and read anew where it grows to that.
        """
        return None

    @property
    def depends_on_length(self) -> bool:
        """Return whether what a token's keys are depends on the length of its whole text."""
        return False

    @property
    def verifies_trees(self) -> bool:
        """Return whether new tokens may branch (`parents`).

        A window counts tokens in the order in which they came, and not along their branch.
        """
        windows = any(window is not None for window in self._sizes.windows)
        return not windows and not self.depends_on_length

    @abstractmethod
    def _hidden(self, ids: Int64Array, step: Step) -> Float32Array:
        """Return the last layer's normalised states (B, S, E) for ids (B, S)."""

    @abstractmethod
    def _logits(self, hidden: Float32Array, num_threads: int | None) -> Float32Array:
        """Return (..., V) for states (..., E)."""

    def new_cache(
        self,
        batch: int,
        *,
        capacity: int = 0,
        dtype: DTypeLike | None = None,
        storage: Storage = None,
        slack: int = 0,
    ) -> KVCache:
        """Return an empty cache for that many rows; `capacity` tokens of each fit at once.

        `dtype`, `storage` and `slack` are those of :class:`numattn.KVCache`. With a storage,
        channels of keys whose bias is far larger than what varies in them are its `wide_keys`.
        """
        sizes = self._sizes
        return KVCache(
            sizes.num_layers, batch, sizes.num_kv_heads, sizes.head_size,
            dtype=number_dtype(self.storage) if dtype is None else dtype, storage=storage,
            wide_keys=self._wide_keys_for(storage), capacity=capacity,
            max_length=sizes.max_positions, window=sizes.windows, slack=slack,
        )  # fmt: skip

    def _wide_keys_for(self, storage: Storage) -> NDArray[np.bool_] | None:
        """Return the `wide_keys` of a cache of that storage, or None where it needs none."""
        layers = [layer.wide_keys for layer in self._layers]
        if storage is None or not any(layer is not None and layer.any() for layer in layers):
            return None
        none = np.zeros((self._sizes.num_kv_heads, self._sizes.head_size), dtype=np.bool_)
        return np.stack([none if layer is None else layer for layer in layers])

    def new_paged_cache(
        self,
        batch: int,
        *,
        pages: int,
        page_size: int = 16,
        dtype: DTypeLike | None = None,
        storage: Storage = None,
    ) -> PagedKVCache:
        """Return an empty cache for that many rows, of `pages` pages in all.

        The other arguments are as for `new_cache`.
        """
        sizes = self._sizes
        return PagedKVCache(
            sizes.num_layers, batch, sizes.num_kv_heads, sizes.head_size,
            pages=pages, page_size=page_size, max_length=sizes.max_positions,
            dtype=number_dtype(self.storage) if dtype is None else dtype, storage=storage,
            wide_keys=self._wide_keys_for(storage),
        )  # fmt: skip

    def new_prefix_cache(
        self,
        *,
        pages: int,
        page_size: int = 16,
        texts: int = 64,
        dtype: DTypeLike | None = None,
        storage: Storage = None,
    ) -> PrefixCache:
        """Return what keeps up to so many texts, of which later prompts share the beginnings.

        The pages are for those and for what is being written. With "longrope" positions nothing is
        kept: what a token's keys are depends on the length of the whole text.
        """
        pool = self.new_paged_cache(
            1, pages=pages, page_size=page_size, dtype=dtype, storage=storage
        )
        return PrefixCache(pool, texts, reusable=self.switch_length is None)

    def __call__(
        self,
        token_ids: ArrayLike,
        lengths: ArrayLike | None = None,
        *,
        attention_mask: ArrayLike | None = None,
        cache: Cache | None = None,
        only_last: bool = False,
        text_lengths: ArrayLike | None = None,
        parents: ArrayLike | None = None,
        num_threads: int | None = None,
    ) -> Float32Array:
        """Return the logits of the token after each one.

        Parameters
        ----------
        token_ids : int array (B, S)
            New tokens. They follow those in the cache; without one, they begin at position 0.
        lengths : int array (B,), optional
            Only the first lengths[b] tokens of row b are real; all by default.
        attention_mask : array (B, S), optional
            The same in Hugging Face's form: nonzero for a real token. Padding stands on the right
            or on the left of a row. Positions count real tokens.
        cache : KVCache or PagedKVCache, optional
            Keys and values of the tokens before these; those of the new ones are added.
        only_last : bool
            Compute the logits after the last real token of each row only. A row without one has
            numbers without meaning; if no row has a place for one, that is an error.
        text_lengths : int array (B,), optional
            For a text that is read in parts: how many tokens each row will have after the last of
            them. "dynamic" and "longrope" positions are turned for that length, so that the parts
            fit one another; by default, for as many as it then has.
        parents : int array (B, S), optional
            For guesses that branch: which of the new tokens of its row each one follows, −1 for
            those in the cache. A token stands where what it follows says, and sees that alone.
            The cache has all of them then, in the order in which they came; `Cache.keep_only`
            leaves a branch. By default each follows the one before it.
        num_threads : int, optional
            Upper limit for this call.

        Returns
        -------
        float32 array (B, S, V), or (B, V) with `only_last`
            At padding, numbers without meaning.

        Raises
        ------
        TypeError
            If ids or lengths are not integers.
        ValueError
            If shapes do not fit, an id or a length is out of range, a text is to be shorter than
            what of it is read, a row has more tokens than the model has positions or the cache may
            hold, or the cache is made for another model or number of rows; or a parent is not
            before its token, or tokens branch without a cache, beside an attention_mask, or in a
            model that does not verify trees (`verifies_trees`). The cache is as it was.
        MemoryError
            If there is no memory, or no page of the cache; what the cache held, it holds.
        """
        ids = check_ids("token_ids", token_ids, self._sizes.vocab_size)
        padding = Padding.of(ids.shape, lengths, attention_mask)
        tree = None
        if parents is not None:
            self._check_branches(cache, attention_mask)
            tree = checked_parents(parents, ids.shape, padding.counts)
        held = self._check_cache(cache, ids.shape[0], padding.counts)
        if ids.size == 0:
            if only_last and ids.shape[0] > 0:
                raise ValueError(
                    f"only_last asks for the last token of each row, and token_ids {ids.shape} "
                    "have none"
                )
            shape = ids.shape[:1] if only_last else ids.shape
            return np.empty((*shape, self._sizes.vocab_size), dtype=np.float32)
        lengths = held + padding.counts
        step = Step(
            counts=padding.counts,
            positions=held[:, np.newaxis]
            + (np.arange(ids.shape[1]) if tree is None else depths_of(tree)),
            lengths=lengths if text_lengths is None else check_texts(text_lengths, lengths),
            cache=cache,
            dtype=number_dtype(self.storage) if cache is None else cache.dtype,
            weight_dtype=number_dtype(self.storage),
            num_threads=num_threads,
            block_mask=None if tree is None else branch_mask(tree, held, int(lengths.max())),
        )
        try:
            front = padding.to_front(ids)
            packed = self._packed(step)
            if packed is None:
                hidden = self._hidden(front, step)
            else:
                hidden = self._hidden(packed.pack(front), packed)
            if only_last:
                hidden = hidden if packed is None else packed.unpack(hidden)
                last = np.maximum(padding.counts - 1, 0)
                return self._logits(hidden[np.arange(last.size), last], num_threads)
            logits = self._logits(hidden, num_threads)
            return padding.to_place(logits if packed is None else packed.unpack(logits))
        except BaseException:
            if cache is not None:
                cache.truncate(held)
            raise

    def _packed(self, step: Step) -> PackedStep | None:
        """Return a step without its padding, of which then only attention knows.

        None if there is none of it worth a change, or rows turn by frequencies of their own.
        """
        real, size = int(step.counts.sum()), step.positions.size
        if step.positions.shape[1] == 1 or real in (0, size) or self.depends_on_length:
            return None
        return PackedStep.of(step)

    def generate(
        self,
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
        """Return what the model writes after each prompt; see `numattn.models.generate`."""
        return generate(
            self, prompts, max_new_tokens,
            sampler=sampler, stop=stop, draft=draft, cache=cache, prefixes=prefixes, chunk=chunk,
            num_threads=num_threads,
        )  # fmt: skip

    def beam_search(
        self,
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
        """Return the likeliest texts after each prompt; see `numattn.models.beam_search`."""
        return beam_search(
            self, prompts, max_new_tokens, beams=beams, length_penalty=length_penalty,
            early_stopping=early_stopping, num_return=num_return, stop=stop, cache=cache,
            chunk=chunk, num_threads=num_threads,
        )  # fmt: skip

    def _check_branches(self, cache: Cache | None, attention_mask: ArrayLike | None) -> None:
        """Raise ValueError where new tokens cannot branch."""
        if cache is None or attention_mask is not None:
            raise ValueError("parents are for a call with a cache and without attention_mask")
        if not self.verifies_trees:
            raise ValueError(
                "parents are for models whose layers have no window, and whose positions do not "
                "depend on the length of the text"
            )

    def _check_cache(self, cache: Cache | None, batch: int, counts: Int64Array) -> Int64Array:
        """Return how many tokens each row has before the new ones, or raise.

        Then there is room for the new ones, in the cache and among the model's positions.
        """
        sizes = self._sizes
        held = np.zeros(batch, dtype=np.int64)
        if cache is not None:
            check_kind(cache)
            check_fit(cache, sizes)
            if cache.batch != batch:
                raise ValueError(f"the cache has {cache.batch} rows, and token_ids {batch}")
            held = cache.lengths
        most = int((held + counts).max(initial=0))
        if sizes.max_positions is not None and most > sizes.max_positions:
            raise ValueError(
                f"a row has {most} tokens; the model has positions for {sizes.max_positions}"
            )
        if cache is not None:
            cache.reserve(counts)
        return held


def check_texts(values: ArrayLike, lengths: Int64Array) -> Int64Array:
    """Return lengths of whole texts (B,), of which lengths[b] tokens are read by now, or raise."""
    texts = integer_array("text_lengths", values, scalar=False)
    if texts.shape != lengths.shape:
        raise ValueError(f"text_lengths must be {lengths.shape}, not {texts.shape}")
    if (texts < lengths).any():
        row = int((texts < lengths).argmax())
        raise ValueError(
            f"text_lengths must be at least what is read by now: row {row} has {lengths[row]} "
            f"tokens, and its text is to have {texts[row]}"
        )
    return texts


def embed(table: NDArray[Any], ids: Int64Array) -> Float32Array:
    """Return rows of a table (V, E), as float32 (..., E) of their own."""
    return np.take(table, ids, axis=0).astype(np.float32, copy=False)
