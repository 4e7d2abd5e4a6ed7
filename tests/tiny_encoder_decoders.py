"""Hugging Face folders of tiny random encoder–decoders, written by the tests themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

VOCABULARY = 67
FAIRSEQ: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 48,
    "activation_function": "gelu",
    "max_position_embeddings": 48,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
}
T5: dict[str, Any] = {
    "model_type": "t5",
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 12,
    "d_ff": 40,
    "num_heads": 3,
    "num_layers": 3,
    "num_decoder_layers": 2,  # no more than of the encoder, or transformers' cache fails
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu",
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "t5": T5,
    "flan": {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "mt5": {**T5, "model_type": "mt5", "feed_forward_proj": "gated-silu"},
    "bart": {**FAIRSEQ, "model_type": "bart"},
    "mbart": {**FAIRSEQ, "model_type": "mbart", "scale_embedding": True},
    "marian": {
        **FAIRSEQ,
        "model_type": "marian",
        "scale_embedding": True,
        "activation_function": "swish",
        "pad_token_id": VOCABULARY - 1,
        "decoder_start_token_id": VOCABULARY - 1,
        "bad_words_ids": [[VOCABULARY - 1]],
    },
}
FAMILIES = tuple(CONFIGS)
# A Marian that writes tokens of another vocabulary than it reads.
TEXTS = 53
SEPARATE: dict[str, Any] = {
    "share_encoder_decoder_embeddings": False,
    "decoder_vocab_size": TEXTS,
    "pad_token_id": TEXTS - 1,
    "decoder_start_token_id": TEXTS - 1,
    "bad_words_ids": [[TEXTS - 1]],
}

END, START, TRANSLATE, TRANSCRIBE, NO_TIMES, STEPS = 50, 51, 55, 56, 59, 100
LANGUAGES = {"<|en|>": 52, "<|de|>": 53, "<|pt|>": 54}
WHISPER: dict[str, Any] = {
    **{name: FAIRSEQ[name] for name in FAIRSEQ if name.endswith(("layers", "heads", "ffn_dim"))},
    "model_type": "whisper",
    "d_model": 32,
    "vocab_size": NO_TIMES + 2 + STEPS,
    "num_mel_bins": 20,
    "max_source_positions": STEPS,
    "max_target_positions": 40,
    "activation_function": "gelu",
    "pad_token_id": END,
    "bos_token_id": END,
    "eos_token_id": END,
    "decoder_start_token_id": START,
}
SPEECH: dict[str, Any] = {
    "pad_token_id": END,
    "bos_token_id": END,
    "eos_token_id": END,
    "decoder_start_token_id": START,
    "is_multilingual": True,
    "lang_to_id": LANGUAGES,
    "task_to_id": {"translate": TRANSLATE, "transcribe": TRANSCRIBE},
    "no_timestamps_token_id": NO_TIMES,
    "max_initial_timestamp_index": 50,
    "suppress_tokens": [1, 2, START, 52, 53, 54, TRANSLATE, TRANSCRIBE, 57, 58],
    "begin_suppress_tokens": [3, END],
    "forced_decoder_ids": [[1, None], [2, TRANSCRIBE]],
    "max_length": 40,
}
SOUND = {"feature_size": 20, "chunk_length": 2, "sampling_rate": 16000, "hop_length": 160,
         "n_fft": 400, "feature_extractor_type": "WhisperFeatureExtractor"}  # fmt: skip
POSITIONS_OF_FAIRSEQ = 2


class Weights:
    """Random tensors under the names of a published file."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors: dict[str, NDArray[np.float32]] = {}

    def matrix(self, name: str, rows: int, columns: int, scale: float | None = None) -> None:
        size = columns**-0.5 if scale is None else scale
        self.tensors[name] = (self.rng.standard_normal((rows, columns)) * size).astype(np.float32)

    def linear(self, name: str, rows: int, columns: int, *, bias: bool = True) -> None:
        self.matrix(f"{name}.weight", rows, columns, 2 * columns**-0.5)
        if bias:
            self.tensors[f"{name}.bias"] = self.vector(rows, 0.3)

    def vector(self, size: int, scale: float, mean: float = 0.0) -> NDArray[np.float32]:
        return (mean + scale * self.rng.standard_normal(size)).astype(np.float32)

    def norm(self, name: str, width: int, *, bias: bool = True) -> None:
        self.tensors[f"{name}.weight"] = self.vector(width, 0.2, 1.0)
        if bias:
            self.tensors[f"{name}.bias"] = self.vector(width, 0.2)


def fairseq_layers(weights: Weights, config: dict[str, Any], *, keys_biased: bool = True) -> None:
    width = config["d_model"]
    for stack in ("encoder", "decoder"):
        for number in range(config[f"{stack}_layers"]):
            name = f"model.{stack}.layers.{number}"
            for attention in ("self_attn", "encoder_attn")[: 1 + (stack == "decoder")]:
                for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    bias = keys_biased or part != "k_proj"
                    weights.linear(f"{name}.{attention}.{part}", width, width, bias=bias)
                weights.norm(f"{name}.{attention}_layer_norm", width)
            inner = config[f"{stack}_ffn_dim"]
            weights.linear(f"{name}.fc1", inner, width)
            weights.linear(f"{name}.fc2", width, inner)
            weights.norm(f"{name}.final_layer_norm", width)


