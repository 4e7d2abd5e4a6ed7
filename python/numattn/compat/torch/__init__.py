"""PyTorch's attention and flash-attn's, by their own names and signatures, on the CPU.

    scaled_dot_product_attention     that of torch.nn.functional
    MultiheadAttention, convert      torch.nn.MultiheadAttention, and its replacement in a model
    flash_attn_func, flash_attn_varlen_func, flash_attn_with_kvcache     those of flash-attn ≥ 2.1

Tensors are read in place. There are no gradients: a call that would need one is refused. In
torch.compile and torch.export, calls are the operators ``numattn::attention`` and
``numattn::attention_weights``. torch itself is imported when a name is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numattn.compat.torch.flash import flash_attn_func, flash_attn_varlen_func
    from numattn.compat.torch.kvcache import flash_attn_with_kvcache
    from numattn.compat.torch.multihead import MultiheadAttention, convert
    from numattn.compat.torch.sdpa import scaled_dot_product_attention

__all__ = [
    "MultiheadAttention",
    "convert",
    "flash_attn_func",
    "flash_attn_varlen_func",
    "flash_attn_with_kvcache",
    "scaled_dot_product_attention",
]

_MODULES = {
    "MultiheadAttention": "multihead",
    "convert": "multihead",
    "flash_attn_func": "flash",
    "flash_attn_varlen_func": "flash",
    "flash_attn_with_kvcache": "kvcache",
    "scaled_dot_product_attention": "sdpa",
}


def __getattr__(name: str) -> Any:
    """Load what waits, and register the operators."""
    if name not in _MODULES:
        raise AttributeError(f"module 'numattn.compat.torch' has no attribute {name!r}")
    import_module("numattn.compat.torch.operators").registered()
    thing = getattr(import_module(f"numattn.compat.torch.{_MODULES[name]}"), name)
    globals()[name] = thing
    return thing


def __dir__() -> list[str]:
    """List what waits, too."""
    return sorted({*globals(), *__all__})
