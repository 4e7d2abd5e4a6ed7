"""Activations by the names that config.json has for them."""

from __future__ import annotations

from typing import Literal, TypeAlias

Activation: TypeAlias = Literal["relu", "gelu", "gelu_tanh", "silu"]

# Hugging Face's name of an activation → ours.
ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
