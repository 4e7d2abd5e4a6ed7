"""Hugging Face folders of tiny random decoders, written by the tests themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from numattn.models import Gpt, GptNeox, Llama

VOCABULARY = 61
NULL = object()  # in the changes of a config.json, where None leaves an entry out
WINDOW = 5  # tokens, the query's own included: shorter than every context below

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 40,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN_SCALING = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}

# What each family's folder says beyond, or instead of, that.
CHANGES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama3": {"rope_scaling": LLAMA3_SCALING, "attention_bias": True, "mlp_bias": True},
    "yarn": {"rope_scaling": YARN_SCALING},
    "mistral": {"model_type": "mistral", "sliding_window": WINDOW, "head_dim": 12},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True, "use_sliding_window": False},
    "gemma2": {
        "model_type": "gemma2",
        "hidden_act": None,
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": 20,
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 4.0,
        "tie_word_embeddings": True,
    },
    "phi3": {
        "model_type": "phi3",
        "partial_rotary_factor": 0.5,
        "original_max_position_embeddings": 128,
        "pad_token_id": 0,
    },
    "qwen3": {"model_type": "qwen3", "head_dim": 12},
    "gemma": {
        "model_type": "gemma",
        "hidden_act": "gelu",  # as the first files have it, for what is gelu_pytorch_tanh
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
    },
    "gemma3_text": {
        "model_type": "gemma3_text",
        "hidden_act": None,
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": WINDOW,
        "sliding_window_pattern": 2,
        "query_pre_attn_scalar": 20,
        "attention_bias": True,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 100.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "tie_word_embeddings": True,
    },
    "olmo2": {"model_type": "olmo2", "head_dim": None, "attention_bias": True},
    "granite": {
        "model_type": "granite",
        "head_dim": None,
        "attention_bias": True,
        "mlp_bias": True,
        "attention_multiplier": 0.2,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.4,
        "logits_scaling": 2.0,
        "tie_word_embeddings": True,
    },
    "smollm3": {
        "model_type": "smollm3",
        "head_dim": None,
        "no_rope_layers": [1, 0, 1],
        "tie_word_embeddings": True,
        "pad_token_id": 0,
    },
    "mixtral": {
        "model_type": "mixtral",
        "num_local_experts": 5,
        "num_experts_per_tok": 2,
        "sliding_window": None,
    },
    "gpt_oss": {
        "model_type": "gpt_oss",
        "num_local_experts": 5,
        "num_experts_per_tok": 3,
        "sliding_window": WINDOW,
        "swiglu_limit": 1.0,  # low enough to be reached
        "rope_scaling": {**YARN_SCALING, "truncate": False},
    },
    "gpt_neox": {
        "model_type": "gpt_neox",
        "hidden_act": "gelu",
        "rms_norm_eps": None,
        "layer_norm_eps": 1e-5,
        "num_key_value_heads": None,
        "head_dim": None,
        "rope_theta": None,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.5,
    },
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": VOCABULARY,
        "n_embd": 32,
        "n_layer": 3,
        "n_head": 4,
        "n_positions": 96,
        "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new",
    },
}
FAMILIES = tuple(CHANGES)
EXPERTS = ("mixtral", "gpt_oss")


def config_of(family: str) -> dict[str, Any]:
    """Return what config.json holds."""
    if family == "gpt2":
        return dict(CHANGES[family])
    config = {**LLAMA, **CHANGES[family]}
    return {name: value for name, value in config.items() if value is not None}


def tensors_of(config: dict[str, Any], seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Return random tensors under the names of a published file."""
    generator = np.random.default_rng(seed)
    shapes = {"gpt2": gpt_shapes, "gpt_neox": neox_shapes}.get(config["model_type"], llama_shapes)(
        config
    )
    tensors = {}
    for name, shape in shapes.items():
        values = generator.normal(0, 0.3, shape)
        norm = len(shape) == 1 and name.endswith("weight")
        if norm and not config["model_type"].startswith("gemma"):  # whose weights are less 1
            values += 1
        tensors[name] = values.astype(np.float32)
    return tensors


def llama_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    family, width = config["model_type"], config["hidden_size"]
    rows = {**attention_shapes(config), **ffn_shapes(config)}
    biased = set()
    if config.get("attention_bias") or family in ("qwen2", "gpt_oss"):
        biased |= {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}
    if config.get("attention_bias") or family == "gpt_oss":
        biased.add("self_attn.o_proj")
    if config.get("mlp_bias"):
        biased |= {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}
    if family == "gpt_oss":
        biased.add("mlp.router")
    norms = ["input_layernorm", "post_attention_layernorm"]
    if family in ("gemma2", "gemma3_text"):
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    if family == "olmo2":
        norms = ["post_attention_layernorm", "post_feedforward_layernorm"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], width)
    }
    for layer in range(config["num_hidden_layers"]):
        for part, shape in rows.items():
            whole = len(shape) == 3 or part.endswith(("_bias", "sinks"))  # without ".weight"
            shapes[f"model.layers.{layer}.{part}" + ("" if whole else ".weight")] = shape
            if part in biased:
                shapes[f"model.layers.{layer}.{part}.bias"] = shape[:1]
        for part in norms:
            shapes[f"model.layers.{layer}.{part}.weight"] = (width,)
    shapes["model.norm.weight"] = (width,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], width)
    return shapes


