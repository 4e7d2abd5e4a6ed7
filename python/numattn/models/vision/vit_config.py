"""The config.json of a ViT, DeiT or DINOv2, checked, and what its tensors are called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files.model_config import read_model_config
from .labels import read_labels, read_problem
from .patches import PatchConfig, read_patches
from .tower_config import TowerConfig, read_tower
from .tower_layer import LayerNames

# Families → what the names of their classes in transformers begin with.
DINO = {"dinov2": "Dinov2", "dinov2_with_registers": "Dinov2WithRegisters"}
FAMILIES = {"vit": "ViT", "deit": "DeiT", **DINO}

QKV = (
    "attention.attention.query",
    "attention.attention.key",
    "attention.attention.value",
)
VIT_NAMES = LayerNames(
    stem="encoder.layer",
    qkv=QKV,
    output="attention.output.dense",
    norm1="layernorm_before",
    norm2="layernorm_after",
    up="intermediate.dense",
    down="output.dense",
)
DINO_PARTS: dict[str, Any] = {
    "stem": "encoder.layer",
    "qkv": QKV,
    "output": "attention.output.dense",
    "norm1": "norm1",
    "norm2": "norm2",
    "scale1": "layer_scale1.lambda1",
    "scale2": "layer_scale2.lambda1",
}
DINO_NAMES = LayerNames(**DINO_PARTS, up="mlp.fc1", down="mlp.fc2")
SWIGLU_NAMES = LayerNames(**DINO_PARTS, up="mlp.weights_in", down="mlp.weights_out")

# What transformers' classes take where the file is silent.
VIT_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
DINO_DEFAULTS: dict[str, Any] = {**VIT_DEFAULTS, "layer_norm_eps": 1e-6}
PATCH_SIZES = {"vit": 16, "deit": 16, "dinov2": 14, "dinov2_with_registers": 16}


@dataclass(frozen=True)
class ViTConfig:
    """Sizes and choices of a ViT, DeiT or DINOv2."""

    model_type: str
    tower: TowerConfig
    patches: PatchConfig
    num_registers: int
    labels: list[str]
    """What a classifier's numbers mean."""
    multi_label: bool
    """Whether each label has a probability of its own."""

    @property
    def hidden_size(self) -> int:
        """Return the width of hidden states."""
        return self.tower.hidden_size

    @property
    def num_layers(self) -> int:
        """Return the number of layers."""
        return self.tower.num_layers

    @property
    def num_heads(self) -> int:
        """Return the heads of a layer."""
        return self.tower.num_heads

    @property
    def num_prefix(self) -> int:
        """Return the tokens that have a position before the patches: [CLS], DeiT's second."""
        return 2 if self.model_type == "deit" else 1

    @property
    def is_dino(self) -> bool:
        """Return whether it is a DINOv2."""
        return self.model_type in DINO

    @property
    def names(self) -> LayerNames:
        """Return what the parts of a layer are called."""
        if not self.is_dino:
            return VIT_NAMES
        return SWIGLU_NAMES if self.tower.gated else DINO_NAMES

    @classmethod
    def from_file(cls, path: Path) -> ViTConfig:
        """Read a config.json.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not JSON, or asks for something that is not supported.
        """
        settings, family = read_model_config(path, FAMILIES)
        dino = family in DINO
        registers = family == "dinov2_with_registers"
        patches = read_patches(settings, 224, PATCH_SIZES[family])
        if dino and patches.grid[0] != patches.grid[1]:
            raise ValueError(
                f"{path}: image_size {patches.image} and patch_size {patches.patch} make no "
                "square of patches, whose positions alone are resampled"
            )
        return cls(
            model_type=family,
            tower=read_tower(settings, DINO_DEFAULTS if dino else VIT_DEFAULTS, layer_scale=dino),
            patches=patches,
            num_registers=settings.whole("num_register_tokens", 0, 4) if registers else 0,
            labels=read_labels(settings),
            multi_label=read_problem(settings),
        )
