"""BART, mBART and Marian on numattn's public API.

    BART      learned positions, a norm after the embeddings, and after each part
    mBART     learned positions, a norm after the embeddings, before each part, and at the end
    Marian    sines and cosines for positions, a norm after each part

Folders of CTranslate2's have any of these choices (ctranslate2_bart.py).

(Lewis et al., "BART", 2020; Liu et al., "Multilingual Denoising Pre-training for Neural Machine
Translation", 2020; Junczys-Dowmunt et al., "Marian", 2018.)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from numattn import Linear
from numattn.position import sinusoidal

from ..arrays import Float32Array, Int64Array
from ..files.activations import ACTIVATIONS, Activation
from ..files.checkpoint import Checkpoint
from ..files.ctranslate2_file import ctranslate2_in
from ..files.folder import model_folder
from ..files.model_config import read_model_config
from ..files.settings import Settings
from ..files.tensors import Tensors
from .forms import NORM_EPS, fairseq_form
from .generation_config import GenerationConfig
from .layers import DecoderLayer, EncoderLayer, LayerForm, read_layer_norm
from .state import DecoderState
from .tables import embedded, read_table
from .text_to_text import TextToText
from .text_tokens import TextTokens

FAMILIES = {"bart": "Bart", "mbart": "MBart", "marian": "Marian"}
OFFSET = 2  # rows of a learned table of positions before that of the first
STACKS = ("encoder", "decoder")
IGNORED = r"(model\.)?(encoder|decoder)\.version"


@dataclass(frozen=True)
class BartConfig:
    """Sizes and choices of a BART, mBART or Marian."""

    vocab_size: int
    source_vocab_size: int
    hidden_size: int
    encoder_layers: int
    decoder_layers: int
    heads: tuple[int, int]
    """Of the encoder's layers, and of the decoder's."""
    ffn_sizes: tuple[int, int]
    activation: Activation
    max_positions: int
    embedding_scale: float
    norm_first: bool
    """Whether norms are before the parts, and one more at the end."""
    embedding_norms: bool
    """Whether there is a norm after the embeddings."""
    learned_positions: bool
    """Whether a file must have a table of positions: they are sines and cosines without it."""
    one_table: bool
    """Whether sources and texts have one table of embeddings."""
    position_offset: int = 0
    """Rows of a table of positions before that of the first."""
    norm_eps: float = NORM_EPS

    @property
    def num_heads(self) -> int:
        """Return how many heads the decoder's layers have."""
        return self.heads[1]

    @property
    def head_size(self) -> int:
        """Return how many numbers a head of the decoder has."""
        return self.hidden_size // self.heads[1]

    @classmethod
    def from_file(cls, path: Path) -> BartConfig:
        """Read a config.json.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not JSON, lacks a size, or asks for something that is not supported.
        """
        settings, family = read_model_config(path, FAMILIES)
        settings.one_of("is_encoder_decoder", (True,), True)
        settings.one_of("is_decoder", (False,), False)
        settings.one_of("tie_word_embeddings", (True,), True)
        source_size = size = settings.size("vocab_size")
        one_table = family != "marian" or settings.flag("share_encoder_decoder_embeddings", True)
        if family == "marian" and one_table:
            settings.one_of("decoder_vocab_size", (size,), size)
        elif family == "marian":
            size = settings.size("decoder_vocab_size", size)
        width = settings.size("d_model")
        return cls(
            vocab_size=size,
            source_vocab_size=source_size,
            hidden_size=width,
            encoder_layers=settings.size("encoder_layers"),
            decoder_layers=settings.size("decoder_layers"),
            heads=read_heads(settings, width),
            ffn_sizes=(settings.size("encoder_ffn_dim"), settings.size("decoder_ffn_dim")),
            activation=ACTIVATIONS[settings.one_of("activation_function", ACTIVATIONS, "gelu")],
            max_positions=settings.size("max_position_embeddings", 1024),
            embedding_scale=width**0.5 if settings.flag("scale_embedding", False) else 1.0,
            norm_first=family == "mbart",
            embedding_norms=family != "marian",
            learned_positions=family != "marian",
            position_offset=0 if family == "marian" else OFFSET,
            one_table=one_table,
        )

    def layer(self, stack: int) -> LayerForm:
        """Return the form of the encoder's layers, or of the decoder's."""
        return fairseq_form(
            self.hidden_size, self.heads[stack], self.ffn_sizes[stack], self.activation,
            norm_first=self.norm_first, norm_eps=self.norm_eps,
        )  # fmt: skip


def read_heads(settings: Settings, width: int) -> tuple[int, int]:
    """Return how many heads the encoder's layers have, and the decoder's; or raise ValueError."""
    names = [f"{stack}_attention_heads" for stack in STACKS]
    for name in names:
        if width % settings.size(name):
            raise ValueError(
                f"{settings.path}: d_model {width} does not divide into {name} "
                f"{settings.size(name)}"
            )
    encoder, decoder = map(settings.size, names)
    return encoder, decoder