def attention_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    family, width, heads = (
        config[name] for name in ("model_type", "hidden_size", "num_attention_heads")
    )
    size = config.get("head_dim", width // heads)
    rows = {"q": heads * size, "k": config["num_key_value_heads"] * size}
    rows["v"] = rows["k"]
    shapes: dict[str, tuple[int, ...]] = {
        f"self_attn.{part}_proj": (count, width) for part, count in rows.items()
    }
    if family == "phi3":
        shapes = {"self_attn.qkv_proj": (sum(rows.values()), width)}
    shapes["self_attn.o_proj"] = (width, rows["q"])
    if family in ("qwen3", "gemma3_text", "olmo2"):
        for part in ("q", "k"):
            shapes[f"self_attn.{part}_norm"] = (rows[part] if family == "olmo2" else size,)
    if family == "gpt_oss":
        shapes["self_attn.sinks"] = (heads,)
    return shapes


def ffn_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    count = config.get("num_local_experts", 0)
    if config["model_type"] == "phi3":
        return {"mlp.gate_up_proj": (2 * inner, width), "mlp.down_proj": (width, inner)}
    if config["model_type"] == "gpt_oss":
        return {
            "mlp.router": (count, width),
            "mlp.experts.gate_up_proj": (count, width, 2 * inner),
            "mlp.experts.gate_up_proj_bias": (count, 2 * inner),
            "mlp.experts.down_proj": (count, inner, width),
            "mlp.experts.down_proj_bias": (count, width),
        }
    if config["model_type"] == "mixtral":
        shapes: dict[str, tuple[int, ...]] = {"block_sparse_moe.gate": (count, width)}
        for expert in range(count):
            for part, shape in {
                "w1": (inner, width),
                "w3": (inner, width),
                "w2": (width, inner),
            }.items():
                shapes[f"block_sparse_moe.experts.{expert}.{part}"] = shape
        return shapes
    return {
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }


def gpt_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width = config["n_embd"]
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (VOCABULARY, width),
        "transformer.wpe.weight": (config["n_positions"], width),
    }
    for layer in range(config["n_layer"]):
        parts = {"attn.c_attn": 3 * width, "attn.c_proj": width, "mlp.c_fc": 4 * width}
        for part, columns in {**parts, "mlp.c_proj": width}.items():
            rows = 4 * width if part == "mlp.c_proj" else width
            shapes[f"transformer.h.{layer}.{part}.weight"] = (rows, columns)
            shapes[f"transformer.h.{layer}.{part}.bias"] = (columns,)
        for part in ("ln_1", "ln_2"):
            shapes[f"transformer.h.{layer}.{part}.weight"] = (width,)
            shapes[f"transformer.h.{layer}.{part}.bias"] = (width,)
    shapes["transformer.ln_f.weight"] = shapes["transformer.ln_f.bias"] = (width,)
    return shapes


def neox_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {"gpt_neox.embed_in.weight": (VOCABULARY, width)}
    rows = {
        "attention.query_key_value": (3 * width, width),
        "attention.dense": (width, width),
        "mlp.dense_h_to_4h": (inner, width),
        "mlp.dense_4h_to_h": (width, inner),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
    }
    for layer in range(config["num_hidden_layers"]):
        for part, shape in rows.items():
            shapes[f"gpt_neox.layers.{layer}.{part}.weight"] = shape
            shapes[f"gpt_neox.layers.{layer}.{part}.bias"] = shape[:1]
    for part in ("weight", "bias"):
        shapes[f"gpt_neox.final_layer_norm.{part}"] = (width,)
    return {**shapes, "embed_out.weight": (VOCABULARY, width)}


def write_folder(
    folder: Path,
    family: str = "llama",
    config: dict[str, Any] | None = None,
    tensors: dict[str, NDArray[Any]] | None = None,
) -> Path:
    """Write a folder and return it; `config` changes entries (None removes one, NULL is null)."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**config_of(family), **(config or {})}
    settings = {
        name: None if value is NULL else value
        for name, value in settings.items()
        if value is not None
    }
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    if tensors is None:
        tensors = tensors_of(config_of(family))
    save_file(tensors, folder / "model.safetensors")
    return folder


def class_of(family: str) -> type[Gpt] | type[GptNeox] | type[Llama]:
    own: dict[str, type[Gpt] | type[GptNeox]] = {"gpt2": Gpt, "gpt_neox": GptNeox}
    return own.get(family, Llama)


def load(folder: Path, family: str, **options: Any) -> Gpt | GptNeox | Llama:
    return class_of(family).from_folder(folder, **options)


def random_ids(rng: np.random.Generator, *shape: int) -> NDArray[np.int64]:
    return rng.integers(0, VOCABULARY, shape)
