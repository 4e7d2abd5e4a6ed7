"""The metadata of a GGUF file as the settings that a config.json has.

Of what begins with the architecture's name every key is carried out or refused, unless it is 0 or
false. What llama.cpp itself takes to be so in a family stands here, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..files.gguf_file import GgufFile
from ..files.settings import MOST, Settings, shown

# general.architecture → model_type.
ARCHITECTURES = {
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "gpt2": "gpt2",
    "llama": "llama",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}
# Families whose largest model, of so many layers, divides scores by the root of E / H, not of D.
LARGEST = {"gemma2": 46, "gemma3_text": 62}
WITHOUT_EFFECT = {"vocab_size", "rope.scaling.finetuned", "tensor_data_layout", "pooling_type"}
BLOCKS = {
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
}
ROTARY = {
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
}
EXPERTS = {"expert_count", "expert_used_count"}
OWN: dict[str, set[str]] = {
    "llama": EXPERTS,
    "gemma2": {
        "attention.sliding_window",
        "attn_logit_softcapping",
        "final_logit_softcapping",
    },
    "gemma3_text": {
        "attention.sliding_window",
        "attention.sliding_window_pattern",
        "final_logit_softcapping",
        "rope.freq_base_swa",
    },
    "phi3": {"attention.sliding_window"},
    "gpt2": {"attention.layer_norm_epsilon"},
}


def read_settings(file: GgufFile) -> tuple[Settings, str]:
    """Return the settings that a config.json would hold, and its model_type.

    Raises
    ------
    ValueError
        If the architecture is not supported, a size is missing, or a key is not carried out.

    Notes
    -----
    A file of the architecture llama that has experts is a Mixtral.
    """
    name = file.values.get("general.architecture")
    if name not in ARCHITECTURES:
        raise ValueError(
            f"{file.path}: general.architecture {shown(name)} is not supported; supported are "
            f"{', '.join(sorted(ARCHITECTURES))}"
        )
    family, prefix = ARCHITECTURES[name], f"{name}."
    own = {
        key.removeprefix(prefix): value
        for key, value in file.values.items()
        if key.startswith(prefix)
    }
    known = BLOCKS | OWN.get(family, set()) | WITHOUT_EFFECT
    if family != "gpt2":
        known |= ROTARY
    for key, value in own.items():
        if key not in known and value:
            raise ValueError(f"{file.path}: {prefix}{key} {shown(value)} is not supported")
    if "token_embd.weight" not in file.names:
        raise ValueError(f"{file.path} has no tensor token_embd.weight")
    # A setting that is missing is told by the file's own name for it.
    for key in BLOCKS:
        Settings(own, file.path).size(key)
    settings = gpt_settings(own) if family == "gpt2" else llama_settings(file, family, own)
    if family == "llama" and own.get("expert_count"):
        family = "mixtral"
        settings |= {
            "num_local_experts": own["expert_count"],
            "num_experts_per_tok": Settings(own, file.path).size("expert_used_count"),
        }
    settings["model_type"] = family
    settings["vocab_size"] = file.shape("token_embd.weight")[0]
    settings["tie_word_embeddings"] = "output.weight" not in file.names
    return Settings(settings, file.path), family


def gpt_settings(own: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a GPT-2."""
    return {
        "n_embd": own["embedding_length"],
        "n_layer": own["block_count"],
        "n_head": own["attention.head_count"],
        "n_positions": own["context_length"],
        "n_inner": own["feed_forward_length"],
        "layer_norm_epsilon": own.get("attention.layer_norm_epsilon"),
        "activation_function": "gelu_new",
    }


def llama_settings(file: GgufFile, family: str, own: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a model of Llama's family."""
    heads, width = own["attention.head_count"], own["embedding_length"]
    size = Settings(own, file.path).size("attention.key_length", width // heads)
    if own.get("attention.value_length", size) != size:
        raise ValueError(
            f"{file.path}: keys of {size} and values of {own['attention.value_length']} elements "
            "are not supported"
        )
    settings = {
        "hidden_size": width,
        "num_hidden_layers": own["block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": own.get("attention.head_count_kv", heads),
        "head_dim": size,
        "intermediate_size": own["feed_forward_length"],
        "rms_norm_eps": own.get("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": own["context_length"],
        "attention_bias": "blk.0.attn_q.bias" in file.names,
        "mlp_bias": "blk.0.ffn_up.bias" in file.names,
        "rope_theta": own.get("rope.freq_base", 10000.0),
        **{name: own[name] for name in own if name.endswith("_logit_softcapping")},
        **scaling_settings(file, family, own, size),
    }
    if family in LARGEST:
        large = own["block_count"] == LARGEST[family]
        settings["query_pre_attn_scalar"] = width / heads if large else size
    if family == "gemma3_text":
        settings["rope_theta"] = own.get("rope.freq_base", 1000000.0)
        settings["rope_local_base_freq"] = own.get("rope.freq_base_swa", 10000.0)
        settings["sliding_window_pattern"] = own.get("attention.sliding_window_pattern", 6)
    # Of Gemma 2 what is left out is what it is in a config.json, as to llama.cpp.
    if family != "gemma2" or "attention.sliding_window" in own:
        # Where there is no window, a 0 says so.
        settings["sliding_window"] = own.get("attention.sliding_window") or None
    return settings


def scaling_settings(file: GgufFile, family: str, own: dict[str, Any], size: int) -> dict[str, Any]:
    """Return what a config.json would say of how positions are scaled, and which elements turn."""
    turning = Settings(own, file.path).size("rope.dimension_count", size)
    settings: dict[str, Any] = {} if turning == size else {"partial_rotary_factor": turning / size}
    kind = own.get("rope.scaling.type", "none")
    factors = {
        name: file.numbers(f"rope_factors_{name}.weight").tolist()
        for name in ("short", "long")
        if f"rope_factors_{name}.weight" in file.names
    }
    attention_factor = own.get("rope.scaling.attn_factor", 1.0)
    if factors:
        return settings | {
            "original_max_position_embeddings": own.get("rope.scaling.original_context_length"),
            "rope_scaling": {
                "rope_type": "longrope",
                **{f"{name}_factor": values for name, values in factors.items()},
                "attention_factor": attention_factor,
            },
        }
    divisors_too = "rope_freqs.weight" in file.names and kind != "none"
    if attention_factor != 1 or kind not in ("none", "linear", "yarn") or divisors_too:
        raise ValueError(
            f"{file.path}: rope.scaling.type {shown(kind)} with attn_factor "
            f"{shown(attention_factor)} is not supported with these tensors of frequencies"
        )
    if "rope_freqs.weight" in file.names:
        # Llama 3's scaling: divisors of the frequencies, for texts of every length.
        divisors = np.asarray(file.numbers("rope_freqs.weight")).tolist()
        settings["rope_scaling"] = {
            "rope_type": "longrope",
            "short_factor": divisors,
            "long_factor": divisors,
            "attention_factor": 1.0,
            "original_max_position_embeddings": MOST,
        }
    elif kind != "none":
        settings["rope_scaling"] = {
            "rope_type": kind,
            "factor": own.get("rope.scaling.factor", 1.0),
            "original_max_position_embeddings": own.get("rope.scaling.original_context_length"),
        }
    return settings
