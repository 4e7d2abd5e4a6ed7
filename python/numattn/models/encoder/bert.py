"""A BERT-family encoder on numattn's public API; no deep-learning framework is involved.

    x = norm(word[token] + position[p] + type[t])
    for each layer: x = layer(x)                     bert_layer.py

(Devlin et al., BERT, 2018.)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from numattn import Linear
from numattn._aligned import empty
from numattn._steps import Steps

from ..arrays import Float32Array, Int64Array
from ..files.checkpoint import Checkpoint
from ..files.storage import number_dtype
from ..ragged import Ragged
from .bert_config import FAMILIES, BertConfig
from .bert_layer import BERT_LAYER, Layer, LayerNames, Workspace
from .encoder import Encoder
from .parts import read_linear, read_norm

# Tensors that are no part of the encoder: indices that are counted anew, the layer over [CLS] that
# no vector here passes through, and what a folder trained for a task has on top.
IGNORED = (
    r"(.*\.)?embeddings\.(position_ids|token_type_ids)"
    r"|(.*\.)?pooler\.dense\.(weight|bias)"
    r"|(cls|lm_head|classifier|qa_outputs)\..*"
)


class Bert(Encoder):
    """A BERT-family encoder: BERT, RoBERTa and what shares their layers (MiniLM, BGE, E5 …).

    Made by `Bert.from_folder`. Any number of threads may call one model at once.

    Attributes
    ----------
    config : BertConfig
        Sizes and choices.
    tokenizer : tokenizers.Tokenizer
        Texts → token ids. It cuts a text to `max_tokens` tokens. Where the folder has none, asking
        for it is a FileNotFoundError.
    dtype : numpy.dtype
        What the weights of the layers are stored in: float32, bfloat16 or int8.
    storage : str
        The same by its name, which tells "w8a8" from "int8" (see :class:`numattn.Linear`).
    prompt : str
        What `encode` puts before every text: the folder's default prompt, "" in most.

    Examples
    --------
    >>> from numattn.models import Bert, installed_folder
    >>> model = Bert.from_folder(installed_folder())
    >>> cat, kitten, shares = model.encode(["A cat sleeps.", "A kitten naps.", "Shares fell."])
    >>> bool(cat @ kitten > 0.5 > 0.2 > cat @ shares)
    True
    """

    FAMILIES: ClassVar[Mapping[str, str]] = FAMILIES
    ANCHOR: ClassVar[str] = "embeddings.word_embeddings.weight"
    IGNORED: ClassVar[str] = IGNORED
    LAYERS: ClassVar[str] = "encoder.layer"
    LAYER: ClassVar[LayerNames] = BERT_LAYER
    PROJECTION: ClassVar[str] = ""
    """What brings the embeddings to the width of the layers; "" for nothing."""
    ALWAYS_PROJECTED: ClassVar[bool] = False  # also where they have that width

    config: BertConfig

    @classmethod
    def read_config(cls, path: Path) -> BertConfig:
        """Read a config.json."""
        return BertConfig.from_file(path)

    def _read(self, checkpoint: Checkpoint) -> None:
        config, width = self.config, self.config.embedding_size
        self._word = checkpoint.take(
            "embeddings.word_embeddings.weight", (config.vocab_size, width)
        )
        self._position = checkpoint.take(
            "embeddings.position_embeddings.weight", (config.position_rows, width)
        )
        self._type: Float32Array | None = None
        if config.type_vocab_size:
            self._type = checkpoint.take(
                "embeddings.token_type_embeddings.weight", (config.type_vocab_size, width)
            )
        self._norm = read_norm(checkpoint, "embeddings.LayerNorm", width, config.layer_norm_eps)
        self._projection: Linear | None = None
        if self.PROJECTION and (self.ALWAYS_PROJECTED or width != config.hidden_size):
            self._projection = read_linear(
                checkpoint, [self.PROJECTION], config.hidden_size, width, self.storage
            )
        self._layers = self._read_layers(checkpoint)

    def _read_layers(self, checkpoint: Checkpoint) -> list[Layer]:
        """Return the layers in their order."""
        count = self.config.num_layers
        checkpoint.check_layers(self.LAYERS, count, "num_hidden_layers")
        return [self._read_layer(checkpoint, f"{self.LAYERS}.{index}") for index in range(count)]

    def _read_layer(self, checkpoint: Checkpoint, name: str) -> Layer:
        return Layer(checkpoint, name, self.LAYER, self.config, self.storage)

    def _embed(
        self,
        ids: Int64Array,
        types: Int64Array | None,
        sequences: Ragged,
        steps: Steps,
    ) -> Workspace:
        """Return the activations of a call, with x to hold the embedded tokens (T,)."""
        work = Workspace(ids.size, self.config, number_dtype(self.storage))
        x = work.x
        if self._projection is not None:
            x = empty((ids.size, self.config.embedding_size), np.float32)
        # The ids are in range, and "clip" spares take() a buffered copy of the result.
        np.take(self._word, ids, axis=0, out=x, mode="clip")
        if self._type is not None:
            x += self._type[0] if types is None else self._type[types]
        x += self._position[self._position_rows(ids, sequences)]
        self._norm.add_to(steps, x, out=x)
        if self._projection is not None:
            steps.linear(self._projection, x, out=work.x)
        return work

    def _position_rows(self, ids: Int64Array, sequences: Ragged) -> Int64Array:
        """Return which row of the positions' table each token has (T,).

        RoBERTa counts the tokens that are no padding token, wherever those stand, and a padding
        token has the row of its id.
        """
        offset, pad = self.config.position_offset, self.config.pad_token_id
        pads = ids == pad
        if offset == 0 or not pads.any():
            return sequences.positions() + offset
        before = np.concatenate([[0], np.cumsum(~pads)])  # of all tokens, how many are none
        first = np.repeat(before[sequences.starts[:-1]], sequences.lengths)
        return np.where(pads, pad, before[1:] - first + pad)
