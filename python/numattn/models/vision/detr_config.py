"""The config.json of a DETR, checked: its transformer, and the ResNet before it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..files.activations import ACTIVATIONS
from ..files.model_config import read_model_config
from ..files.settings import Settings, shown
from .labels import read_labels
from .tower_config import TowerConfig

FAMILIES = {"detr": "Detr"}

# timm's names of ResNets → blocks of each stage.
DEPTHS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}
BASIC = ("resnet18", "resnet34")


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes and choices of a ResNet."""

    first: int
    """Channels after the first convolution."""
    widths: tuple[int, ...]
    """Channels after each stage."""
    depths: tuple[int, ...]
    """Blocks of each stage."""
    bottleneck: bool
    """Whether a block has three convolutions, the middle one narrow, or two."""
    timm: bool
    """Whether tensors have timm's names, or those of transformers."""


@dataclass(frozen=True)
class DetrConfig:
    """Sizes and choices of a DETR."""

    backbone: ResNetConfig
    encoder: TowerConfig
    decoder: TowerConfig
    num_queries: int
    labels: list[str]

    @property
    def width(self) -> int:
        """Return E, the width of hidden states."""
        return self.encoder.hidden_size

    @classmethod
    def from_file(cls, path: Path) -> DetrConfig:
        """Read a config.json.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not JSON, or asks for something that is not supported.
        """
        settings, _ = read_model_config(path, FAMILIES)
        settings.one_of("num_channels", (3,), 3)
        settings.one_of("dilation", (False,), False)
        settings.one_of("position_embedding_type", ("sine",), "sine")
        encoder = read_half(settings, "encoder")
        if encoder.hidden_size % 4 != 0:
            raise ValueError(f"{path}: d_model {encoder.hidden_size} must be a multiple of 4")
        return cls(
            backbone=read_backbone(settings),
            encoder=encoder,
            decoder=read_half(settings, "decoder"),
            num_queries=settings.size("num_queries", 100),
            labels=read_labels(settings),
        )


def read_half(settings: Settings, half: str) -> TowerConfig:
    """Return the sizes of the "encoder" or the "decoder"."""
    width = settings.size("d_model", 256)
    heads = settings.size(f"{half}_attention_heads", 8)
    if width % heads != 0:
        raise ValueError(f"{settings.path}: d_model {width} does not divide into {heads} heads")
    name = settings.one_of("activation_function", ACTIVATIONS, "relu")
    return TowerConfig(
        hidden_size=width,
        num_layers=settings.size(f"{half}_layers", 6),
        num_heads=heads,
        ffn_size=settings.size(f"{half}_ffn_dim", 2048),
        activation=ACTIVATIONS[name],
        activation_scale=1.0,
        layer_norm_eps=1e-5,
        qkv_bias=True,
        layer_scale=False,
        gated=False,
    )


def read_backbone(settings: Settings) -> ResNetConfig:
    """Return the ResNet, which is timm's unless backbone_config says otherwise."""
    own = settings.part("backbone_config")
    if own.get("model_type", "timm_backbone") == "timm_backbone":
        for part in (own, settings.part("backbone_kwargs")):
            if part.get("output_stride", 32) != 32:
                raise ValueError(
                    f"{settings.path}: output_stride {shown(part.get('output_stride'))} is not "
                    "supported"
                )
        holder = own if own.get("backbone") is not None else settings
        name = holder.one_of("backbone", DEPTHS, "resnet50")
        wide = 1 if name in BASIC else 4
        widths = tuple(wide * each for each in (64, 128, 256, 512))
        return ResNetConfig(64, widths, DEPTHS[name], name not in BASIC, timm=True)
    own.one_of("model_type", ("resnet",))
    own.one_of("hidden_act", ("relu",), "relu")
    for name in ("downsample_in_bottleneck", "downsample_in_first_stage"):
        own.one_of(name, (False,), False)
    widths = read_sizes(own, "hidden_sizes", [256, 512, 1024, 2048])
    depths = read_sizes(own, "depths", [3, 4, 6, 3])
    last = f"stage{len(depths)}"
    features = own.get("out_features", [last])
    if len(widths) != len(depths) or not isinstance(features, list) or features[-1:] != [last]:
        raise ValueError(
            f"{settings.path}: hidden_sizes, depths and out_features of backbone_config must end "
            "with the same stage"
        )
    kind = own.one_of("layer_type", ("bottleneck", "basic"), "bottleneck")
    first = own.size("embedding_size", 64)
    return ResNetConfig(first, widths, depths, kind == "bottleneck", timm=False)


def read_sizes(settings: Settings, name: str, default: list[int]) -> tuple[int, ...]:
    """Return a list of positive whole numbers."""
    value = settings.get(name, default)
    if not isinstance(value, list) or not value:
        raise ValueError(f"{settings.path}: {name} must be a list of sizes, not {shown(value)}")
    each = Settings({str(place): size for place, size in enumerate(value)}, settings.path)
    return tuple(each.size(str(place)) for place in range(len(value)))
