"""GGUF files of tiny random decoders, written by llama.cpp's own library as its converter does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from tiny_decoders import config_of, tensors_of

Tensors = dict[str, NDArray[np.float32]]
# Rows of 256 numbers are what some quantisations take.
SIZES = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2}
GPT_SIZES = {"n_embd": 256, "n_layer": 2, "n_inner": 1024, "n_positions": 64}
ARCHITECTURES = {
    "gemma": gguf.MODEL_ARCH.GEMMA,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
    "gpt2": gguf.MODEL_ARCH.GPT2,
    "llama": gguf.MODEL_ARCH.LLAMA,
    "llama3": gguf.MODEL_ARCH.LLAMA,
    "mixtral": gguf.MODEL_ARCH.LLAMA,
    "phi3": gguf.MODEL_ARCH.PHI3,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
FAMILIES = tuple(ARCHITECTURES)
# What those files say that would be said otherwise in tiny_decoders.
CHANGES: dict[str, dict[str, Any]] = {
    "gemma": {"hidden_act": "gelu_pytorch_tanh"},
    "gemma2": {"query_pre_attn_scalar": 64},
    "gemma3_text": {
        "query_pre_attn_scalar": 64, "sliding_window_pattern": 6, "attention_bias": False,
    },
}  # fmt: skip
KINDS = gguf.GGMLQuantizationType


def sized_config(family: str) -> dict[str, Any]:
    """Return what config.json holds of a model whose rows can be quantised."""
    if family == "gpt2":
        return {**config_of(family), **GPT_SIZES}
    config = {**config_of(family), **SIZES, "head_dim": 64, **CHANGES.get(family, {})}
    if family == "gemma3_text":
        config["num_hidden_layers"] = 7
    return config


def quantised(values: NDArray[np.float32], kind: KINDS, seed: int) -> NDArray[Any]:
    """Return a matrix in the bytes of a kind; of those that the library cannot make, any bytes."""
    if kind in (KINDS.F32, KINDS.F16):
        return values.astype(np.float32 if kind == KINDS.F32 else np.float16)
    if kind not in (KINDS.Q4_K, KINDS.Q6_K):
        made: NDArray[Any] = gguf.quantize(values, kind)
        return made
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, (values.size // elements, size), dtype=np.uint8)
    scales = np.full(len(blocks), 0.0006 if kind == KINDS.Q4_K else 0.0001, np.float16)
    places = (0, 2) if kind == KINDS.Q4_K else (size - 2,)
    for place in places:
        blocks[:, place : place + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(*values.shape[:-1], -1)


def interleaved(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Return rows (H·D, ...) as llama.cpp has them where neighbours turn together."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    together: NDArray[Any] = halves.swapaxes(1, 2).reshape(rows.shape)
    return together


def write_gguf(
    path: Path,
    family: str,
    kind: KINDS = KINDS.F32,
    *,
    config: dict[str, Any] | None = None,
    metadata: dict[str, int | float | str | bool] | None = None,
    more: Tensors | None = None,
    tokenizer: Any = None,
    split: int = 0,
    others: dict[str, KINDS] | None = None,
) -> tuple[dict[str, Any], Tensors]:
    """Write a file; return what a folder of the same model has in config.json and as tensors.

    Matrices are of the kind given, but for `others` by the file's name of their part. `tokenizer`
    is called with the writer. With `split` there are several files, of so many tensors each.
    """
    settings = {**sized_config(family), **(config or {})}
    arch = ARCHITECTURES[family]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch], split_max_tensors=split)
    add_sizes(writer, family, settings)
    for key, value in (metadata or {}).items():
        writer.add_key_value(key, value, {
            int: gguf.GGUFValueType.UINT32, float: gguf.GGUFValueType.FLOAT32,
            str: gguf.GGUFValueType.STRING, bool: gguf.GGUFValueType.BOOL,
        }[type(value)])  # fmt: skip
    if tokenizer is not None:
        tokenizer(writer)
    names = gguf.get_tensor_name_map(arch, settings.get("num_hidden_layers", 2))
    tensors = tensors_of(settings)
    experts = {name: values for name, values in tensors.items() if ".experts." in name}
    for number in range(settings["num_hidden_layers"] if experts else 0):
        tensors |= add_experts(writer, experts, f"model.layers.{number}", kind)
    for seed, (name, values) in enumerate(tensors.items()):
        if name in experts:
            continue
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored is not None, name
        own = (others or {}).get(stored.split(".")[-2], kind)
        tensors[name] = add(writer, family, settings, (stored, values), own, seed)
    for name, values in (more or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return settings, tensors


def add(
    writer: Any,
    family: str,
    settings: dict[str, Any],
    tensor: tuple[str, NDArray[np.float32]],
    kind: KINDS,
    seed: int,
) -> NDArray[np.float32]:
    """Add a tensor to a file, and return what a folder would have of its numbers."""
    stored, values = tensor
    turned = family == "gpt2" and values.ndim == 2 and stored.startswith("blk.")
    heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
    part = stored.split(".")[-2]
    count = (
        settings[heads[part]]
        if family in ("llama", "llama3", "mixtral") and part in heads
        else None
    )
    if turned:
        values = np.ascontiguousarray(values.T)
    if family.startswith("gemma") and stored.endswith("norm.weight"):
        writer.add_tensor(stored, values + 1)  # what it stands for
        return values
    if values.ndim == 1:
        writer.add_tensor(stored, values if count is None else interleaved(values, count))
        return values
    data = quantised(values, kind, seed)
    numbers = gguf.dequantize(data, kind)
    if count is not None:
        data = interleaved(data, count)
    writer.add_tensor(stored, data, raw_dtype=kind)
    return np.ascontiguousarray(numbers.T) if turned else numbers


def add_experts(writer: Any, tensors: Tensors, layer: str, kind: KINDS) -> Tensors:
    """Add a layer's experts, as one tensor for each projection; return those of a folder."""
    number, made = layer.split(".")[-1], {}
    for part, stored in (("w1", "gate"), ("w2", "down"), ("w3", "up")):
        names = [name for name in tensors if name.startswith(f"{layer}.") and f".{part}." in name]
        data = np.stack([quantised(tensors[name], kind, 0) for name in names])
        writer.add_tensor(f"blk.{number}.ffn_{stored}_exps.weight", data, raw_dtype=kind)
        made |= {name: gguf.dequantize(data[e], kind) for e, name in enumerate(names)}
    return made


