"""Settings of config.json that are left out, null or odd: logits of transformers, all the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiny_decoders import NULL, YARN_SCALING, config_of, load, random_ids, tensors_of, write_folder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SLIDING, FULL = "sliding_attention", "full_attention"
LONGROPE = {
    "type": "su",
    "short_factor": [1.0, 1.1],
    "long_factor": [2.0, 3.0],
}
# None: left out.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "llama": [
        {"rms_norm_eps": None},
        {"hidden_act": None},
        {"rope_theta": None},
        {"rope_theta": None, "rope_parameters": {"rope_theta": 500.0}},
        {"rope_scaling": YARN_SCALING, "rope_parameters": {"rope_theta": 1e4}},
        {"rope_scaling": {}, "rope_parameters": {"rope_type": "linear", "factor": 2.0}},
        {"sliding_window": 3},
        {"is_causal": True, "use_bidirectional_attention": False, "pretraining_tp": 2},
        {"head_dim": NULL},
    ],
    "mistral": [
        {"sliding_window": NULL},
        {"sliding_window": None},
        {"attention_bias": False, "mlp_bias": NULL, "use_bidirectional_attention": NULL},
        {"layer_types": [FULL, SLIDING, FULL]},
    ],
    "qwen2": [
        {"sliding_window": 5, "use_sliding_window": False},
        {"sliding_window": 5, "use_sliding_window": True},
        {"sliding_window": 5, "use_sliding_window": True, "max_window_layers": 1},
        {"attention_bias": False, "rms_norm_eps": None},
        {"sliding_window": 5, "use_sliding_window": True, "layer_types": [SLIDING, FULL, SLIDING]},
    ],
    "gemma2": [
        {"attn_logit_softcapping": None},
        {"attn_logit_softcapping": NULL},
        {"final_logit_softcapping": None},
        {"final_logit_softcapping": NULL},
        {"query_pre_attn_scalar": None},
        {"sliding_window": None, "hidden_activation": None, "tie_word_embeddings": None},
        {"layer_types": [FULL, FULL, SLIDING], "hidden_act": "relu"},
    ],
    "phi3": [
        {"rms_norm_eps": None},
        {"sliding_window": 5},
        {
            "original_max_position_embeddings": 16,
            "rope_scaling": {**LONGROPE, "original_max_position_embeddings": 8},
        },
        # The class's own 4096 stands above what the scaling says.
        {
            "original_max_position_embeddings": None,
            "rope_scaling": {**LONGROPE, "factor": 4.0, "original_max_position_embeddings": 8},
        },
        {"partial_rotary_factor": None, "rope_parameters": {"partial_rotary_factor": 0.5}},
    ],
    "qwen3": [
        {"attention_bias": False, "rms_norm_eps": None},
        {"sliding_window": 5, "use_sliding_window": False},
        {"sliding_window": 5, "use_sliding_window": True, "max_window_layers": 1},
        {"sliding_window": 5, "use_sliding_window": True, "layer_types": [SLIDING, FULL, SLIDING]},
        {"rope_scaling": YARN_SCALING},
    ],
    "gemma": [
        {"hidden_act": "gelu_pytorch_tanh"},
        {"hidden_act": None, "hidden_activation": "relu", "tie_word_embeddings": None},
        {"hidden_act": "silu", "sliding_window": 3, "use_bidirectional_attention": False},
    ],
    "gemma3_text": [
        {"sliding_window_pattern": None},
        {"sliding_window": None, "hidden_activation": None, "tie_word_embeddings": None},
        {"rope_theta": None, "rope_scaling": None},
        {"rope_local_base_freq": None, "query_pre_attn_scalar": None},
        {"layer_types": [FULL, SLIDING, FULL], "final_logit_softcapping": 2.0},
        {
            "rope_theta": None,
            "rope_scaling": None,
            "rope_local_base_freq": None,
            "rope_parameters": {
                FULL: {
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "rope_theta": 1e5,
                    "original_max_position_embeddings": 16,
                },
                SLIDING: {"rope_type": "default", "rope_theta": 500.0},
            },
        },
    ],
    "olmo2": [
        {"rms_norm_eps": None, "sliding_window": 4},
        {"rope_scaling": {"rope_type": "linear", "factor": 4.0}, "tie_word_embeddings": True},
    ],
    "granite": [
        {"attention_multiplier": None},
        {"embedding_multiplier": None, "residual_multiplier": None, "logits_scaling": None},
        {"rms_norm_eps": None, "hidden_act": "gelu"},
    ],
    "smollm3": [
        {"no_rope_layers": None, "no_rope_layer_interval": 2},
        {"no_rope_layers": None},
        {"no_rope_layers": [0, 0, 1, 1], "rope_theta": None},
        {"use_sliding_window": True, "sliding_window": 4},
        {"use_sliding_window": True, "sliding_window": 4, "layer_types": [SLIDING, FULL, FULL]},
        {"use_sliding_window": False, "sliding_window": 4, "tie_word_embeddings": None},
    ],
    "mixtral": [
        {"sliding_window": 5},
        {"rope_theta": None, "rms_norm_eps": None, "num_experts_per_tok": None},
        {"num_experts_per_tok": 1, "router_jitter_noise": 0.1, "output_router_logits": True},
        {"num_experts_per_tok": 5},
    ],
    "gpt_oss": [
        {"rope_scaling": None, "rope_theta": None},
        {"swiglu_limit": None, "swiglu_alpha": 1.2, "rms_norm_eps": None},
        {"sliding_window": None, "num_experts_per_tok": None},
        {"layer_types": [FULL, SLIDING, FULL]},
        {"rope_scaling": {**YARN_SCALING, "truncate": True, "beta_fast": 8.0, "beta_slow": 2.0}},
    ],
    "gpt_neox": [
        {"use_parallel_residual": False},
        {"rotary_pct": None, "rotary_emb_base": None, "layer_norm_eps": None, "hidden_act": None},
        {"rotary_pct": 1.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"is_decoder": True, "hidden_act": "gelu_new"},
    ],
    "gpt2": [
        {"activation_function": None, "layer_norm_epsilon": None},
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True, "n_inner": NULL},
        {"is_causal": True},
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("family", SETTINGS)
def test_settings_mean_what_they_mean_to_transformers(
    family: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    ids, tensors = random_ids(rng, 1, 24), tensors_of(config_of(family))
    for number, changes in enumerate(SETTINGS[family]):
        folder = write_folder(tmp_path / str(number), family, changes, tensors)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        for name, value in changes.items():  # it is there, or null, or left out
            assert config.get(name, None) == (None if value is NULL else value)
            assert (name in config) == (value is not None)
        other = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager"
        ).eval()
        with torch.no_grad():
            expected = other(torch.tensor(ids)).logits.numpy()
        error = np.linalg.norm(load(folder, family)(ids) - expected) / np.linalg.norm(expected)
        assert error < 1e-5, f"{changes}: {error:.2g}"
