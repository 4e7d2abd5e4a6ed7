"""ELECTRA's discriminator (or generator) without its head (Clark et al., 2020).

BERT whose tables may be narrower than its layers: a projection stands between.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from ..files.model_config import read_model_config
from .bert import IGNORED, Bert
from .bert_config import BertConfig, refuse_decoders
from .config import read_activation


class Electra(Bert):
    """An ELECTRA encoder. Made by `Electra.from_folder`; all else is as for `Bert`."""

    FAMILIES: ClassVar[Mapping[str, str]] = {"electra": "Electra"}
    IGNORED: ClassVar[str] = (
        IGNORED + r"|(discriminator|generator)_predictions\..*|generator_lm_head\..*"
    )
    PROJECTION: ClassVar[str] = "embeddings_project"

    @classmethod
    def read_config(cls, path: Path) -> BertConfig:
        """Read a config.json."""
        settings, family = read_model_config(path, cls.FAMILIES)
        refuse_decoders(settings)
        return BertConfig.of(
            settings,
            family,
            activation=read_activation(settings, "hidden_act", "gelu"),
            type_vocab_size=settings.size("type_vocab_size"),
            embedding_size=settings.size("embedding_size", 128),
        )