def bart_tensors(config: dict[str, Any], seed: int) -> dict[str, NDArray[np.float32]]:
    weights, width = Weights(seed), config["d_model"]
    family = config["model_type"]
    size = config.get("decoder_vocab_size", VOCABULARY)
    if config.get("share_encoder_decoder_embeddings", True):
        weights.matrix("model.shared.weight", VOCABULARY, width, 0.3)
    else:
        for stack, rows in (("encoder", VOCABULARY), ("decoder", size)):
            weights.matrix(f"model.{stack}.embed_tokens.weight", rows, width, 0.3)
    weights.tensors["final_logits_bias"] = weights.vector(size, 0.5)[np.newaxis]
    fairseq_layers(weights, config)
    for stack in ("encoder", "decoder"):
        if family != "marian":
            rows = config["max_position_embeddings"] + POSITIONS_OF_FAIRSEQ
            weights.matrix(f"model.{stack}.embed_positions.weight", rows, width, 0.3)
            weights.norm(f"model.{stack}.layernorm_embedding", width)
        if family == "mbart":
            weights.norm(f"model.{stack}.layer_norm", width)
    return weights.tensors


def t5_tensors(config: dict[str, Any], seed: int) -> dict[str, NDArray[np.float32]]:
    weights, width = Weights(seed), config["d_model"]
    inner = config["num_heads"] * config["d_kv"]
    gated = config["feed_forward_proj"].startswith("gated-")
    weights.matrix("shared.weight", VOCABULARY, width, 1.0)
    if config.get("tie_word_embeddings") is False:
        weights.matrix("lm_head.weight", VOCABULARY, width, 0.3)
    counts = {"encoder": config["num_layers"], "decoder": config["num_decoder_layers"]}
    for stack, count in counts.items():
        for number in range(count):
            name = f"{stack}.block.{number}.layer"
            parts = ("SelfAttention", "EncDecAttention")[: 1 + (stack == "decoder")]
            for index, attention in enumerate(parts):
                for part in "qkv":
                    weights.matrix(f"{name}.{index}.{attention}.{part}.weight", inner, width, 0.15)
                weights.matrix(f"{name}.{index}.{attention}.o.weight", width, inner)
                weights.norm(f"{name}.{index}.layer_norm", width, bias=False)
            ffn = f"{name}.{len(parts)}.DenseReluDense"
            for part in ("wi_0", "wi_1") if gated else ("wi",):
                weights.matrix(f"{ffn}.{part}.weight", config["d_ff"], width)
            weights.matrix(f"{ffn}.wo.weight", width, config["d_ff"])
            weights.norm(f"{name}.{len(parts)}.layer_norm", width, bias=False)
        weights.matrix(
            f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            config["relative_attention_num_buckets"],
            config["num_heads"],
            1.0,
        )
        weights.norm(f"{stack}.final_layer_norm", width, bias=False)
    return weights.tensors


def whisper_tensors(seed: int) -> dict[str, NDArray[np.float32]]:
    weights, width, bands = Weights(seed), WHISPER["d_model"], WHISPER["num_mel_bins"]
    for name, columns in (("conv1", bands), ("conv2", width)):
        weights.linear(f"model.encoder.{name}", width, 3 * columns)
        flat = weights.tensors.pop(f"model.encoder.{name}.weight")
        weights.tensors[f"model.encoder.{name}.weight"] = flat.reshape(width, columns, 3)
    weights.matrix("model.encoder.embed_positions.weight", STEPS, width, 0.5)
    weights.matrix("model.decoder.embed_positions.weight", 40, width, 2.0)
    weights.matrix("model.decoder.embed_tokens.weight", WHISPER["vocab_size"], width, 0.3)
    fairseq_layers(weights, WHISPER, keys_biased=False)
    for stack in ("encoder", "decoder"):
        weights.norm(f"model.{stack}.layer_norm", width)
    return weights.tensors


def write_whisper(folder: Path, speech: dict[str, Any] | None = None, seed: int = 0) -> Path:
    """Write the folder of a Whisper whose windows are of 2 s."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(WHISPER))
    (folder / "generation_config.json").write_text(json.dumps({**SPEECH, **(speech or {})}))
    (folder / "preprocessor_config.json").write_text(json.dumps(SOUND))
    save_file(whisper_tensors(seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def speech_like(seconds: float, seed: int = 0) -> NDArray[np.float32]:
    """Return samples at 16 kHz of tones that come and go, with noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * 16000)) / 16000
    sound = 0.02 * rng.standard_normal(time.size)
    for frequency in rng.uniform(80, 4000, 12):
        sound += 0.1 * np.sin(2 * np.pi * frequency * time) * (np.sin(frequency * time / 99) > 0)
    return sound.astype(np.float32)


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    """Return what of a config.json a generation_config.json says."""
    names = ("pad_token_id", "eos_token_id", "decoder_start_token_id", "forced_eos_token_id")
    names += ("bad_words_ids",)
    return {name: config[name] for name in names if name in config} | {"max_length": 20}


def write_folder(
    folder: Path,
    family: str,
    changes: dict[str, Any] | None = None,
    generation: dict[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """Write config.json, generation_config.json if there is one, and model.safetensors."""
    config = {**CONFIGS[family], **(changes or {})}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    tensors = t5_tensors if config["model_type"] in ("t5", "mt5") else bart_tensors
    save_file(tensors(config, seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder
