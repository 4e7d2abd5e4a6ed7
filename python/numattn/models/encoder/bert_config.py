"""The config.json of a BERT-family folder, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..files.activations import ACTIVATIONS, Activation
from ..files.model_config import read_model_config

# Families of the same layers and tensor names → what the names of their classes in transformers
# begin with. Position i has row 0 + i of the table in BERT; in the others, row pad_token_id + 1 + i
# (Liu et al., RoBERTa, 2019, as published).
ROBERTA_TYPES = {"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}
FAMILIES = {"bert": "Bert", **ROBERTA_TYPES}


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
        settings, family = read_model_config(path, FAMILIES)
        settings.one_of("position_embedding_type", ("absolute",), "absolute")
        for name in ("is_decoder", "add_cross_attention"):
            settings.one_of(name, (False,), False)
        roberta = family in ROBERTA_TYPES
        pad_token_id = settings.whole("pad_token_id", 0, 1 if roberta else 0)
        config = cls(
            vocab_size=settings.size("vocab_size"),
            hidden_size=settings.size("hidden_size"),
            num_layers=settings.size("num_hidden_layers"),
            num_heads=settings.size("num_attention_heads"),
            ffn_size=settings.size("intermediate_size"),
            position_rows=settings.size("max_position_embeddings"),
            position_offset=pad_token_id + 1 if roberta else 0,
            type_vocab_size=settings.size("type_vocab_size"),
            pad_token_id=pad_token_id,
            activation=ACTIVATIONS[settings.one_of("hidden_act", ACTIVATIONS, "gelu")],
            layer_norm_eps=settings.number("layer_norm_eps", 1e-12),
        )
        if config.hidden_size % config.num_heads != 0:
            raise ValueError(
                f"{path}: hidden_size {config.hidden_size} does not divide into "
                f"{config.num_heads} heads"
            )
        if config.pad_token_id >= config.vocab_size:
            raise ValueError(
                f"{path}: pad_token_id {config.pad_token_id} is outside the vocabulary"
            )
        if config.max_positions < 1:
            raise ValueError(f"{path}: max_position_embeddings leaves no position")
        return config
