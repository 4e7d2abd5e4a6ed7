"""numattn under Keras 3's ``ops.dot_product_attention``, and the layers that stand on it.

    >>> import numattn.compat.keras
    >>> numattn.compat.keras.enable()    # doctest: +SKIP

For the NumPy, PyTorch and JAX backends, on the CPU. What numattn cannot compute is Keras' own as
before: gradients, what JAX traces (``jit``, ``grad``), other devices and dtypes, and Keras' soft
cap, whose formula is another. So a model trains as it did, and predicts by numattn where it runs
eagerly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from numattn import attention

__all__ = ["disable", "enable", "enabled"]

BACKENDS = ("numpy", "torch", "jax")
COMPUTED = ("float32", "float16", "bfloat16")

_own: dict[str, Callable[..., Any]] = {}
"""Keras' own function, while numattn stands in its place."""


def enable() -> None:
    """Have Keras compute ``dot_product_attention`` by numattn, where it can.

    Raises
    ------
    ImportError
        Keras 3 is not installed.
    ValueError
        Its backend is another than NumPy, PyTorch and JAX.
    """
    module, name = _backend()
    if name not in BACKENDS:
        raise ValueError(f"Keras' backend must be one of {', '.join(BACKENDS)}, not {name}")
    if enabled():
        return
    own = module.dot_product_attention
    _own[name] = own
    module.dot_product_attention = _standing_in(own, name)


def disable() -> None:
    """Give Keras its own function back."""
    module, name = _backend()
    if name in _own:
        module.dot_product_attention = _own.pop(name)


def enabled() -> bool:
    """Whether numattn stands in for Keras' own function."""
    return bool(_own)


def _backend() -> tuple[Any, str]:
    try:
        from keras.src import backend
    except ImportError as error:
        raise ImportError("numattn.compat.keras needs Keras 3: pip install keras") from error
    return backend.nn, backend.backend()


def _standing_in(own: Callable[..., Any], backend: str) -> Callable[..., Any]:
    def dot_product_attention(
        query: Any,
        key: Any,
        value: Any,
        bias: Any = None,
        mask: Any = None,
        scale: float | None = None,
        is_causal: bool = False,
        flash_attention: bool | None = None,
        attn_logits_soft_cap: float | None = None,
    ) -> Any:
        """Attention over (B, S, H, D) by numattn, or by Keras where that cannot."""
        given = (query, key, value, bias, mask)
        plain = not flash_attention and attn_logits_soft_cap is None
        if plain and _is_ours(given, backend):
            return attention(
                query, key, value, mask=mask, bias=bias, is_causal=bool(is_causal), scale=scale,
                layout="bshd",
            )  # fmt: skip
        return own(
            query, key, value, bias=bias, mask=mask, scale=scale, is_causal=is_causal,
            flash_attention=flash_attention, attn_logits_soft_cap=attn_logits_soft_cap,
        )  # fmt: skip

    return dot_product_attention


def _is_ours(given: tuple[Any, ...], backend: str) -> bool:
    """Whether numattn takes these as they are: eager, on the CPU, of shapes and dtypes that fit."""
    query, key, value, bias, mask = given
    if not all(_is_plain(x, backend) for x in given if x is not None):
        return False
    if backend == "torch" and bias is not None and mask is not None:
        return False  # Keras' own error
    names = {_dtype_name(x) for x in (query, key, value)}
    if len(names) != 1 or not names <= set(COMPUTED):
        return False
    if bias is not None and _dtype_name(bias) not in {"float32", *names}:
        return False
    if mask is not None and _dtype_name(mask) != "bool":
        return False
    if not len(query.shape) == len(key.shape) == len(value.shape) == 4:
        return False
    heads, kv_heads = query.shape[2], key.shape[2]
    return bool(kv_heads) and heads % kv_heads == 0 and len(query) == len(key) == len(value)


def _is_plain(x: Any, backend: str) -> bool:
    if backend == "numpy" or isinstance(x, np.ndarray):
        return isinstance(x, np.ndarray)
    if backend == "torch":
        import torch

        wanted = torch.is_grad_enabled() and getattr(x, "requires_grad", False)
        return type(x) is torch.Tensor and x.device.type == "cpu" and not wanted
    import jax

    return (
        isinstance(x, jax.Array)
        and not isinstance(x, jax.core.Tracer)
        and {device.platform for device in x.devices()} == {"cpu"}
    )


def _dtype_name(x: Any) -> str:
    return str(x.dtype).removeprefix("torch.")
