"""Multi-head attention that continues what a layer of a cache holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn.cache import Cache, CacheLayer
from numattn.position import Rope

from .heads import Heads
from .rope import turn_heads

Array = NDArray[Any]


def continued(
    cache: Cache | CacheLayer,
    heads: Heads,
    rope: Rope | None,
    x: Array,
    values_from: Array | None,
    score: dict[str, Any],
    finish: Callable[[Array], Array],
) -> Array:
    """Append x to a layer, attend causally to all that it has, and return finish(o).

    The cache is as it was after any error, one of `finish` included.
    """
    num_threads = score["num_threads"]
    rows = x if x.ndim == 3 else x[np.newaxis]
    if values_from is not None and x.ndim == 2:
        values_from = values_from[np.newaxis]
    layer = fitting_layer(cache, heads, len(rows))
    both, v = heads.of_self(rows, values_from, num_threads)
    if v.dtype != layer.cache.dtype:
        raise TypeError(
            f"keys and values of this call are {v.dtype}, but the cache holds "
            f"{layer.cache.dtype}: make the cache with dtype={v.dtype.name!r}"
        )
    before = layer.lengths
    if rope is not None:
        positions = before[:, np.newaxis] + np.arange(rows.shape[1])
        lengths = np.maximum(before + rows.shape[1], 1)
        turn_heads(rope, both, positions, lengths, num_threads)
    q, k = both[..., : heads.num_heads, :], both[..., heads.num_heads :, :]
    o = layer.attend(q, k, v, **score)
    try:
        return finish(o)
    except BaseException:
        layer.forget(before)
        raise


def fitting_layer(cache: Cache | CacheLayer, heads: Heads, batch: int) -> CacheLayer:
    """The layer meant, or an error if it is not made for these heads and rows."""
    if isinstance(cache, Cache):
        if cache.layers != 1:
            raise ValueError(f"cache has {cache.layers} layers: give one, cache.layer(i)")
        cache = cache.layer(0)
    if not isinstance(cache, CacheLayer):
        raise TypeError(
            f"cache must be a layer of a KVCache or PagedKVCache, not {type(cache).__name__}"
        )
    wanted = {
        "batch": batch, "kv_heads": heads.num_kv_heads, "head_dim": heads.head_dim,
        "value_dim": heads.value_dim,
    }  # fmt: skip
    for name, size in wanted.items():
        if getattr(cache.cache, name) != size:
            raise ValueError(f"cache has {name} {getattr(cache.cache, name)}, and this call {size}")
    return cache


def refuse_with_cache(
    context: object, mask: object, bias: object, q_offset: ArrayLike, kv_lens: object, weights: bool
) -> None:
    """Raise ValueError for what attention over a cache does not take."""
    given = {
        "context": context is not None, "mask": mask is not None, "bias": bias is not None,
        "q_offset": not (isinstance(q_offset, int) and q_offset == 0),
        "kv_lens": kv_lens is not None, "return_weights": weights,
    }  # fmt: skip
    refused = [name for name, is_given in given.items() if is_given]
    if refused:
        raise ValueError(
            f"{refused[0]} cannot be given with a cache: x continues what the cache holds, "
            "causally, and each query sees all keys up to its own"
        )
