"""Decoders that make vectors of texts: Qwen3-Embedding, EmbeddingGemma and their like.

    x = a decoder's normalised states of a text's tokens
    vector = pooling(x) (·Wᵀ for each Dense module)         the last token's state, or the mean

(Zhang et al., Qwen3 Embedding, 2025; Schechter Vera et al., EmbeddingGemma, 2025.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import DTypeLike

from ..arrays import Float32Array, Int64Array
from ..decoders.causal import refuse_bidirectional
from ..decoders.llama import IGNORED, Llama
from ..decoders.llama_config import CLASSES, LlamaConfig
from ..decoders.side_by_side import SideBySide
from ..encoder.pooling import POOLINGS, Pooling
from ..encoder.sentence_folder import SentenceFolder
from ..encoder.text_encoder import TextEncoder
from ..encoder.tokenizer import read_tokenizer
from ..files.checkpoint import Checkpoint
from ..files.folder import model_folder
from ..files.model_config import read_model_config
from ..files.settings import Settings
from ..files.storage import number_dtype
from ..ids import check_ids
from ..ragged import Ragged
from .dense import Dense

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# A projection to logits, which a folder may have, is no part of it.
UNUSED = rf"{IGNORED}|lm_head\.weight"


@dataclass(frozen=True)
class EmbedderConfig:
    """Sizes of an embedder."""

    vocab_size: int
    hidden_size: int
    """The numbers of a vector."""
    max_positions: int
    """The greatest number of tokens in a text."""
    causal: bool
    """Whether a token sees those before it alone, or all."""


@dataclass(frozen=True)
class Projected:
    """Pooled states, projected."""

    pooling: Pooling
    projections: Sequence[Dense]

    def __call__(self, hidden: Float32Array, sequences: Ragged) -> Float32Array:
        """Return the vectors of N sequences."""
        vectors = self.pooling(hidden, sequences)
        for project in self.projections:
            vectors = project(vectors)
        return vectors


class Embedder(TextEncoder):
    """Texts → vectors by a decoder of Llama's family, made by `Embedder.from_folder`.

    `tokenize`, `encode` and `encode_tokens` are those of `Bert`. A vector is the same, bit by bit,
    whatever texts stand beside its own.

    Attributes
    ----------
    config : EmbedderConfig
        Sizes.
    model : Llama
        The decoder.
    prompt : str
        What `encode` puts before every text. It may be set, as to what a folder calls "query".

    Examples
    --------
    >>> from numattn.models import Embedder
    >>> model = Embedder.from_folder("Qwen3-Embedding-0.6B", dtype="bfloat16")  # doctest: +SKIP
    >>> model.encode(["a text"]).shape  # doctest: +SKIP
    (1, 1024)
    """

    def __init__(
        self,
        config: EmbedderConfig,
        model: Llama,
        tokenizer: Tokenizer,
        pooling: Pooling,
        prompt: str = "",
    ) -> None:
        super().__init__(cast(Any, config), tokenizer, pooling, prompt)
        self.model, self._causal = model, config.causal

    @classmethod
    def from_folder(cls, folder: str | Path, *, dtype: DTypeLike | None = None) -> Embedder:
        """Load a folder of sentence-transformers', of a model of Llama's family.

        Parameters
        ----------
        folder : path
            The folder, with modules.json, or else one whose vectors are means of states.
        dtype : {None, float32, bfloat16, int8, "w8a8"}
            How the decoder stores its weights: float32 by default.

        Raises
        ------
        FileNotFoundError
            If the folder or one of the files is missing.
        ImportError
            If safetensors or tokenizers is not installed, or ml_dtypes for bfloat16.
        ValueError
            If a file is damaged, a tensor is missing, unused or of another shape than the
            configuration says, or the folder or `dtype` asks for something that is not supported.
            The message names it.
        """
        sentences = SentenceFolder.read(model_folder(folder), dense=True)
        model_folder(sentences.model)  # which may be a folder in it
        given, name = read_model_config(sentences.model / "config.json", CLASSES)
        causal, decoder = read_decoder(given, name)
        longest = given.size("max_position_embeddings")
        tokenizer = read_tokenizer(
            sentences.model, longest, sentences.max_tokens, sentences.lower_case
        )
        checkpoint = Checkpoint(sentences.model / "model.safetensors", "embed_tokens.weight")
        model = Llama(decoder, checkpoint, dtype, head=False)
        checkpoint.finish(UNUSED)
        pooling, width = POOLINGS[sentences.pooling], decoder.hidden_size
        projections = []
        for place in sentences.dense:
            projections.append(Dense.read(place, width))
            width = projections[-1].linear.out_features
        if projections:
            pooling = Projected(pooling, projections)
        config = EmbedderConfig(decoder.vocab_size, width, longest, causal)
        return cls(config, model, tokenizer, pooling, sentences.prompt)

    def _hidden(self, ids: Int64Array, sequences: Ragged, num_threads: int | None) -> Float32Array:
        check_ids("token_ids", ids, self.config.vocab_size, ndim=1)
        lengths = sequences.lengths
        if lengths.size and int(lengths.max()) > self.config.max_positions:
            raise ValueError(
                f"a text has {int(lengths.max())} tokens, and the model positions for "
                f"{self.config.max_positions}"
            )
        if ids.size == 0:
            return np.zeros((0, self.model.config.hidden_size), dtype=np.float32)
        step = SideBySide(
            sequences,
            sequences.positions()[np.newaxis],
            self._causal,
            number_dtype(self.model.storage),
            num_threads,
        )
        return self.model.states(ids, step)


def read_decoder(given: Settings, name: str) -> tuple[bool, LlamaConfig]:
    """Return whether tokens see those before them alone, and what the decoder is."""
    bidirectional = name == "gemma3_text" and given.flag("use_bidirectional_attention", False)
    if not bidirectional:
        refuse_bidirectional(given)
    config = LlamaConfig.from_settings(given, name)
    if any(rope is not None and rope.depends_on_length for rope in config.ropes):
        raise ValueError(
            f"{given.path}: positions that depend on the length of a text (dynamic, longrope) are "
            "not supported for embedders"
        )
    if not bidirectional:
        return True, config
    # A window of W tokens reaches W / 2 to either side.
    windows = (None if left is None else (left + 1) // 2 for left in config.windows)
    return False, replace(config, windows=tuple(windows))
