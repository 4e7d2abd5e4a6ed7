"""What encoders with rotary positions share: ModernBERT, Nomic BERT, GTE.

x = norm(word[token] + type[t])
for each layer: x = layer(x)                     rotary_layer.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from numattn._steps import Steps
from numattn.position import Rope

from ..arrays import Float32Array, Int64Array
from ..files.checkpoint import Checkpoint
from ..files.settings import Settings
from ..files.storage import number_dtype
from ..norms import LayerNorm
from ..ragged import Ragged
from .bert_layer import Workspace
from .encoder import Encoder
from .parts import read_norm
from .rotary_layer import RotaryConfig, RotaryLayer, RotaryNames, RotaryWorkspace

# Tensors that some files have of what follows from their config.json.
FREQUENCIES = r"(.*\.)?rotary_emb\.(original_)?inv_freq"


class RotaryEncoder(Encoder):
    """An encoder whose tokens are told apart by rotary positions."""

    LAYOUTS: ClassVar[tuple[RotaryNames, ...]]
    """The names of tensors, in the ways in which files have them."""
    WORD: ClassVar[str] = "embeddings.word_embeddings.weight"
    NORMS: ClassVar[tuple[str, ...]] = ("embeddings.LayerNorm",)
    """The norm of embedded tokens, by each of the names that it may have."""
    TYPE: ClassVar[str] = "embeddings.token_type_embeddings.weight"
    FINAL_NORM: ClassVar[str] = ""

    config: RotaryConfig

    def _read(self, checkpoint: Checkpoint) -> None:
        config, width = self.config, self.config.hidden_size
        names = next(
            (
                each
                for each in self.LAYOUTS
                if checkpoint.has(f"{each.layers}.0.{each.down}.weight")
            ),
            self.LAYOUTS[0],
        )
        self._word = checkpoint.take(self.WORD, (config.vocab_size, width))
        self._type: Float32Array | None = None
        if config.type_vocab_size:
            self._type = checkpoint.take(self.TYPE, (config.type_vocab_size, width))
        norm = next(
            (each for each in self.NORMS if checkpoint.has(f"{each}.weight")), self.NORMS[0]
        )
        eps, bias = config.layer_norm_eps, config.norm_bias
        self._norm = read_norm(checkpoint, norm, width, eps, bias=bias)
        self._final_norm: LayerNorm | None = None
        if self.FINAL_NORM:
            self._final_norm = read_norm(checkpoint, self.FINAL_NORM, width, eps, bias=bias)
        checkpoint.check_layers(names.layers, config.num_layers, "num_hidden_layers")
        self._layers = [
            RotaryLayer(checkpoint, number, names, config, self.storage)
            for number in range(config.num_layers)
        ]

    def _embed(
        self,
        ids: Int64Array,
        types: Int64Array | None,
        sequences: Ragged,
        steps: Steps,
    ) -> Workspace:
        work = RotaryWorkspace(ids.size, self.config, number_dtype(self.storage), sequences)
        np.take(self._word, ids, axis=0, out=work.x, mode="clip")
        if self._type is not None:
            work.x += self._type[0] if types is None else self._type[types]
        self._norm.add_to(steps, work.x, out=work.x)
        return work

    def _finish(self, work: Workspace, steps: Steps) -> None:
        if self._final_norm is not None:
            self._final_norm.add_to(steps, work.x, out=work.x)


def read_rope(
    settings: Settings, values: Mapping[str, Any], head_size: int, layer_type: str | None = None
) -> Rope:
    """Return the rotary positions that a config.json's settings describe.

    Raises
    ------
    ValueError
        If they cannot be told, are not those of whole heads, or depend on the length of a text.
    """
    settings.one_of("head_dim", (head_size,), head_size)
    for name in ("rope_parameters", "rope_scaling"):
        settings.part(name)  # which must be an object
    try:
        with np.errstate(over="raise", divide="raise", invalid="raise"):
            rope = Rope.from_config({**values, "head_dim": head_size}, layer_type=layer_type)
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise ValueError(f"{settings.path}: {error}") from None
    if rope.dim != head_size:
        raise ValueError(
            f"{settings.path}: partial_rotary_factor is not supported: by it {rope.dim} of "
            f"{head_size} elements of a head turn"
        )
    if rope.depends_on_length:
        raise ValueError(
            f"{settings.path}: rotary positions that depend on the length of a text (dynamic, "
            "longrope) are not supported for encoders"
        )
    return rope
