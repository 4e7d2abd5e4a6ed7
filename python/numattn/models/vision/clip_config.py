"""The config.json of a CLIP or SigLIP, checked, and what its tensors are called."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

from ..files.model_config import read_model_config
from ..files.settings import Settings
from .patches import PatchConfig, read_patches
from .tower_config import TowerConfig, read_tower
from .tower_layer import LayerNames

ANCHOR = "vision_model.embeddings.patch_embedding.weight"
# Families → what the names of their classes in transformers begin with.
FAMILIES = {"clip": "CLIP", "siglip": "Siglip", "siglip2": "Siglip2"}

# What transformers' classes take where the file is silent: published files say only what differs.
TEXT: dict[str, dict[str, Any]] = {
    "clip": {
        "hidden_size": 512,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "intermediate_size": 2048,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
    },
    "siglip": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "vocab_size": 32000,
        "max_position_embeddings": 64,
    },
}
VISION: dict[str, dict[str, Any]] = {
    "clip": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "patch_size": 32,
    },
    "siglip": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "patch_size": 16,
    },
}

TEXT["siglip2"], VISION["siglip2"] = TEXT["siglip"], VISION["siglip"]


def layer_names(tower: str) -> LayerNames:
    """Return what the parts of a layer are called in "text_model" or "vision_model"."""
    return LayerNames(
        stem=f"{tower}.encoder.layers",
        qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        output="self_attn.out_proj",
        norm1="layer_norm1",
        norm2="layer_norm2",
        up="mlp.fc1",
        down="mlp.fc2",
    )


@dataclass(frozen=True)
class ClipConfig:
    """Sizes and choices of a CLIP or SigLIP."""

    model_type: str
    text: TowerConfig
    vision: TowerConfig
    patches: PatchConfig
    vocab_size: int
    max_positions: int
    """The most tokens that a text may have."""
    eos_token_id: int
    """In CLIP: the token whose hidden state stands for the text."""
    pad_token_id: int
    """In SigLIP: what every text is filled up with, which the model reads like any token, where
    tokenizer_config.json does not name another."""
    vector_size: int
    """Of an image's vector, and of a text's."""

    @property
    def is_siglip(self) -> bool:
        """Return whether it is a SigLIP, of whichever kind."""
        return self.model_type != "clip"

    @property
    def of_any_size(self) -> bool:
        """Return whether images keep their proportions: a SigLIP 2 (NaFlex)."""
        return self.model_type == "siglip2"

    @classmethod
    def from_file(cls, path: Path, *, pooled: bool = True) -> ClipConfig:
        """Read a config.json; `pooled` says whether vectors are wanted of images.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not JSON, or asks for something that is not supported.
        """
        settings, family = read_model_config(path, FAMILIES)
        text, vision = part(settings, "text_config"), part(settings, "vision_config")
        for each in (text, vision):
            each.one_of("model_type", (*kinds(family),), kinds(family)[0])
        defaults = TEXT[family]
        if pooled:
            vision.one_of("vision_use_head", (True,), True)
        image_tower = read_tower(vision, VISION[family])
        if family == "clip":
            size = settings.size("projection_dim", 512)
        else:
            size = image_tower.hidden_size
            text.one_of("projection_size", (size,), size)
        return cls(
            model_type=family,
            text=read_tower(text, defaults),
            vision=image_tower,
            patches=read_square(vision)
            if family == "siglip2"
            else read_patches(vision, 224, VISION[family]["patch_size"]),
            vocab_size=text.size("vocab_size", defaults["vocab_size"]),
            max_positions=text.size("max_position_embeddings", defaults["max_position_embeddings"]),
            eos_token_id=text.whole("eos_token_id", 0, 49407),
            pad_token_id=text.whole("pad_token_id", 0, 1),
            vector_size=size,
        )


def read_square(settings: Settings) -> PatchConfig:
    """Return how SigLIP 2 cuts images: the square of patches that its positions are of."""
    edge, patch = isqrt(settings.size("num_patches", 256)), settings.size("patch_size", 16)
    settings.one_of("num_patches", (edge * edge,), 256)
    return PatchConfig(
        settings.one_of("num_channels", (3, 1), 3), (edge * patch,) * 2, (patch,) * 2
    )


def part(settings: Settings, name: str) -> Settings:
    """Return one of the two parts; files of old have a second object, which then counts."""
    former = f"{name}_dict"
    return settings.part(former if settings.get(former) is not None else name)


def kinds(family: str) -> tuple[str, ...]:
    """Return what a part may say that it is."""
    return (family, f"{family}_text_model", f"{family}_vision_model")