class Bart(TextToText):
    """A BART, mBART or Marian, made by `Bart.from_folder`.

    Attributes
    ----------
    config : BartConfig
        Sizes and choices.

    Examples
    --------
    >>> from numattn.models import Bart
    >>> model = Bart.from_folder(folder)  # doctest: +SKIP
    >>> model.generate_text(["A long text …"], beams=4)  # doctest: +SKIP
    """

    def __init__(
        self, config: BartConfig, checkpoint: Tensors, generation: GenerationConfig,
        tokens: TextTokens, dtype: DTypeLike | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config, dtype)
        self.config, self.generation, self._tokens = config, generation, tokens
        width = config.hidden_size
        for stack, count in zip(
            STACKS, (config.encoder_layers, config.decoder_layers), strict=True
        ):
            checkpoint.check_layers(f"{stack}.layers", count, f"{stack}_layers")
        self._tables, shared = self._read_tables(checkpoint)
        bias, bias_name = None, "final_logits_bias"
        if checkpoint.has(bias_name, from_root=True):
            bias = checkpoint.take(bias_name, (1, config.vocab_size), from_root=True)[0]
        head = read_table(checkpoint, "lm_head.weight", shared, from_root=True)
        self._head = Linear(head, bias, dtype=self.storage)
        del head
        self._places = [read_places(checkpoint, stack, config) for stack in STACKS]
        norm = read_layer_norm(config.norm_eps, width)
        self._first_norms = self._last_norms = None
        if config.embedding_norms:
            self._first_norms = [
                norm(checkpoint, f"{stack}.layernorm_embedding") for stack in STACKS
            ]
        if config.norm_first:
            self._last_norms = [norm(checkpoint, f"{stack}.layer_norm") for stack in STACKS]
        self._encoder = [
            EncoderLayer(checkpoint, f"encoder.layers.{number}", config.layer(0), self.storage)
            for number in range(config.encoder_layers)
        ]
        self._decoder = [
            DecoderLayer(checkpoint, f"decoder.layers.{number}", config.layer(1), self.storage)
            for number in range(config.decoder_layers)
        ]

    @classmethod
    def from_folder(cls, folder: str | Path, *, dtype: DTypeLike | None = None) -> Bart:
        """Load a Hugging Face folder: config.json, model.safetensors and, for texts, a tokenizer.

        Texts need tokenizer.json; of a Marian model also source.spm, target.spm and vocab.json do,
        with the library sentencepiece. Arguments and errors are those of `T5.from_folder`. A folder
        of CTranslate2's is read as well (docs/encoder-decoders.md).
        """
        folder = model_folder(folder)
        file = ctranslate2_in(folder)
        if file is not None:
            from .ctranslate2_bart import load_bart  # which makes use of this class

            return load_bart(file, dtype=dtype)
        config = BartConfig.from_file(folder / "config.json")
        generation = GenerationConfig.from_folder(folder, config.vocab_size)
        anchor = "shared.weight" if config.one_table else "encoder.embed_tokens.weight"
        checkpoint = Checkpoint(folder / "model.safetensors", anchor)
        model = cls(config, checkpoint, generation, TextTokens(folder), dtype)
        checkpoint.finish(IGNORED)
        return model

    @property
    def source_vocab_size(self) -> int:
        """Return how many tokens sources are made of."""
        return self.config.source_vocab_size

    def _read_tables(self, checkpoint: Tensors) -> tuple[list[NDArray[Any]], NDArray[Any]]:
        """Return the tables of sources and of texts, and that which a head has that has none."""
        config, width = self.config, self.config.hidden_size
        names = [f"{stack}.embed_tokens.weight" for stack in STACKS]
        if config.one_table:
            shape = (config.vocab_size, width)
            shared = checkpoint.take("shared.weight", shape, dtype=self._number)
            return [read_table(checkpoint, name, shared) for name in names], shared
        sizes = (config.source_vocab_size, config.vocab_size)
        tables = [
            checkpoint.take(name, (size, width), dtype=self._number)
            for name, size in zip(names, sizes, strict=True)
        ]
        return tables, tables[1]

    def _embedded(
        self, stack: int, ids: Int64Array, first: int, num_threads: int | None
    ) -> Float32Array:
        """Return tokens (B, S) from position `first` on as a stack's first layer takes them."""
        x = embedded(self._tables[stack], ids, self.config.embedding_scale)
        x += self._places[stack][first : first + ids.shape[1]]
        return x if self._first_norms is None else self._first_norms[stack](x, num_threads, out=x)

    def _finished(self, stack: int, x: Float32Array, num_threads: int | None) -> Float32Array:
        return x if self._last_norms is None else self._last_norms[stack](x, num_threads, out=x)

    def _encoded(
        self, ids: Int64Array, lengths: Int64Array, num_threads: int | None
    ) -> Float32Array:
        x = self._embedded(0, ids, 0, num_threads)
        for layer in self._encoder:
            layer(x, lengths, None, num_threads)
        return self._finished(0, x, num_threads)

    def _decoded(
        self, ids: Int64Array, state: DecoderState, num_threads: int | None
    ) -> Float32Array:
        x = self._embedded(1, ids, state.position, num_threads)
        for number, (layer, source) in enumerate(zip(self._decoder, state.sources, strict=True)):
            layer(x, state.cache, number, source, state.lengths, None, num_threads)
        return self._finished(1, x, num_threads)


def read_places(checkpoint: Tensors, stack: str, config: BartConfig) -> NDArray[np.float32]:
    """Return what is added to tokens for their positions, (positions, E)."""
    name, count = f"{stack}.embed_positions.weight", config.max_positions
    if not config.learned_positions and not checkpoint.has(name):
        return sinusoidal(count, config.hidden_size, halves=True)
    offset = config.position_offset
    table: NDArray[Any] = checkpoint.take(name, (count + offset, config.hidden_size))
    return table[offset:]
