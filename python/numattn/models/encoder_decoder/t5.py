"""T5 and its kin on numattn's public API: Flan-T5, mT5.

Positions are terms of scores by distance, of a learned table that all layers share; scores are not
scaled. (Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer", 2020; Shazeer, "GLU Variants Improve Transformer", 2020, for version 1.1.)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from numattn import Linear
from numattn.position import t5_bias

from ..arrays import Float32Array, Int64Array
from ..files.activations import ACTIVATIONS, Activation
from ..files.checkpoint import Checkpoint
from ..files.folder import model_folder
from ..files.model_config import read_model_config
from ..files.settings import Settings, shown
from ..files.tensors import Tensors
from ..norms import RmsNorm
from .attentions import AttentionForm
from .generation_config import GenerationConfig
from .layers import DecoderLayer, EncoderLayer, LayerForm
from .state import DecoderState
from .tables import embedded, read_table
from .text_to_text import TextToText
from .text_tokens import TextTokens

FAMILIES = {"t5": "T5", "mt5": "MT5"}
# A table of the attention to the source, which first files have and no model uses.
IGNORED = r"(.*\.)?decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
NAMES = ("q", "k", "v", "o")


@dataclass(frozen=True)
class T5Config:
    """Sizes and choices of a T5."""

    vocab_size: int
    hidden_size: int
    head_size: int
    num_heads: int
    ffn_size: int
    encoder_layers: int
    decoder_layers: int
    activation: Activation
    gated: bool
    buckets: int
    max_distance: int
    norm_eps: float
    output_scale: float
    """Of what the head reads."""

    @property
    def max_positions(self) -> None:
        """Return None: texts may have any number of tokens."""
        return None

    @classmethod
    def from_file(cls, path: Path) -> T5Config:
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
        default = "relu" if family == "t5" else "gated-gelu"
        activation, gated = read_activation(settings, default)
        width, layers = settings.size("d_model"), settings.size("num_layers")
        # Files of transformers 5 say it; older ones by whether the head is the table, as it was.
        scaled = family == "t5" and settings.flag(
            "scale_decoder_outputs", settings.flag("tie_word_embeddings", True)
        )
        return cls(
            vocab_size=settings.size("vocab_size"),
            hidden_size=width,
            head_size=settings.size("d_kv"),
            num_heads=settings.size("num_heads"),
            ffn_size=settings.size("d_ff"),
            encoder_layers=layers,
            decoder_layers=settings.size("num_decoder_layers", layers),
            activation=activation,
            gated=gated,
            buckets=settings.size("relative_attention_num_buckets", 32),
            max_distance=settings.size("relative_attention_max_distance", 128),
            norm_eps=settings.number("layer_norm_epsilon", 1e-6),
            output_scale=width**-0.5 if scaled else 1.0,
        )

    def layer(self, ffn_number: int) -> LayerForm:
        """Return the form of a layer whose feed-forward part is of that number."""

        def read_norm(checkpoint: Tensors, name: str) -> RmsNorm:
            return RmsNorm(checkpoint.take(f"{name}.weight", (self.hidden_size,)), self.norm_eps)

        ffn = f"layer.{ffn_number}.DenseReluDense"
        attention = AttentionForm(
            self.hidden_size, self.num_heads, self.head_size, 1.0, NAMES, (False,) * 4
        )
        return LayerForm(
            attention, self.ffn_size, self.activation, True, read_norm,
            ("layer.0.SelfAttention", "layer.0.layer_norm"),
            ("layer.1.EncDecAttention", "layer.1.layer_norm"),
            (f"{ffn}.wi_1" if self.gated else f"{ffn}.wi", f"{ffn}.wo",
             f"layer.{ffn_number}.layer_norm"),
            f"{ffn}.wi_0" if self.gated else None,
            False,
        )  # fmt: skip


def read_activation(settings: Settings, default: str) -> tuple[Activation, bool]:
    """Return the activation that feed_forward_proj names, and whether it is a gate's.

    transformers 5 says both once more, as dense_act_fn and is_gated_act.
    """
    name = settings.get("feed_forward_proj", default)
    gated = isinstance(name, str) and name.startswith("gated-")
    kind = name.removeprefix("gated-") if isinstance(name, str) else name
    if name == "gated-gelu":
        kind = "gelu_new"
    if kind not in ACTIVATIONS:
        raise ValueError(
            f"{settings.path}: feed_forward_proj {shown(name)} is not supported; supported: one of "
            f"{[*ACTIVATIONS]}, or such a one after 'gated-'"
        )
    settings.one_of("dense_act_fn", (kind,), kind)
    settings.one_of("is_gated_act", (gated,), gated)
    return ACTIVATIONS[kind], gated


class T5(TextToText):
    """A T5, Flan-T5 or mT5, made by `T5.from_folder`.

    Attributes
    ----------
    config : T5Config
        Sizes and choices.

    Examples
    --------
    >>> from numattn.models import T5
    >>> model = T5.from_folder(folder)  # doctest: +SKIP
    >>> model.generate_text(["translate English to German: The house is wonderful."])
    ... # doctest: +SKIP
    ['Das Haus ist wunderbar.']
    """

    def __init__(
        self, config: T5Config, checkpoint: Tensors, generation: GenerationConfig,
        tokens: TextTokens, dtype: DTypeLike | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config, dtype)
        self.config, self.generation, self._tokens = config, generation, tokens
        shape, stored = (config.vocab_size, config.hidden_size), self.storage
        counts = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
        settings = {"encoder": "num_layers", "decoder": "num_decoder_layers"}
        for stack, count in counts.items():
            checkpoint.check_layers(f"{stack}.block", count, settings[stack])
        shared = checkpoint.take("shared.weight", shape, dtype=self._number)
        self._tables = [
            read_table(checkpoint, f"{stack}.embed_tokens.weight", shared) for stack in counts
        ]
        head = read_table(checkpoint, "lm_head.weight", shared, from_root=True)
        self._head = Linear(head, dtype=stored)
        del head
        encoder, decoder = config.layer(1), config.layer(2)
        self._encoder = [
            EncoderLayer(checkpoint, f"encoder.block.{number}", encoder, stored)
            for number in range(config.encoder_layers)
        ]
        self._decoder = [
            DecoderLayer(checkpoint, f"decoder.block.{number}", decoder, stored)
            for number in range(config.decoder_layers)
        ]
        self._norms = [
            encoder.read_norm(checkpoint, f"{stack}.final_layer_norm") for stack in counts
        ]
        self._biases = [
            checkpoint.take(
                f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                (config.buckets, config.num_heads),
            )
            for stack in counts
        ]

    @classmethod
    def from_folder(cls, folder: str | Path, *, dtype: DTypeLike | None = None) -> T5:
        """Load a Hugging Face folder: config.json, model.safetensors and, for texts, a tokenizer.

        Parameters
        ----------
        folder : path
            The folder.
        dtype : {None, float32, bfloat16, int8, "w8a8"}
            How weights are stored: float32 by default.

        Raises
        ------
        FileNotFoundError
            If the folder or a file of it is missing.
        ImportError
            If safetensors is not installed.
        ValueError
            If a file is damaged, a tensor is missing, unused or of another shape, or a setting is
            not supported. The message names it.
        """
        folder = model_folder(folder)
        config = T5Config.from_file(folder / "config.json")
        generation = GenerationConfig.from_folder(folder, config.vocab_size)
        checkpoint = Checkpoint(folder / "model.safetensors", "shared.weight")
        model = cls(config, checkpoint, generation, TextTokens(folder), dtype)
        checkpoint.finish(IGNORED)
        return model

    def _bias(self, stack: int, queries: int, keys: int) -> NDArray[Any]:
        """Return the terms of scores (H, queries, keys) of the last queries among the keys."""
        return t5_bias(
            self._biases[stack], queries, keys, bidirectional=stack == 0,
            max_distance=self.config.max_distance, q_offset=keys - queries,
        )  # fmt: skip

    def _encoded(
        self, ids: Int64Array, lengths: Int64Array, num_threads: int | None
    ) -> Float32Array:
        x = embedded(self._tables[0], ids, 1.0)
        bias = self._bias(0, ids.shape[1], ids.shape[1])
        for layer in self._encoder:
            layer(x, lengths, bias, num_threads)
        return self._norms[0](x, num_threads)

    def _decoded(
        self, ids: Int64Array, state: DecoderState, num_threads: int | None
    ) -> Float32Array:
        x = embedded(self._tables[1], ids, 1.0)
        bias = self._bias(1, ids.shape[1], state.position + ids.shape[1])
        for number, (layer, source) in enumerate(zip(self._decoder, state.sources, strict=True)):
            layer(x, state.cache, number, source, state.lengths, bias, num_threads)
        x = self._norms[1](x, num_threads)
        if self.config.output_scale != 1:
            x *= np.float32(self.config.output_scale)
        return x
