"""Attention for NumPy, on the CPU.

>>> import numpy as np
>>> import numattn as na
>>> x = np.random.default_rng(0).standard_normal((1, 8, 128, 64), np.float32)
>>> na.attention(x, x, x, is_causal=True).shape
(1, 8, 128, 64)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
from numattn.mha import HeadNorm, MultiHeadAttention, ProjectedContext
from numattn.norm import layer_norm, rms_norm
from numattn.paged import attention_paged
from numattn.ragged import attention_varlen
from numattn.rope import apply_rope
from numattn.threads import get_num_threads, set_num_threads

if TYPE_CHECKING:
    from numattn import approx, reference
    from numattn._activations import gelu, silu
    from numattn._headers import get_cmake_dir, get_include
    from numattn._sigmoid import sigmoid_attention
    from numattn._windows import unwindow, window_mask, windows

__all__ = [
    "BlockMask",
    "HeadNorm",
    "KVCache",
    "Linear",
    "MultiHeadAttention",
    "PagedKVCache",
    "Plan",
    "ProjectedContext",
    "__version__",
    "apply_rope",
    "approx",
    "attention",
    "attention_paged",
    "attention_varlen",
    "attention_weights",
    "gelu",
    "get_cmake_dir",
    "get_include",
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
    "sigmoid_attention",
    "silu",
    "spans",
    "unwindow",
    "window_mask",
    "windows",
]

_core.load_numpy()
threads._use_environment()


# What waits until it is first asked for, since most programs never do: its module.
_WAITING = {
    "approx": "numattn.approx",
    "gelu": "numattn._activations",
    "get_cmake_dir": "numattn._headers",
    "get_include": "numattn._headers",
    "reference": "numattn.reference",
    "sigmoid_attention": "numattn._sigmoid",
    "silu": "numattn._activations",
    "unwindow": "numattn._windows",
    "window_mask": "numattn._windows",
    "windows": "numattn._windows",
}


def __getattr__(name: str) -> Any:
    """Load what waits."""
    if name not in _WAITING:
        raise AttributeError(f"module 'numattn' has no attribute {name!r}")
    module = import_module(_WAITING[name])
    thing = module if module.__name__ == f"numattn.{name}" else getattr(module, name)
    globals()[name] = thing
    return thing


def __dir__() -> list[str]:
    """List what waits to be loaded, too."""
    return sorted({*globals(), *__all__})
