"""The config.json of folders of Llama's family: one set of choices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from numattn.position import Rope

from ..files.activations import ACTIVATIONS, Activation
from ..files.model_config import read_model_config
from ..files.settings import Settings, shown
from .causal import refuse_bidirectional
from .llama_families import (
    FAMILIES,
    LOGIT_SOFTCAP,
    SCORE_SOFTCAP,
    ExpertKind,
    Family,
    HeadNorms,
    Norms,
)
from .llama_positions import read_ropes, read_windows

# Quantised weights that are read.
QUANTISED = {"gpt_oss": "mxfp4"}
# What the names of each family's classes in transformers begin with.
CLASSES = {name: family.classes for name, family in FAMILIES.items()}


@dataclass(frozen=True)
class ExpertConfig:
    """Sizes and choices of MLPs of which each token passes through a few."""

    kind: ExpertKind
    count: int
    chosen: int
    """How many a token passes through."""
    alpha: float
    """Of the clamped kind: the gain of its sigmoid."""
    limit: float
    """Of the clamped kind: how large what its gate and its linear part make may become."""


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
    ropes: tuple[Rope | None, ...]
    """Rotary positions of each layer; None for none. Layers that turn alike share one."""
    windows: tuple[int | None, ...]
    """For each layer, how many keys before its own a query sees; None for all."""
    scale: float
    """Of scores."""
    score_softcap: float | None
    logit_softcap: float | None
    embedding_scale: float
    """What embeddings are multiplied by."""
    residual_scale: float
    """What attention and MLP make is multiplied by before it is added to x."""
    logit_divisor: float
    qkv_bias: bool
    output_bias: bool
    ffn_bias: bool
    tied: bool
    """Whether logits are products with the embeddings."""
    norms: Norms
    norm_offset: float
    head_norms: HeadNorms | None
    joined: bool
    experts: ExpertConfig | None
    sinks: bool

    @property
    def max_positions(self) -> None:
        """Return None: positions are not learned."""
        return None

    @property
    def switch_length(self) -> int | None:
        """Return the longest text that is read by the first of two sets of frequencies, if any."""
        lengths = (rope.switch_length for rope in self.ropes if rope is not None)
        return next((length for length in lengths if length is not None), None)

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
        given, name = read_model_config(path, CLASSES, QUANTISED)
        refuse_bidirectional(given)
        return cls.from_settings(given, name)

    @classmethod
    def from_settings(cls, given: Settings, name: str) -> LlamaConfig:
        """Return what settings of the family of that name say, or raise ValueError."""
        family, path = FAMILIES[name], given.path
        settings, usual = Settings({**family.defaults, **given.values}, path), family.defaults
        width, heads = settings.size("hidden_size"), settings.size("num_attention_heads")
        kv_heads = settings.size("num_key_value_heads", heads)
        if heads % kv_heads:
            raise ValueError(f"{path}: {heads} heads do not divide among {kv_heads} key heads")
        head_size = settings.size("head_dim", width // heads)
        attention_bias = family.attention_bias and settings.flag(
            "attention_bias", usual.get("attention_bias", False)
        )
        embedding_scale = width**0.5 if family.scaled_embedding else 1.0
        return cls(
            vocab_size=settings.size("vocab_size"),
            hidden_size=width,
            num_layers=settings.size("num_hidden_layers"),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_size=head_size,
            ffn_size=settings.size("intermediate_size"),
            activation=read_activation(settings, family),
            norm_eps=settings.number("rms_norm_eps", 1e-6),
            ropes=read_ropes(settings, name, head_size),
            windows=read_windows(settings, name),
            scale=read_scale(settings, family, head_size),
            score_softcap=read_softcap(settings, name, SCORE_SOFTCAP),
            logit_softcap=read_softcap(settings, name, LOGIT_SOFTCAP),
            embedding_scale=multiplier(settings, family, "embedding_multiplier", embedding_scale),
            residual_scale=multiplier(settings, family, "residual_multiplier", 1.0),
            logit_divisor=multiplier(settings, family, "logits_scaling", 1.0),
            qkv_bias=attention_bias or family.qkv_bias,
            output_bias=attention_bias,
            ffn_bias=family.mlp_bias and settings.flag("mlp_bias", False),
            tied=settings.flag("tie_word_embeddings", usual.get("tie_word_embeddings", False)),
            norms=family.norms,
            norm_offset=family.norm_offset,
            head_norms=family.head_norms,
            joined=family.joined,
            experts=None if family.experts is None else read_experts(settings, family.experts),
            sinks=family.sinks,
        )


def read_activation(settings: Settings, family: Family) -> Activation:
    """Return what the gate of an MLP goes through."""
    usual = family.defaults.get(family.activation, "silu")
    chosen = settings.one_of(family.activation, ACTIVATIONS, usual)
    if family.classes == "Gemma" and chosen == "gelu":  # its first files say so, and mean the other
        return "gelu_tanh"
    return ACTIVATIONS[chosen]


def read_scale(settings: Settings, family: Family, head_size: int) -> float:
    """Return what scores are multiplied by."""
    if family.multipliers:
        return settings.number("attention_multiplier", 1.0)
    divisor = settings.number("query_pre_attn_scalar") if family.query_scalar else float(head_size)
    return float(divisor**-0.5)


def multiplier(settings: Settings, family: Family, name: str, usual: float) -> float:
    """Return one of the factors that a file may have, or the usual one where it may not."""
    return settings.number(name, usual) if family.multipliers else usual


def read_softcap(settings: Settings, name: str, setting: str) -> float | None:
    """Return what scores or logits are capped at, if they are.

    transformers leaves Gemma 3's scores as they are, whatever its file says: such a file is
    refused.
    """
    if setting in FAMILIES[name].softcaps:
        return settings.optional_number(setting)
    if name == "gemma3_text" and settings.get(setting) is not None:
        raise ValueError(
            f"{settings.path}: {setting} {shown(settings.get(setting))} is not supported for {name}"
        )
    return None


def read_experts(settings: Settings, kind: ExpertKind) -> ExpertConfig:
    """Return how many experts there are, and what they do."""
    count = settings.size("num_local_experts", 8 if kind == "gated" else 128)
    chosen = settings.size("num_experts_per_tok", 2 if kind == "gated" else 4)
    if chosen > count:
        raise ValueError(
            f"{settings.path}: num_experts_per_tok is {chosen}, and there are {count} experts"
        )
    return ExpertConfig(
        kind,
        count,
        chosen,
        settings.number("swiglu_alpha", 1.702),
        settings.number("swiglu_limit", 7.0),
    )
