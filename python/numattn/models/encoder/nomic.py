"""Nomic BERT (Nussbaum et al., 2024): BERT with rotary positions, SwiGLU, and no biases but norms'.

Its config.json and its tensors have names of their own in the files that Nomic publishes, and
transformers' in others; both are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from ..files.model_config import read_model_config
from ..files.settings import Settings
from .config import NAMES, read_activation, read_sizes
from .rotary import FREQUENCIES, RotaryEncoder, read_rope
from .rotary_layer import RotaryConfig, RotaryNames

PUBLISHED = RotaryNames(
    "encoder.layers", "attn.Wqkv", "attn.out_proj", "norm1", "mlp.fc12", "mlp.fc11", "mlp.fc2",
    "norm2",
)  # fmt: skip
PUBLISHED_NAMES = {
    **NAMES,
    "hidden_size": "n_embd",
    "num_layers": "n_layer",
    "num_heads": "n_head",
    "ffn_size": "n_inner",
    "max_positions": "n_positions",
}
# Settings of published files, each of which makes another model of it unless it is so.
FIXED = {
    "activation_function": "swiglu",
    **dict.fromkeys(
        (
            *("causal", "prenorm", "parallel_block", "use_rms_norm", "qkv_proj_bias"),
            *("mlp_fc1_bias", "mlp_fc2_bias", "rotary_emb_interleaved"),
            "scale_attn_by_inverse_layer_idx",
        ),
        False,
    ),
    "scale_attn_weights": True,
}
UNSET = ("rotary_emb_scale_base", "rotary_scaling_factor", "num_experts", "moe_every_n_layers")


class NomicBert(RotaryEncoder):
    """A Nomic BERT encoder. Made by `NomicBert.from_folder`; all else is as for `Bert`."""

    FAMILIES: ClassVar[Mapping[str, str]] = {"nomic_bert": "NomicBert"}
    ANCHOR: ClassVar[str] = "embeddings.word_embeddings.weight"
    IGNORED: ClassVar[str] = (
        r"(.*\.)?pooler\.dense\.(weight|bias)|(cls|classifier)\..*" + "|" + FREQUENCIES
    )
    LAYOUTS: ClassVar[tuple[RotaryNames, ...]] = (PUBLISHED,)
    NORMS: ClassVar[tuple[str, ...]] = ("emb_ln", "embeddings.LayerNorm")

    @classmethod
    def read_config(cls, path: Path) -> RotaryConfig:
        """Read a config.json."""
        settings, family = read_model_config(path, cls.FAMILIES)
        published = settings.get("n_embd") is not None
        sizes = read_sizes(settings, family, PUBLISHED_NAMES if published else NAMES)
        head_size = sizes["hidden_size"] // sizes["num_heads"]
        values = published_angles(settings) if published else settings.values
        if not published:
            if settings.part("rope_parameters").get("rope_theta") is None:
                values = {"rope_theta": 1000.0, **values}
        count = sizes["num_layers"]
        return RotaryConfig(
            **sizes,
            type_vocab_size=settings.whole("type_vocab_size", 0, 2),
            activation=read_activation(settings, "hidden_act", "silu"),
            layer_norm_eps=settings.number(
                "layer_norm_epsilon" if published else "layer_norm_eps", 1e-12
            ),
            ropes=(read_rope(settings, values, head_size),),
            kinds=(0,) * count,
            windows=(None,) * count,
            norm_first=False,
            norm_bias=True,
            attention_bias=False,
            gate_bias=False,
            down_bias=False,
        )


def published_angles(settings: Settings) -> dict[str, object]:
    """Return the rotary positions of a published file as transformers would write them."""
    for name, value in FIXED.items():
        settings.one_of(name, (value,), value)
    for name in UNSET:
        if settings.get(name):
            raise ValueError(f"{settings.path}: {name} {settings.get(name)!r} is not supported")
    if settings.number("rotary_emb_fraction", 1.0) != 1.0:
        raise ValueError(f"{settings.path}: rotary_emb_fraction other than 1 is not supported")
    return {"rope_theta": settings.number("rotary_emb_base", 10000.0)}
