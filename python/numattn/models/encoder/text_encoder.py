"""Texts → vectors, with an encoder's hidden states: tokenised, computed in batches, pooled."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..arrays import Float32Array, Int64Array
from ..ragged import Ragged
from ..texts import each_text
from ..token_lists import TokenLists
from ..token_lists import token_lists as token_lists_of
from ..vectors import Rows, of_length_one
from .ahead import one_ahead
from .batches import Tokens, batches, longest_first
from .config import EncoderConfig
from .pooling import Pooling
from .tokenized import Tokenized, pieces, tokenized, tokenized_piece

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TextEncoder(ABC):
    """An encoder of texts, whatever its layers are."""

    def __init__(
        self, config: EncoderConfig, tokenizer: Tokenizer | str, pooling: Pooling, prompt: str
    ) -> None:
        """Take what every encoder has; instead of a tokenizer, why there is none."""
        self.config, self.prompt = config, prompt
        self._tokenizer, self._pooling = tokenizer, pooling

    @property
    def tokenizer(self) -> Tokenizer:
        """Texts → token ids.

        Raises
        ------
        FileNotFoundError
            If the folder has none. Token ids can be computed all the same.
        """
        if isinstance(self._tokenizer, str):
            raise FileNotFoundError(f"texts need a tokenizer: {self._tokenizer}")
        return self._tokenizer

    @property
    def max_tokens(self) -> int:
        """Tokens, special ones included, beyond which `tokenize` and `encode` cut a text."""
        if isinstance(self._tokenizer, str):
            return self.config.max_positions
        truncation = self.tokenizer.truncation
        return self.config.max_positions if truncation is None else int(truncation["max_length"])

    @abstractmethod
    def _hidden(self, ids: Int64Array, sequences: Ragged, num_threads: int | None) -> Float32Array:
        """Return the hidden states (T, E) of tokens (T,) of sequences one after the other.

        Those of a sequence must not depend on the others.

        Raises
        ------
        ValueError
            If an id is out of range, or a sequence too long.
        """

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
        return tokenized(self.tokenizer, self._prompted(texts))

    def _prompted(self, texts: Iterable[str]) -> Iterator[str]:
        """Return the texts with the prompt before each; raise TypeError if they have no order."""
        each = each_text(texts)
        return (self.prompt + text for text in each) if self.prompt else each

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

        A text's vector is the same, bit by bit, whatever texts stand beside it, in whatever order,
        and for any number of threads. Texts are tokenised a few hundred at a time, in a thread that
        works beside the computation, and nothing is padded.

        Parameters
        ----------
        texts : iterable of str
            A list, a one-dimensional array, a column of a table, an open file, a generator; gone
            through once, by the calling thread, as the computation proceeds. A text of more than
            `max_tokens` tokens is cut, with a UserWarning at the end that counts them; `tokenize`
            tells which.
        batch_tokens : int
            Tokens computed at once, unless one text has more: bounds the memory.
        normalize : bool
            Scale each vector to length 1, so that the dot product of two is their cosine.
        progress : callable, optional
            Called after each batch with the number of texts in it.
        num_threads : int, optional
            Upper limit for this call, beside which there is the tokenizer's thread.

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
        prompted = self._prompted(texts)
        cut, seen = 0, 0

        def ids_of(tokens: Iterable[Tokenized]) -> Iterator[NDArray[np.int32]]:
            nonlocal cut, seen
            for piece in tokens:
                cut, seen = cut + piece.num_truncated, seen + len(piece.ids)
                yield from piece.ids

        tokens = one_ahead(partial(tokenized_piece, self.tokenizer), pieces(prompted))
        with closing(tokens):  # with its thread, whatever happens
            vectors = self._vectors(
                ids_of(tokens),
                len(texts) if isinstance(texts, Sized) else 0,
                batch_tokens,
                normalize,
                progress,
                num_threads,
            )
        if cut:
            warnings.warn(
                f"{cut} of {seen} texts have more than {self.max_tokens} tokens and were cut",
                stacklevel=2,
            )
        return vectors

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
        return self._vectors(lists, len(lists), batch_tokens, normalize, progress, num_threads)

    def _vectors(
        self,
        lists: Iterable[Tokens],
        expected: int,
        batch_tokens: int,
        normalize: bool,
        progress: Callable[[int], object] | None,
        num_threads: int | None,
    ) -> Float32Array:
        """Return the vector of each list of token ids (n, E); about `expected` will come."""
        if batch_tokens < 1:
            raise ValueError(f"batch_tokens must be 1 or more, not {batch_tokens}")
        vectors = Rows(expected, self.config.hidden_size)
        for batch in batches(lists, batch_tokens):
            order, ids, sequences = longest_first(batch)
            pooled = self._pooling(self._hidden(ids, sequences, num_threads), sequences)
            vectors.add(len(batch), order, of_length_one(pooled) if normalize else pooled)
            if progress is not None:
                progress(len(batch))
        return vectors.whole()
