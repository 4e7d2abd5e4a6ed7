"""Texts → vectors, with an encoder's hidden states: tokenised, computed in batches, pooled."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import Float32Array
from ..texts import each_text
from ..token_lists import TokenLists
from ..token_lists import token_lists as token_lists_of
from .batches import batches_by_length
from .bert_config import BertConfig
from .pooling import Pooling
from .tokenized import Tokenized, tokenized

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TextEncoder(ABC):
    """An encoder of texts, whatever its layers are."""

    def __init__(
        self, config: BertConfig, tokenizer: Tokenizer, pooling: Pooling, prompt: str
    ) -> None:
        self.config, self.tokenizer, self.prompt = config, tokenizer, prompt
        self._pooling = pooling

    @property
    def max_tokens(self) -> int:
        """Tokens, special ones included, beyond which `tokenize` and `encode` cut a text."""
        truncation = self.tokenizer.truncation
        return self.config.max_positions if truncation is None else int(truncation["max_length"])

    @abstractmethod
    def __call__(
        self,
        token_ids: ArrayLike,
        lengths: ArrayLike | None = None,
        *,
        num_threads: int | None = None,
    ) -> Float32Array:
        """Return the hidden states (B, S, E) of tokens (B, S), lengths[b] of a row being real."""

    def tokenize(self, texts: Iterable[str]) -> Tokenized:
        """Return the token ids of each text, and which texts were cut to `max_tokens`.

        Parameters
        ----------
        texts : iterable of str
            The prompt comes before each.

        Of a text of many more characters than can count, a part is read: its beginning, or its end
        where the folder cuts on the left. One without white space is read whole.

        Returns
        -------
        Tokenized
            `ids`, a list of int32 arrays; `truncated`, (n,) of bool; `lengths`, (n,) of int64, what
            is left of each text; `num_truncated`.

        Raises
        ------
        TypeError
            If texts is a string or has no order (a mapping, a set, a table of several columns), or
            holds something else than strings.
        ValueError
            If a text holds a lone surrogate, and so is not Unicode.

        Examples
        --------
        >>> from numattn.models import Bert, installed_folder
        >>> tokens = Bert.from_folder(installed_folder()).tokenize(["A cat.", "cat " * 1000])
        >>> tokens.lengths, tokens.truncated
        (array([  5, 256]), array([False,  True]))
        """
        prompted = each_text(texts)
        if self.prompt:
            prompted = (self.prompt + text for text in prompted)
        return tokenized(self.tokenizer, prompted)

    def encode(
        self,
        texts: Iterable[str],
        *,
        batch_tokens: int = 4096,
        normalize: bool = True,
        progress: Callable[[int], object] | None = None,
        num_threads: int | None = None,
    ) -> Float32Array:
        """Return one vector per text: the mean of its tokens' hidden states, or that of [CLS].

        Parameters
        ----------
        texts : iterable of str
            A list, a one-dimensional array, a column of a table, an open file, a generator. A text
            of more than `max_tokens` tokens is cut, with a UserWarning that counts them; `tokenize`
            tells which.
        batch_tokens : int
            Tokens computed at once, padding included: bounds the memory. Texts of like length go
            together, whatever their order.
        normalize : bool
            Scale each vector to length 1, so that the dot product of two is their cosine.
        progress : callable, optional
            Called after each batch with the number of texts in it.
        num_threads : int, optional
            Upper limit for this call.

        Returns
        -------
        float32 array (n, E)
            In the order of the texts. A text without any token (possible only with a tokenizer that
            adds none of its own) is 0.

        Raises
        ------
        TypeError
            If texts is a string or has no order (a mapping, a set, a table of several columns), or
            holds something else than strings.
        ValueError
            If batch_tokens is not positive, or a text holds a lone surrogate.
        """
        tokens = self.tokenize(texts)
        if tokens.num_truncated:
            warnings.warn(
                f"{tokens.num_truncated} of {len(tokens.ids)} texts have more than "
                f"{self.max_tokens} tokens and were cut",
                stacklevel=2,
            )
        return self._vectors(tokens.ids, batch_tokens, normalize, progress, num_threads)

    def encode_tokens(
        self,
        token_lists: TokenLists,
        *,
        batch_tokens: int = 4096,
        normalize: bool = True,
        progress: Callable[[int], object] | None = None,
        num_threads: int | None = None,
    ) -> Float32Array:
        """Return one vector per list of token ids, as `encode` does for texts."""
        lists = token_lists_of("token_lists", token_lists, self.config.vocab_size)
        return self._vectors(lists, batch_tokens, normalize, progress, num_threads)

    def _vectors(
        self,
        lists: Sequence[NDArray[np.integer[Any]]],
        batch_tokens: int,
        normalize: bool,
        progress: Callable[[int], object] | None,
        num_threads: int | None,
    ) -> Float32Array:
        """Return the vector of each list of token ids (n, E)."""
        if batch_tokens < 1:
            raise ValueError(f"batch_tokens must be 1 or more, not {batch_tokens}")
        lengths = np.array([tokens.size for tokens in lists], dtype=np.int64)
        vectors = np.zeros((lengths.size, self.config.hidden_size), dtype=np.float32)
        for batch in batches_by_length(lengths, batch_tokens):
            shape = (batch.size, lengths[batch].max())
            ids = np.full(shape, self.config.pad_token_id, dtype=np.int64)
            for row, index in enumerate(batch):
                ids[row, : lengths[index]] = lists[index]
            hidden = self(ids, lengths[batch], num_threads=num_threads)
            for row, index in enumerate(batch):
                vectors[index] = self._pooling(hidden[row, : lengths[index]])
            if progress is not None:
                progress(batch.size)
        if normalize:
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors /= np.where(norms > 0, norms, 1)
        return vectors
