"""The variables of a decoder of CTranslate2's as the settings that a config.json has.

Which family it is, they tell: of GPT-2 norms have a bias; in Qwen 3 heads are normalised; in Qwen 2
queries, keys and values have a bias, and what they make has none.
"""

from __future__ import annotations

from typing import Any

from ..files.ctranslate2_tensors import Ctranslate2Tensors
from ..files.settings import Settings, shown
from .ctranslate2_weights import POSITIONS, TABLE

# Activations by their numbers → config.json's names of them.
ACTIVATIONS = {0: "relu", 1: "gelu_new", 2: "silu", 3: "gelu"}
LINEAR, LLAMA_3 = 0, 2  # scalings of rotary positions
FIRST = "decoder/layer_0"


def read_settings(tensors: Ctranslate2Tensors) -> tuple[Settings, str]:
    """Return the settings that a config.json would hold, and its model_type.

    Raises
    ------
    ValueError
        If a variable asks for something that is not supported.
    """
    file, names = tensors.file, set(tensors.file.names)
    tensors.only("decoder/alibi", 0, 0)
    tensors.only("decoder/pre_norm", 1, 1)
    tensors.only("decoder/start_from_zero_embedding", 0, 0)
    width, layers = tensors.size(TABLE, 1), tensors.count_layers("decoder/layer")
    scale = tensors.embedding_scale("decoder", width)
    if scale != 1:
        raise ValueError(f"{file.path}: decoder/scale_embeddings {scale} is not supported")
    if f"{FIRST}/self_attention/layer_norm/gamma" not in names:
        raise ValueError(
            f"{file.path} has no variable {FIRST}/self_attention/layer_norm/gamma: only layers "
            "that normalise before attention and before the MLP are supported"
        )
    heads = int(tensors.number("decoder/num_heads"))
    if heads < 1 or width % heads:
        raise ValueError(f"{file.path}: {width} numbers do not divide into {heads} heads")
    own: dict[str, Any] = {
        "vocab_size": tensors.size(TABLE, 0),
        "tie_word_embeddings": not tensors.has("lm_head.weight"),
    }
    eps = file.config.number("layer_norm_epsilon", 1e-5)
    inner = tensors.size(f"{FIRST}/ffn/linear_0/weight", 0)
    if "decoder/layer_norm/beta" in names:
        own |= {
            "n_embd": width, "n_layer": layers, "n_head": heads, "n_inner": inner,
            "n_positions": tensors.size(POSITIONS, 0), "layer_norm_epsilon": eps,
            "activation_function": activation_of(tensors),
        }  # fmt: skip
        return Settings(own, file.path), "gpt2"
    normalised = f"{FIRST}/self_attention/q_norm/gamma" in names
    biases = [f"{FIRST}/self_attention/linear_{number}/bias" in names for number in (0, 1)]
    family = "qwen3" if normalised else "qwen2" if biases == [True, False] else "llama"
    size = int(in_all(tensors, layers, "head_dim", width // heads))
    own |= {
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": int(in_all(tensors, layers, "num_heads_kv", heads)),
        "head_dim": size, "intermediate_size": inner, "rms_norm_eps": eps,
        "hidden_act": activation_of(tensors), "attention_bias": biases[1],
        "mlp_bias": f"{FIRST}/ffn/linear_0/bias" in names, "use_sliding_window": False,
        **rotary_settings(tensors, layers, size),
    }  # fmt: skip
    return Settings(own, file.path), family


def activation_of(tensors: Ctranslate2Tensors) -> str:
    """Return what MLPs are activated by."""
    number = int(tensors.number("decoder/activation"))
    if number not in ACTIVATIONS:
        raise ValueError(
            f"{tensors.file.path}: decoder/activation {number} is not supported; supported are "
            f"{ACTIVATIONS}"
        )
    return ACTIVATIONS[number]


def in_all(
    tensors: Ctranslate2Tensors, layers: int, name: str, usual: float | None = None
) -> float:
    """Return a choice of attention that all layers share, or raise ValueError."""
    names = [f"decoder/layer_{number}/self_attention/{name}" for number in range(layers)]
    values = [tensors.number(each, usual) for each in names]
    if len({*values}) > 1:
        raise ValueError(
            f"{tensors.file.path}: {name} must be the same in all layers, not {shown(values)}"
        )
    return values[0]


def rotary_settings(tensors: Ctranslate2Tensors, layers: int, size: int) -> dict[str, Any]:
    """Return what a config.json would say of rotary positions."""
    path = tensors.file.path
    if in_all(tensors, layers, "rotary_dim") not in (0, size):
        raise ValueError(f"{path}: rotary_dim of a part of a head is not supported")
    if in_all(tensors, layers, "rotary_interleave", 1) != 0:
        raise ValueError(f"{path}: rotary_interleave 1 is not supported")
    settings: dict[str, Any] = {"rope_theta": in_all(tensors, layers, "rotary_base", 10000)}
    kind = in_all(tensors, layers, "rotary_scaling_type", -1)
    if kind == -1:
        return settings
    if kind != LINEAR:
        raise ValueError(
            f"{path}: rotary_scaling_type {kind:g} is not supported; supported: {LINEAR}"
        )
    factor = in_all(tensors, layers, "rotary_scaling_factor", 1)
    return settings | {"rope_scaling": {"rope_type": "linear", "factor": factor}}
