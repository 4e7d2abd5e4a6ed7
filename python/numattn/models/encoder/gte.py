"""GTE of the second generation (Zhang et al., mGTE, 2024): BERT with rotary positions and GeGLU.

(GTE of the first generation is a BERT.) `model_type` "new", by which the same layers were first
published with code of their own, is not read: it scales angles by that code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from ..files.model_config import read_model_config
from .config import read_activation, read_sizes
from .rotary import FREQUENCIES, RotaryEncoder, read_rope
from .rotary_layer import RotaryConfig, RotaryNames

GTE_LAYER = RotaryNames(
    "encoder.layer", "attention.qkv_proj", "attention.o_proj", "attn_ln", "mlp.up_gate_proj",
    "mlp.up_gate_proj", "mlp.down_proj", "mlp_ln", gate_first=False,
)  # fmt: skip


class Gte(RotaryEncoder):
    """A GTE encoder. Made by `Gte.from_folder`; all else is as for `Bert`."""

    FAMILIES: ClassVar[Mapping[str, str]] = {"gte": "Gte"}
    ANCHOR: ClassVar[str] = "embeddings.word_embeddings.weight"
    IGNORED: ClassVar[str] = (
        r"(.*\.)?pooler\.dense\.(weight|bias)|(lm_head|classifier)\..*" + "|" + FREQUENCIES
    )
    LAYOUTS: ClassVar[tuple[RotaryNames, ...]] = (GTE_LAYER,)

    @classmethod
    def read_config(cls, path: Path) -> RotaryConfig:
        """Read a config.json."""
        settings, family = read_model_config(path, cls.FAMILIES)
        sizes = read_sizes(settings, family)
        head_size = sizes["hidden_size"] // sizes["num_heads"]
        values = dict(settings.values)
        if settings.part("rope_parameters").get("rope_theta") is None:
            values.setdefault("rope_theta", 160000.0)
        count = sizes["num_layers"]
        return RotaryConfig(
            **sizes,
            type_vocab_size=settings.whole("type_vocab_size", 0, 1),
            activation=read_activation(settings, "hidden_act", "gelu"),
            layer_norm_eps=settings.number("layer_norm_eps", 1e-12),
            ropes=(read_rope(settings, values, head_size),),
            kinds=(0,) * count,
            windows=(None,) * count,
            norm_first=False,
            norm_bias=True,
            attention_bias=True,
            gate_bias=False,
            down_bias=True,
        )
