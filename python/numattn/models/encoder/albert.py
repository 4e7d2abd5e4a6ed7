"""ALBERT: BERT whose layers share their weights, with narrow tables (Lan et al., 2020).

Layer i is one of a few groups, each of `inner_group_num` layers that follow one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..files.checkpoint import Checkpoint
from ..files.model_config import read_model_config
from .bert import IGNORED, Bert
from .bert_config import BertConfig, refuse_decoders
from .bert_layer import Layer, LayerNames
from .config import read_activation

ALBERT_LAYER = LayerNames(
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.dense",
    "attention.LayerNorm",
    "ffn",
    "ffn_output",
    "full_layer_layer_norm",
)
GROUPS = "encoder.albert_layer_groups"


@dataclass(frozen=True)
class AlbertConfig(BertConfig):
    """Sizes and choices of an ALBERT. `num_layers` counts groups as they are gone through."""

    num_groups: int
    layers_of_group: int


class Albert(Bert):
    """An ALBERT encoder. Made by `Albert.from_folder`; all else is as for `Bert`."""

    FAMILIES: ClassVar[Mapping[str, str]] = {"albert": "Albert"}
    IGNORED: ClassVar[str] = (
        IGNORED + r"|(.*\.)?pooler\.(weight|bias)|(predictions|sop_classifier)\..*"
    )
    LAYER: ClassVar[LayerNames] = ALBERT_LAYER
    PROJECTION: ClassVar[str] = "encoder.embedding_hidden_mapping_in"
    ALWAYS_PROJECTED: ClassVar[bool] = True

    config: AlbertConfig

    @classmethod
    def read_config(cls, path: Path) -> AlbertConfig:
        """Read a config.json."""
        settings, family = read_model_config(path, cls.FAMILIES)
        refuse_decoders(settings)
        groups = settings.size("num_hidden_groups", 1)
        if groups > settings.size("num_hidden_layers"):
            raise ValueError(f"{path}: num_hidden_groups {groups} is more than there are layers")
        return AlbertConfig.of(
            settings,
            family,
            activation=read_activation(settings, "hidden_act", "gelu_new"),
            type_vocab_size=settings.size("type_vocab_size"),
            embedding_size=settings.size("embedding_size", 128),
            num_groups=groups,
            layers_of_group=settings.size("inner_group_num", 1),
        )

    def _read_layers(self, checkpoint: Checkpoint) -> list[Layer]:
        config = self.config
        count = config.layers_of_group
        checkpoint.check_layers(GROUPS, config.num_groups, "num_hidden_groups")
        groups = []
        for group in range(config.num_groups):
            stem = f"{GROUPS}.{group}.albert_layers"
            checkpoint.check_layers(stem, count, "inner_group_num")
            groups.append(
                [self._read_layer(checkpoint, f"{stem}.{index}") for index in range(count)]
            )
        chosen = [
            int(index / (config.num_layers / config.num_groups))
            for index in range(config.num_layers)
        ]
        return [layer for group in chosen for layer in groups[group]]
