"""Sizes and choices of a tower of layers, and how a folder's config.json says them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..files.activations import ACTIVATIONS, Activation
from ..files.settings import Settings, shown

QUICK = "quick_gelu"


@dataclass(frozen=True)
class TowerConfig:
    """Sizes and choices of a tower: layers that normalise what they read."""

    hidden_size: int
    num_layers: int
    num_heads: int
    ffn_size: int
    activation: Activation
    activation_scale: float
    """c of ``activation(c·x) / c``: 1.702 for quick_gelu, which is silu(1.702·x) / 1.702."""
    layer_norm_eps: float
    qkv_bias: bool
    layer_scale: bool
    """Whether what a layer adds is multiplied, feature by feature, by numbers of its own."""
    gated: bool
    """Whether the feed-forward part is SwiGLU."""

    @property
    def head_size(self) -> int:
        """Return D, hidden_size / num_heads."""
        return self.hidden_size // self.num_heads


def read_tower(
    settings: Settings, defaults: dict[str, Any], *, layer_scale: bool = False
) -> TowerConfig:
    """Return the tower of an object of settings; `defaults` are what its class takes.

    Raises
    ------
    ValueError
        If a size is none, or an activation is not supported.
    """
    path = settings.path
    width = settings.size("hidden_size", defaults["hidden_size"])
    heads = settings.size("num_attention_heads", defaults["num_attention_heads"])
    if width % heads != 0:
        raise ValueError(f"{path}: hidden_size {width} does not divide into {heads} heads")
    settings.one_of("head_dim", (width // heads,), width // heads)
    name = settings.one_of("hidden_act", (*ACTIVATIONS, QUICK), defaults["hidden_act"])
    gated = layer_scale and settings.flag("use_swiglu_ffn", False)
    if layer_scale:  # DINOv2 says the width of its feed-forward part by a ratio
        ratio = settings.get("mlp_ratio", 4)
        if type(ratio) not in (int, float) or not 0 < ratio <= 64:
            raise ValueError(f"{path}: mlp_ratio must be a number of 0 … 64, not {shown(ratio)}")
        ffn_size = int(width * ratio)
        if gated:
            ffn_size = (int(ffn_size * 2 / 3) + 7) // 8 * 8
    else:
        ffn_size = settings.size("intermediate_size", defaults["intermediate_size"])
    return TowerConfig(
        hidden_size=width,
        num_layers=settings.size("num_hidden_layers", defaults["num_hidden_layers"]),
        num_heads=heads,
        ffn_size=ffn_size,
        activation="silu" if name == QUICK else ACTIVATIONS[name],
        activation_scale=1.702 if name == QUICK else 1.0,
        layer_norm_eps=settings.number("layer_norm_eps", defaults["layer_norm_eps"]),
        qkv_bias=settings.flag("qkv_bias", True),
        layer_scale=layer_scale,
        gated=gated,
    )
