"""Attention for NumPy, on the CPU.

>>> import numpy as np
>>> import numattn as na
>>> x = np.random.default_rng(0).standard_normal((1, 8, 128, 64), np.float32)
>>> na.attention(x, x, x, is_causal=True).shape
(1, 8, 128, 64)
"""

from __future__ import annotations

from typing import Any

from numattn import _core, isa, patterns, position, spans, threads
from numattn._attention import attention, attention_weights
from numattn._core import __version__
from numattn._plan import Plan, plan
from numattn._quantize import quantize
from numattn.block_mask import BlockMask
from numattn.cache import KVCache, PagedKVCache
from numattn.config import show_config
from numattn.linear import Linear
from numattn.merge import merge_states
from numattn.mha import MultiHeadAttention, ProjectedContext
from numattn.norm import layer_norm, rms_norm
from numattn.paged import attention_paged
from numattn.ragged import attention_varlen
from numattn.rope import apply_rope
from numattn.threads import get_num_threads, set_num_threads

__all__ = [
    "BlockMask",
    "KVCache",
    "Linear",
    "MultiHeadAttention",
    "PagedKVCache",
    "Plan",
    "ProjectedContext",
    "__version__",
    "apply_rope",
    "attention",
    "attention_paged",
    "attention_varlen",
    "attention_weights",
    "get_num_threads",
    "isa",
    "layer_norm",
    "merge_states",
    "patterns",
    "plan",
    "position",
    "quantize",
    "reference",
    "rms_norm",
    "set_num_threads",
    "show_config",
    "spans",
]

_core.load_numpy()
isa._use_environment()
threads._use_environment()


def __getattr__(name: str) -> Any:
    """Load the oracle when it is first asked for: most programs never do."""
    if name == "reference":
        import numattn.reference as reference

        return reference
    raise AttributeError(f"module 'numattn' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List what waits to be loaded, too."""
    return sorted({*globals(), *__all__})
