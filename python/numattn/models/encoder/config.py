"""Sizes and choices that all encoders have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..files.activations import ACTIVATIONS, Activation
from ..files.settings import Settings


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and choices of an encoder."""

    family: str
    """model_type of config.json."""
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    ffn_size: int
    max_positions: int
    """The greatest number of tokens in a sequence."""
    type_vocab_size: int
    """How many types of tokens there are; 0 where tokens have none."""
    activation: Activation
    layer_norm_eps: float

    @property
    def head_size(self) -> int:
        """Return D, hidden_size / num_heads."""
        return self.hidden_size // self.num_heads


# A size → what most families call it.
NAMES = {
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "ffn_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
}


def read_sizes(settings: Settings, family: str, names: Mapping[str, str] = NAMES) -> dict[str, Any]:
    """Return the family and sizes of an encoder, the latter under whichever names.

    Raises
    ------
    ValueError
        If one is missing or none, or heads do not divide the hidden size.
    """
    sizes = {size: settings.size(name) for size, name in {**NAMES, **names}.items()}
    if sizes["hidden_size"] % sizes["num_heads"] != 0:
        raise ValueError(
            f"{settings.path}: {names['hidden_size']} {sizes['hidden_size']} does not divide into "
            f"{sizes['num_heads']} heads"
        )
    return {"family": family, "vocab_size": settings.size("vocab_size"), **sizes}


def read_activation(settings: Settings, name: str, usual: str) -> Activation:
    """Return the activation of a setting."""
    return ACTIVATIONS[settings.one_of(name, ACTIVATIONS, usual)]