def add_sizes(writer: Any, family: str, settings: dict[str, Any]) -> None:
    """Add the metadata of a model's sizes."""
    if family == "gpt2":
        writer.add_context_length(settings["n_positions"])
        writer.add_embedding_length(settings["n_embd"])
        writer.add_block_count(settings["n_layer"])
        writer.add_feed_forward_length(settings["n_inner"])
        writer.add_head_count(settings["n_head"])
        writer.add_layer_norm_eps(settings["layer_norm_epsilon"])
        return
    writer.add_vocab_size(settings["vocab_size"])
    writer.add_context_length(settings["max_position_embeddings"])
    writer.add_embedding_length(settings["hidden_size"])
    writer.add_block_count(settings["num_hidden_layers"])
    writer.add_feed_forward_length(settings["intermediate_size"])
    writer.add_head_count(settings["num_attention_heads"])
    writer.add_head_count_kv(settings["num_key_value_heads"])
    writer.add_key_length(settings["head_dim"])
    writer.add_value_length(settings["head_dim"])
    writer.add_layer_norm_rms_eps(settings["rms_norm_eps"])
    writer.add_rope_freq_base(settings["rope_theta"])
    turning = int(settings["head_dim"] * settings.get("partial_rotary_factor", 1.0))
    writer.add_rope_dimension_count(turning)
    if family == "mixtral":
        writer.add_expert_count(settings["num_local_experts"])
        writer.add_expert_used_count(settings["num_experts_per_tok"])
    if family in ("gemma2", "gemma3_text"):
        writer.add_sliding_window(settings["sliding_window"])
    if family == "gemma2":
        writer.add_attn_logit_softcapping(settings["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(settings["final_logit_softcapping"])
    if family == "gemma3_text":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(settings["rope_scaling"]["factor"])
        writer.add_float32("gemma3.rope.freq_base_swa", settings["rope_local_base_freq"])
    if family == "phi3":
        writer.add_rope_scaling_orig_ctx_len(settings["original_max_position_embeddings"])
