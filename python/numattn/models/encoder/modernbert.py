"""ModernBERT (Warner et al., 2024).

Norms come first and have no bias. Every third layer sees all of a text, the others
`local_attention // 2` tokens to both sides, and the two kinds turn by different angles.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from ..files.model_config import read_model_config
from ..files.settings import Settings, shown
from .config import read_activation, read_sizes
from .rotary import FREQUENCIES, RotaryEncoder, read_rope
from .rotary_layer import RotaryConfig, RotaryNames

FULL, SLIDING = "full_attention", "sliding_attention"
MODERNBERT_LAYER = RotaryNames(
    "layers", "attn.Wqkv", "attn.Wo", "attn_norm", "mlp.Wi", "mlp.Wi", "mlp.Wo", "mlp_norm"
)


class ModernBert(RotaryEncoder):
    """A ModernBERT encoder. Made by `ModernBert.from_folder`; all else is as for `Bert`."""

    FAMILIES: ClassVar[Mapping[str, str]] = {"modernbert": "ModernBert"}
    ANCHOR: ClassVar[str] = "embeddings.tok_embeddings.weight"
    IGNORED: ClassVar[str] = r"(head|classifier|decoder)\..*|" + FREQUENCIES
    LAYOUTS: ClassVar[tuple[RotaryNames, ...]] = (MODERNBERT_LAYER,)
    WORD: ClassVar[str] = "embeddings.tok_embeddings.weight"
    NORMS: ClassVar[tuple[str, ...]] = ("embeddings.norm",)
    FINAL_NORM: ClassVar[str] = "final_norm"

    @classmethod
    def read_config(cls, path: Path) -> RotaryConfig:
        """Read a config.json."""
        settings, family = read_model_config(path, cls.FAMILIES)
        sizes = read_sizes(settings, family)
        layers = read_layer_types(settings, sizes["num_layers"])
        window = settings.whole("local_attention", 0, 128) // 2
        head_size = sizes["hidden_size"] // sizes["num_heads"]
        mlp_bias = settings.flag("mlp_bias", False)
        return RotaryConfig(
            **sizes,
            type_vocab_size=0,
            activation=read_activation(settings, "hidden_activation", "gelu"),
            layer_norm_eps=settings.number("norm_eps", 1e-5),
            ropes=tuple(
                read_rope(settings, with_kinds(settings), head_size, kind)
                for kind in (FULL, SLIDING)
            ),
            kinds=tuple(int(kind == SLIDING) for kind in layers),
            windows=tuple(window if kind == SLIDING else None for kind in layers),
            norm_first=True,
            norm_bias=settings.flag("norm_bias", False),
            attention_bias=settings.flag("attention_bias", False),
            gate_bias=mlp_bias,
            down_bias=mlp_bias,
        )


def with_kinds(settings: Settings) -> dict[str, object]:
    """Return the settings, with angles for both kinds of layers where only some are given."""
    values = dict(settings.values)
    given = settings.part("rope_parameters").values
    if any(kind in given for kind in (FULL, SLIDING)):
        usual = {FULL: ("global_rope_theta", 160000.0), SLIDING: ("local_rope_theta", 10000.0)}
        parameters = {}
        for kind, (name, theta) in usual.items():
            own = settings.part("rope_parameters").part(kind).values
            parameters[kind] = {"rope_theta": settings.number(name, theta), **own}
        values["rope_parameters"] = parameters
        for name, _ in usual.values():
            values.pop(name, None)
    return values


def read_layer_types(settings: Settings, count: int) -> list[str]:
    """Return the kind of each layer."""
    kinds = settings.get("layer_types")
    if kinds is None:
        every = settings.size("global_attn_every_n_layers", 3)
        return [SLIDING if number % every else FULL for number in range(count)]
    if (
        not isinstance(kinds, list)
        or len(kinds) != count
        or any(kind not in (FULL, SLIDING) for kind in kinds)
    ):
        raise ValueError(
            f"{settings.path}: layer_types must be {count} of {FULL!r} and {SLIDING!r}, not "
            f"{shown(kinds)}"
        )
    return kinds
