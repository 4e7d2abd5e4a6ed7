"""What sets the families of Llama's kind apart: a table of named choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Norms: TypeAlias = Literal["before", "after", "both"]
HeadNorms: TypeAlias = Literal["each", "joined"]
ExpertKind: TypeAlias = Literal["gated", "clamped"]


@dataclass(frozen=True)
class Family:
    """What is so in every model of a model_type, and what its files may choose."""

    classes: str
    """What the names of its classes in transformers begin with."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What is so where a file leaves a setting out. One that is null is told: none."""
    qkv_bias: bool = False
    attention_bias: bool = False
    """Whether a file's attention_bias is looked at; by some families' models it is not."""
    mlp_bias: bool = False
    """Whether a file's mlp_bias is looked at."""
    activation: str = "hidden_act"
    """The setting that names it."""
    norms: Norms = "before"
    """Where a layer normalises: what attention and MLP read, what they add to x, or both."""
    norm_offset: float = 0
    """What weights of norms are less in the file than they stand for."""
    head_norms: HeadNorms | None = None
    """Whether queries and keys are normalised: each head by itself, or all heads of a token."""
    scaled_embedding: bool = False
    """Whether embeddings are multiplied by sqrt(E)."""
    softcaps: tuple[str, ...] = ()
    """The settings that are looked at of what scores and logits are capped at."""
    query_scalar: bool = False
    """Whether scores are divided by the root of query_pre_attn_scalar, not by that of D."""
    multipliers: bool = False
    """Whether a file's factors of embeddings, scores, sums and logits are looked at."""
    joined: bool = False
    """One tensor for Wq, Wk and Wv, and one for the two that make the inner states."""
    partial_rotary: bool = False
    """Whether a part of a head's elements may turn."""
    experts: ExpertKind | None = None
    sinks: bool = False
    """One logit for each head that takes probability and gives no value."""


SCORE_SOFTCAP, LOGIT_SOFTCAP = "attn_logit_softcapping", "final_logit_softcapping"
GEMMA: dict[str, Any] = {"norm_offset": 1, "scaled_embedding": True, "attention_bias": True}

FAMILIES: dict[str, Family] = {
    "gemma": Family(
        "Gemma",
        {
            "num_key_value_heads": 16,
            "head_dim": 256,
            "hidden_act": "gelu_pytorch_tanh",
            "tie_word_embeddings": True,
        },
        **GEMMA,
    ),
    "gemma2": Family(
        "Gemma2",
        {
            "num_key_value_heads": 4,
            "head_dim": 256,
            "sliding_window": 4096,
            "query_pre_attn_scalar": 256,
            SCORE_SOFTCAP: 50.0,
            LOGIT_SOFTCAP: 30.0,
            "hidden_activation": "gelu_pytorch_tanh",
            "tie_word_embeddings": True,
        },
        activation="hidden_activation",
        norms="both",
        softcaps=(SCORE_SOFTCAP, LOGIT_SOFTCAP),
        query_scalar=True,
        **GEMMA,
    ),
    "gemma3_text": Family(
        "Gemma3",
        {
            "num_key_value_heads": 4,
            "head_dim": 256,
            "sliding_window": 4096,
            "query_pre_attn_scalar": 256,
            "hidden_activation": "gelu_pytorch_tanh",
            "tie_word_embeddings": True,
        },
        activation="hidden_activation",
        norms="both",
        head_norms="each",
        softcaps=(LOGIT_SOFTCAP,),
        query_scalar=True,
        **GEMMA,
    ),
    "gpt_oss": Family(
        "GptOss",
        {
            "num_key_value_heads": 8,
            "head_dim": 64,
            "sliding_window": 128,
            "attention_bias": True,
            "rms_norm_eps": 1e-5,
            "rope_theta": 150000.0,
            "max_position_embeddings": 131072,
        },
        attention_bias=True,
        experts="clamped",
        sinks=True,
    ),
    "granite": Family("Granite", attention_bias=True, mlp_bias=True, multipliers=True),
    "llama": Family("Llama", attention_bias=True, mlp_bias=True),
    "mistral": Family("Mistral", {"num_key_value_heads": 8, "sliding_window": 4096}),
    "mixtral": Family(
        "Mixtral",
        {"num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1e6},
        experts="gated",
    ),
    "olmo2": Family(
        "Olmo2",
        {"rms_norm_eps": 1e-5},
        attention_bias=True,
        norms="after",
        head_norms="joined",
    ),
    "phi3": Family(
        "Phi3",
        {"rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096},
        joined=True,
        partial_rotary=True,
    ),
    "qwen2": Family(
        "Qwen2",
        {"num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28},
        qkv_bias=True,
    ),
    "qwen3": Family(
        "Qwen3",
        {
            "num_key_value_heads": 32,
            "head_dim": 128,
            "sliding_window": 4096,
            "max_window_layers": 28,
        },
        attention_bias=True,
        head_norms="each",
    ),
    "smollm3": Family(
        "SmolLM3",
        {"num_key_value_heads": 4, "rope_theta": 2e6, "tie_word_embeddings": True},
        attention_bias=True,
        mlp_bias=True,
    ),
}
