"""Make position_golden.npz: what transformers computes for positions.

    pip install torch transformers
    python tests/data/make_position_golden.py

Run it again only if the cases below change; the file is committed, so that the tests need neither
of the two libraries. Frequencies are float32, as transformers computes them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.bloom.modeling_bloom import _get_alibi_slopes
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding
from transformers.models.t5.modeling_t5 import T5Attention
from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

LONG = {
    "short_factor": [1.0 + 0.05 * i for i in range(16)],
    "long_factor": [1.0 + 1.5 * i for i in range(16)],
    "original_max_position_embeddings": 4096,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}

# (parts of config.json beside head_dim 32 and max_position_embeddings 8192, length or None)
ROPES: dict[str, tuple[dict[str, Any], int | None]] = {
    "default": ({"rope_type": "default"}, None),
    "theta": ({"rope_type": "default", "rope_theta": 5e5}, None),
    "partial": ({"rope_type": "default", "partial_rotary_factor": 0.25}, None),
    "linear": ({"rope_type": "linear", "factor": 2.5}, None),
    "linear_partial": ({"rope_type": "linear", "factor": 8, "partial_rotary_factor": 0.5}, None),
    "dynamic_short": ({"rope_type": "dynamic", "factor": 4.0}, 100),
    "dynamic_trained": ({"rope_type": "dynamic", "factor": 4.0}, 8192),
    "dynamic_long": ({"rope_type": "dynamic", "factor": 2.0}, 20000),
    "yarn": (YARN, None),
    "yarn_theta": ({**YARN, "rope_theta": 1e6, "factor": 40.0}, None),
    "yarn_betas": ({**YARN, "beta_fast": 16.0, "beta_slow": 2.0}, None),
    "yarn_untruncated": ({**YARN, "truncate": False}, None),
    "yarn_mscale": ({**YARN, "factor": 40.0, "mscale": 0.707, "mscale_all_dim": 1.0}, None),
    "yarn_attention": ({**YARN, "attention_factor": 1.25}, None),
    "yarn_partial": ({**YARN, "partial_rotary_factor": 0.5}, None),
    "yarn_tiny": ({**YARN, "original_max_position_embeddings": 4}, None),
    "llama3": (
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 2048,
            "rope_theta": 5e5,
        },
        None,
    ),
    "longrope_short": ({"rope_type": "longrope", **LONG}, 4096),
    "longrope_long": ({"rope_type": "longrope", **LONG}, 4097),
    "longrope_factor": ({"rope_type": "longrope", **LONG, "factor": 32.0}, None),
    "longrope_attention": ({"rope_type": "longrope", **LONG, "attention_factor": 1.1}, None),
    "proportional": (
        {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
        None,
    ),
}

# (num_buckets, bidirectional, max_distance)
BUCKETS = [
    (32, True, 128),
    (32, False, 128),
    (320, True, 800),
    (64, False, 300),
    (9, True, 17),
    (6, False, 4),
    (16, True, 64),
]


def ropes() -> dict[str, Any]:
    """Each case with its frequencies and attention factor."""
    found = {}
    for name, (parameters, length) in ROPES.items():
        given = {"rope_theta": 10000.0, **parameters}
        config = LlamaConfig(
            hidden_size=128,
            num_attention_heads=4,
            head_dim=32,
            max_position_embeddings=8192,
            rope_parameters=dict(given),
        )
        kind = given["rope_type"]
        if kind == "default":
            default = Phi3RotaryEmbedding.compute_default_rope_parameters
            frequencies, factor = default(config)
        else:
            frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, None, seq_len=length)
        found[name] = {
            "config": {
                "hidden_size": 128,
                "num_attention_heads": 4,
                "head_dim": 32,
                "max_position_embeddings": 8192,
                "rope_parameters": given,
            },
            "length": length,
            "frequencies": frequencies.double().tolist(),
            "attention_factor": float(factor),
        }
    return found


def main() -> None:
    """Compute and write the file beside this script."""
    near = np.arange(-1000, 1001)
    relative = np.concatenate((near, [-(10**6), -65536, 65536, 10**6]))
    buckets = [
        T5Attention._relative_position_bucket(torch.tensor(relative), both_ways, count, farthest)
        for count, both_ways, farthest in BUCKETS
    ]
    heads = [1, 2, 3, 6, 8, 12, 16, 20, 25, 71, 112]
    slopes = [_get_alibi_slopes(count, torch.device("cpu")) for count in heads]
    np.savez_compressed(
        Path(__file__).with_name("position_golden.npz"),
        ropes=np.array(json.dumps(ropes())),
        t5_settings=np.array(BUCKETS),
        t5_relative=relative,
        t5_buckets=torch.stack(buckets).numpy().astype(np.int16),
        alibi_heads=np.array(heads),
        alibi_slopes=torch.cat(slopes).numpy(),
        patches=build_2d_sinusoidal_position_embedding(5, 7, 24).numpy(),
    )


if __name__ == "__main__":
    main()
