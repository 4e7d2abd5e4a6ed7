"""The config.json of a BERT-family folder, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..files.model_config import read_model_config
from ..files.settings import Settings
from .config import NAMES, EncoderConfig, read_activation, read_sizes

# Families of the same layers and tensor names → what the names of their classes in transformers
# begin with. Position i has row 0 + i of the table in BERT; in the others, row pad_token_id + 1 + i
# (Liu et al., RoBERTa, 2019, as published).
ROBERTA_TYPES = {"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}
FAMILIES = {"bert": "Bert", **ROBERTA_TYPES}

C = TypeVar("C", bound="BertConfig")


@dataclass(frozen=True)
class BertConfig(EncoderConfig):
    """Sizes and choices of a BERT-family encoder."""

    position_offset: int
    """The row of the positions' table that the first token has."""
    pad_token_id: int
    embedding_size: int
    """E of the tables, which a projection brings to hidden_size where they differ."""

    @property
    def position_rows(self) -> int:
        """Return the rows of the positions' table."""
        return self.max_positions + self.position_offset

    @classmethod
    def from_file(cls, path: Path) -> BertConfig:
        """Read a config.json of BERT or RoBERTa.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not JSON, lacks a size, or asks for something that is not supported.
        """
        settings, family = read_model_config(path, FAMILIES)
        refuse_decoders(settings)
        roberta = family in ROBERTA_TYPES
        pad_token_id = settings.whole("pad_token_id", 0, 1 if roberta else 0)
        return cls.of(
            settings,
            family,
            activation=read_activation(settings, "hidden_act", "gelu"),
            type_vocab_size=settings.size("type_vocab_size"),
            pad_token_id=pad_token_id,
            position_offset=pad_token_id + 1 if roberta else 0,
        )

    @classmethod
    def of(
        cls: type[C],
        settings: Settings,
        family: str,
        names: Mapping[str, str] = NAMES,
        *,
        position_offset: int = 0,
        pad_token_id: int | None = None,
        **given: Any,
    ) -> C:
        """Return what settings say, beside what is given.

        Parameters
        ----------
        settings : Settings
            Of a config.json.
        family : str
            Its model_type.
        names : mapping of str to str
            What sizes are called there, as in config.NAMES.
        position_offset : int
            Rows before that of the first position.
        pad_token_id : int, optional
            By default that of the settings, or 0.
        **given
            The other fields.
        """
        sizes = read_sizes(settings, family, names)
        sizes["max_positions"] -= position_offset
        pad = settings.whole("pad_token_id", 0, 0) if pad_token_id is None else pad_token_id
        if pad >= sizes["vocab_size"]:
            raise ValueError(f"{settings.path}: pad_token_id {pad} is outside the vocabulary")
        if sizes["max_positions"] < 1:
            raise ValueError(f"{settings.path}: max_position_embeddings leaves no position")
        given.setdefault("embedding_size", sizes["hidden_size"])
        given.setdefault("layer_norm_eps", settings.number("layer_norm_eps", 1e-12))
        return cls(**sizes, position_offset=position_offset, pad_token_id=pad, **given)


def refuse_decoders(settings: Settings) -> None:
    """Raise ValueError for settings that make something else than an encoder of positions."""
    settings.one_of("position_embedding_type", ("absolute",), "absolute")
    for name in ("is_decoder", "add_cross_attention"):
        settings.one_of(name, (False,), False)
