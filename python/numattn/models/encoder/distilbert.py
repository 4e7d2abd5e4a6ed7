"""DistilBERT: BERT with half the layers, and no types of tokens (Sanh et al., 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from ..files.model_config import read_model_config
from .bert import Bert
from .bert_config import BertConfig
from .bert_layer import LayerNames
from .config import NAMES, read_activation

# A size → what config.json calls it.
DISTILBERT_NAMES = {
    **NAMES,
    "hidden_size": "dim",
    "num_layers": "n_layers",
    "num_heads": "n_heads",
    "ffn_size": "hidden_dim",
}
DISTILBERT_LAYER = LayerNames(
    "attention.q_lin",
    "attention.k_lin",
    "attention.v_lin",
    "attention.out_lin",
    "sa_layer_norm",
    "ffn.lin1",
    "ffn.lin2",
    "output_layer_norm",
)


class DistilBert(Bert):
    """A DistilBERT encoder. Made by `DistilBert.from_folder`; all else is as for `Bert`."""

    FAMILIES: ClassVar[Mapping[str, str]] = {"distilbert": "DistilBert"}
    IGNORED: ClassVar[str] = (
        r"(.*\.)?embeddings\.position_ids"
        r"|vocab_(transform|layer_norm|projector)\..*|(pre_)?classifier\..*|qa_outputs\..*"
    )
    LAYERS: ClassVar[str] = "transformer.layer"
    LAYER: ClassVar[LayerNames] = DISTILBERT_LAYER

    @classmethod
    def read_config(cls, path: Path) -> BertConfig:
        """Read a config.json."""
        settings, family = read_model_config(path, cls.FAMILIES)
        return BertConfig.of(
            settings,
            family,
            DISTILBERT_NAMES,
            activation=read_activation(settings, "activation", "gelu"),
            type_vocab_size=0,
            layer_norm_eps=1e-12,
        )
