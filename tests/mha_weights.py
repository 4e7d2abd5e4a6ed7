"""Parameters of `MultiHeadAttention` for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases import normal


def mha_weights(
    rng: np.random.Generator, sizes: tuple[int, int, int, int, int, int], with_bias: bool
) -> dict[str, Any]:
    """Return unit-normal parameters, scaled so that each projection is of the order of 1.

    `sizes` are E, Hq, Hkv, D, Dv and the width of the context.
    """
    width, heads, kv_heads, dim, value_dim, context_width = sizes
    shapes = {
        "wq": (heads * dim, width),
        "wk": (kv_heads * dim, context_width),
        "wv": (kv_heads * value_dim, context_width),
        "wo": (width, heads * value_dim),
    }
    made: dict[str, Any] = {
        name: (normal(rng, shape) / np.sqrt(shape[1])).astype(np.float32)
        for name, shape in shapes.items()
    }
    if with_bias:
        made |= {f"b{name[1]}": normal(rng, shape[:1]) for name, shape in shapes.items()}
    return {"num_heads": heads, "num_kv_heads": kv_heads, **made}
