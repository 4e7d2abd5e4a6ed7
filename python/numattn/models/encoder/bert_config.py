"""The config.json of a BERT-family folder, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files.activations import ACTIVATIONS, Activation
from ..files.checkpoint import read_json_object

# Families of the same layers and tensor names. Position i has row 0 + i of the table in the first
# group; in the second, row pad_token_id + 1 + i (Liu et al., RoBERTa, 2019, as published).
BERT_TYPES = ("bert",)
ROBERTA_TYPES = ("roberta", "xlm-roberta", "camembert")


@dataclass(frozen=True)
class BertConfig:
    """Sizes and choices of a BERT-family encoder."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    ffn_size: int
    position_rows: int
    position_offset: int
    type_vocab_size: int
    pad_token_id: int
    activation: Activation
    layer_norm_eps: float

    @property
    def head_size(self) -> int:
        """Return D, hidden_size / num_heads."""
        return self.hidden_size // self.num_heads

    @property
    def max_positions(self) -> int:
        """Return the greatest number of tokens in a sequence."""
        return self.position_rows - self.position_offset

    @classmethod
    def from_file(cls, path: Path) -> BertConfig:
        """Read a config.json.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not JSON, lacks a size, or asks for something that is not supported.
        """
        settings = read_json_object(path)
        check_supported(settings, path)
        roberta = settings["model_type"] in ROBERTA_TYPES
        pad_token_id = settings.get("pad_token_id")
        if pad_token_id is None:
            pad_token_id = 1 if roberta else 0
        config = cls(
            vocab_size=size(settings, "vocab_size", path),
            hidden_size=size(settings, "hidden_size", path),
            num_layers=size(settings, "num_hidden_layers", path),
            num_heads=size(settings, "num_attention_heads", path),
            ffn_size=size(settings, "intermediate_size", path),
            position_rows=size(settings, "max_position_embeddings", path),
            position_offset=pad_token_id + 1 if roberta else 0,
            type_vocab_size=size(settings, "type_vocab_size", path),
            pad_token_id=pad_token_id,
            activation=ACTIVATIONS[settings.get("hidden_act", "gelu")],
            layer_norm_eps=float(settings.get("layer_norm_eps", 1e-12)),
        )
        if config.hidden_size % config.num_heads != 0:
            raise ValueError(
                f"{path}: hidden_size {config.hidden_size} does not divide into "
                f"{config.num_heads} heads"
            )
        if not 0 <= config.pad_token_id < config.vocab_size:
            raise ValueError(
                f"{path}: pad_token_id {config.pad_token_id} is outside the vocabulary"
            )
        if config.max_positions < 1:
            raise ValueError(f"{path}: max_position_embeddings leaves no position")
        return config


def size(settings: Mapping[str, Any], name: str, path: Path) -> int:
    """Return a positive whole number of the settings."""
    if name not in settings:
        raise ValueError(f"{path} has no {name}")
    value = settings[name]
    if type(value) is not int or value < 1:
        raise ValueError(f"{path}: {name} must be a positive whole number, not {value!r}")
    return value


def check_supported(settings: Mapping[str, Any], path: Path) -> None:
    """Raise ValueError for a setting that this encoder does not carry out."""
    supported: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "model_type": (None, BERT_TYPES + ROBERTA_TYPES),
        "position_embedding_type": ("absolute", ("absolute",)),
        "hidden_act": ("gelu", tuple(ACTIVATIONS)),
        "is_decoder": (False, (False,)),
    }
    for name, (default, choices) in supported.items():
        value = settings.get(name, default)
        if value not in choices:
            raise ValueError(f"{path}: {name} {value!r} is not supported; supported: {[*choices]}")
    pad_token_id = settings.get("pad_token_id")
    if pad_token_id is not None and type(pad_token_id) is not int:
        raise ValueError(f"{path}: pad_token_id must be a whole number, not {pad_token_id!r}")
