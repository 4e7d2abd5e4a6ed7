"""What models from text to text share: sources are token ids, or texts by a tokenizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import Float32Array, Int64Array
from ..beams import Beam, EarlyStopping
from ..ids import check_ids
from ..lengths import check_lengths
from ..texts import each_text
from ..token_lists import TokenLists, padded, token_list, token_lists
from .layers import EncoderLayer
from .model import EncoderDecoder
from .state import DecoderState
from .text_tokens import TextTokens


class TextToText(EncoderDecoder):
    """An encoder–decoder from text to text."""

    _encoder: Sequence[EncoderLayer]
    _tokens: TextTokens

    @property
    def source_vocab_size(self) -> int:
        """Return how many tokens sources are made of: as many as texts, by default."""
        return self.vocab_size

    @property
    def max_source(self) -> int | None:
        """Return how many tokens a source may have, if positions are learned."""
        return self._sizes.max_positions

    @abstractmethod
    def _encoded(
        self, ids: Int64Array, lengths: Int64Array, num_threads: int | None
    ) -> Float32Array:
        """Return the encoder's result (B, S, E) for ids (B, S), of lengths[b] real ones each."""

    def encode(
        self, token_ids: ArrayLike, lengths: ArrayLike | None = None, *,
        num_threads: int | None = None,
    ) -> DecoderState:  # fmt: skip
        """Return where the decoder begins for sources (B, S), of lengths[b] tokens each.

        Parameters
        ----------
        token_ids : int array of shape (B, S)
            Padded on the right, with whatever id.
        lengths : int array of shape (B,), optional
            All S by default.
        num_threads : int, optional
            Upper limit for this call.

        Raises
        ------
        TypeError
            If ids or lengths are not integers.
        ValueError
            If shapes do not fit, an id or a length is out of range, or there are more tokens than
            positions.
        """
        ids = check_ids("token_ids", token_ids, self.source_vocab_size)
        if not ids.size:
            raise ValueError(f"token_ids must be (B, S) with both of 1 or more, not {ids.shape}")
        limit = self.max_source
        if limit is not None and ids.shape[1] > limit:
            raise ValueError(
                f"token_ids have {ids.shape[1]} tokens a row, and the model has {limit} positions"
            )
        counts = None if lengths is None else check_lengths(lengths, ids.shape)
        if counts is None:
            counts = np.full(ids.shape[0], ids.shape[1], dtype=np.int64)
        return self._started(self._encoded(ids, counts, num_threads), counts, num_threads)

    def search(
        self,
        sources: TokenLists,
        *,
        prompt: Any = None,
        beams: int | None = None,
        max_tokens: int | None = None,
        length_penalty: float | None = None,
        early_stopping: EarlyStopping | None = None,
        num_threads: int | None = None,
    ) -> list[list[Beam]]:
        """Return the best texts that a search finds for each source, best first, with scores.

        Arguments and errors are those of `generate`. The score of a single beam is NaN.
        """
        given = token_lists("sources", sources, self.source_vocab_size)
        for number, source in enumerate(given):
            if not source.size:
                raise ValueError(f"source {number} has no token")
        if not given:
            return []
        state = self.encode(*padded(given, 0), num_threads=num_threads)
        return self._searched(
            state, self._prompt(prompt), beams=beams, max_tokens=max_tokens,
            length_penalty=length_penalty, early_stopping=early_stopping, num_threads=num_threads,
        )  # fmt: skip

    def generate(
        self,
        sources: TokenLists,
        *,
        prompt: Any = None,
        beams: int | None = None,
        max_tokens: int | None = None,
        length_penalty: float | None = None,
        early_stopping: EarlyStopping | None = None,
        num_threads: int | None = None,
    ) -> list[list[int]]:
        """Return the best text for each source: its tokens after the prompt, its end included.

        Without arguments it is done as the folder's generation_config.json says, as by
        transformers' ``generate``.

        Parameters
        ----------
        sources : iterable of iterables of int
            The tokens of each source, its end token included.
        prompt : iterable of int, optional
            Tokens that all texts begin with; the folder's decoder_start_token_id by default.
        beams : int, optional
            How many texts a search keeps; 1 takes the likeliest token after token.
        max_tokens : int, optional
            New tokens of a text, at most; 256 if neither it nor the folder says it.
        length_penalty : float, optional
            Of beams: above 0 longer texts are favoured.
        early_stopping : bool or "never", optional
            Of beams: whether a row is done with its first `beams` ended texts.
        num_threads : int, optional
            Upper limit for this call.

        Raises
        ------
        TypeError
            If sources or the prompt are something else.
        ValueError
            If a token is out of range, a source is empty or too long, or a number is too small.
        """
        found = self.search(
            sources, prompt=prompt, beams=beams, max_tokens=max_tokens,
            length_penalty=length_penalty, early_stopping=early_stopping, num_threads=num_threads,
        )  # fmt: skip
        return [texts[0].tokens for texts in found]

    def generate_text(
        self,
        texts: Iterable[str],
        *,
        prompt: Any = None,
        beams: int | None = None,
        max_tokens: int | None = None,
        length_penalty: float | None = None,
        early_stopping: EarlyStopping | None = None,
        num_threads: int | None = None,
    ) -> list[str]:
        """Return the best text for each text, by the folder's tokenizer.

        Other arguments are those of `generate`.

        Raises
        ------
        FileNotFoundError
            If the folder has no tokenizer.
        ImportError
            If its library is not installed.
        TypeError
            If texts is a string or has no order, or holds something else than strings.
        ValueError
            If a text is not Unicode, or has more tokens than the model has positions.
        """
        sources = [self._tokens.encode(text) for text in list(each_text(texts))]
        found = self.generate(
            sources, prompt=prompt, beams=beams, max_tokens=max_tokens,
            length_penalty=length_penalty, early_stopping=early_stopping, num_threads=num_threads,
        )  # fmt: skip
        return [self._tokens.decode(tokens) for tokens in found]

    def translate(
        self, texts: Iterable[str], *, beams: int | None = None, num_threads: int | None = None
    ) -> list[str]:
        """Return the translation of each text; a short name of `generate_text`."""
        return self.generate_text(texts, beams=beams, num_threads=num_threads)

    def _prompt(self, given: Any) -> Int64Array:
        """Return what texts begin with."""
        if given is not None:
            tokens: NDArray[np.int64] = token_list("prompt", given, self.vocab_size)
            if not tokens.size:
                raise ValueError("prompt must have a token")
            return tokens
        if self.generation.start is None:
            raise ValueError("prompt must be given: the folder names no decoder_start_token_id")
        return np.array([self.generation.start], dtype=np.int64)
