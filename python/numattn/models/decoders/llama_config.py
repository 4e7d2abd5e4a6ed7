"""The config.json of Llama, Mistral, Qwen-2, Gemma-2 and Phi-3 folders: one set of choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from numattn.position import Rope

from ..files.activations import ACTIVATIONS, Activation
from ..files.model_config import read_model_config
from ..files.settings import Settings, shown
from .causal import refuse_bidirectional

# What is so in each family where its file leaves a setting out. One that is null is told: none.
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28},
    "gemma2": {
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window": 4096,
        "query_pre_attn_scalar": 256,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "tie_word_embeddings": True,
    },
    "phi3": {"rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096},
}
# What the names of each family's classes in transformers begin with.
CLASSES = {family: family.capitalize() for family in DEFAULTS}


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes and choices of a decoder of Llama's family."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    ffn_size: int
    activation: Activation
    norm_eps: float
    rope: Rope
    windows: tuple[int | None, ...]
    """For each layer, how many keys before its own a query sees; None for all."""
    scale: float
    """Of scores."""
    score_softcap: float | None
    logit_softcap: float | None
    qkv_bias: bool
    output_bias: bool
    ffn_bias: bool
    tied: bool
    """Whether logits are products with the embeddings."""
    gemma: bool
    """Norms after attention and MLP too, weights of norms less 1, and embeddings times sqrt(E)."""
    joined: bool
    """Phi-3: one tensor for Wq, Wk and Wv, and one for the two that make the inner states."""

    @property
    def max_positions(self) -> None:
        """Return None: positions are not learned."""
        return None

    @classmethod
    def from_file(cls, path: Path) -> LlamaConfig:
        """Read a config.json.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not JSON, lacks a size, or asks for something that is not supported.
        """
        given, family = read_model_config(path, CLASSES)
        settings = Settings({**DEFAULTS[family], **given.values}, path)
        refuse_bidirectional(settings)
        gemma = family == "gemma2"
        width, heads = settings.size("hidden_size"), settings.size("num_attention_heads")
        kv_heads = settings.size("num_key_value_heads", heads)
        if heads % kv_heads:
            raise ValueError(f"{path}: {heads} heads do not divide among {kv_heads} key heads")
        head_size = settings.size("head_dim", width // heads)
        # Other families' models do not look at these.
        attention_bias = family in ("llama", "gemma2") and settings.flag("attention_bias", False)
        ffn_bias = family == "llama" and settings.flag("mlp_bias", False)
        activation = "hidden_activation" if gemma else "hidden_act"
        return cls(
            vocab_size=settings.size("vocab_size"),
            hidden_size=width,
            num_layers=settings.size("num_hidden_layers"),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_size=head_size,
            ffn_size=settings.size("intermediate_size"),
            activation=ACTIVATIONS[
                settings.one_of(activation, ACTIVATIONS, "gelu_pytorch_tanh" if gemma else "silu")
            ],
            norm_eps=settings.number("rms_norm_eps", 1e-6),
            rope=read_rope(settings, family, head_size),
            windows=read_windows(settings, family),
            scale=(settings.number("query_pre_attn_scalar") if gemma else head_size) ** -0.5,
            score_softcap=settings.optional_number("attn_logit_softcapping") if gemma else None,
            logit_softcap=settings.optional_number("final_logit_softcapping") if gemma else None,
            qkv_bias=attention_bias or family == "qwen2",
            output_bias=attention_bias,
            ffn_bias=ffn_bias,
            tied=settings.flag("tie_word_embeddings", gemma),
            gemma=gemma,
            joined=family == "phi3",
        )


def read_rope(settings: Settings, family: str, head_size: int) -> Rope:
    """Return the rotary positions, in whichever of its ways the file describes them."""
    for name in ("rope_parameters", "rope_scaling"):
        settings.part(name)  # which must be an object
    values = {**settings.values, "head_dim": head_size}
    try:
        with np.errstate(over="raise", divide="raise", invalid="raise"):
            return make_rope(values, family, head_size)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{settings.path}: {error}") from None


def make_rope(values: dict[str, Any], family: str, head_size: int) -> Rope:
    """Return the rotary positions of a config.json's settings, or raise."""
    if family == "phi3":
        for name in ("rope_parameters", "rope_scaling"):
            values[name] = phi_scaling(values.get(name) or {})
    rope = Rope.from_config(values)
    if family != "phi3" and rope.dim != head_size:
        raise ValueError(
            f"partial_rotary_factor is not supported for {family}: by it {rope.dim} of "
            f"{head_size} elements of a head turn"
        )
    return rope


def phi_scaling(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scaling of Phi-3's, of which there is one kind, under several names."""
    scaling = {name: value for name, value in given.items() if name != "type"}
    kind = given.get("rope_type", given.get("type"))
    if kind is not None:
        if kind not in ("default", "longrope", "su", "yarn"):
            raise ValueError(f"rope_type {shown(kind)} is not supported for phi3: longrope is")
        scaling["rope_type"] = "default" if kind == "default" else "longrope"
    return scaling


def read_windows(settings: Settings, family: str) -> tuple[int | None, ...]:
    """Return how many keys before its own a query of each layer sees.

    A sliding_window of W counts the query's own key, and so reaches W − 1 back. Which layers have
    it is said by layer_types; in files without that, every layer of Mistral and Phi-3, every other
    one of Gemma-2 from the first on, and those of Qwen-2 from max_window_layers on.
    """
    layers = settings.size("num_hidden_layers")
    size = settings.optional_size("sliding_window")
    if family == "llama" or (family == "qwen2" and not settings.flag("use_sliding_window", False)):
        size = None
    kinds = settings.get("layer_types")
    if kinds is not None:
        known = {"sliding_attention": True, "full_attention": False}
        if not isinstance(kinds, list) or len(kinds) != layers or not set(kinds) <= set(known):
            raise ValueError(
                f"{settings.path}: layer_types must name one of {[*known]} for each of {layers} "
                f"layers, not {shown(kinds)}"
            )
        slides = [known[kind] for kind in kinds]
        if size is None and any(slides):
            raise ValueError(
                f"{settings.path}: layer_types names sliding_attention, and there is no "
                "sliding_window for it"
            )
    elif size is None:
        slides = [False] * layers
    elif family == "gemma2":
        slides = [layer % 2 == 0 for layer in range(layers)]
    elif family == "qwen2":
        first = settings.whole("max_window_layers", 0)
        slides = [layer >= first for layer in range(layers)]
    else:
        slides = [True] * layers
    return tuple(size - 1 if slide and size is not None else None for slide in slides)
