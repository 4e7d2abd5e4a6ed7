"""The oracle: numattn's public functions in plain NumPy, float64, formulas as written.

No compiled code, no blocking, no approximation: a reader can check each formula against the paper
it names, and a user can check numattn against it. Inputs of any float dtype (float16 and
``ml_dtypes.bfloat16`` included) are cast to float64, and every result is float64. It builds the
whole (B, Hq, Sq, Sk) score array, so it is meant for checking, not for work.

Examples
--------
>>> import numpy as np
>>> from numattn import reference
>>> q = k = v = np.eye(2).reshape(1, 1, 2, 2)
>>> reference.attention(q, k, v, is_causal=True)[0, 0, 0]
array([1., 0.])
"""

from __future__ import annotations

from . import approx
from .attention import attention, attention_scores, attention_weights
from .linear import Linear
from .merge import merge_states
from .mha import MultiHeadAttention
from .norm import layer_norm, rms_norm
from .paged import attention_paged
from .position import (
    alibi_slopes,
    learned,
    sinusoidal,
    sinusoidal_2d,
    t5_bias,
    t5_buckets,
)
from .ragged import attention_varlen
from .rope import Rope, apply_rope
from .sigmoid import gelu, sigmoid_attention, silu

__all__ = [
    "Linear",
    "MultiHeadAttention",
    "Rope",
    "alibi_slopes",
    "apply_rope",
    "approx",
    "attention",
    "attention_paged",
    "attention_scores",
    "attention_varlen",
    "attention_weights",
    "gelu",
    "layer_norm",
    "learned",
    "merge_states",
    "rms_norm",
    "sigmoid_attention",
    "silu",
    "sinusoidal",
    "sinusoidal_2d",
    "t5_bias",
    "t5_buckets",
]
