"""Multi-head attention that continues what a layer of a cache holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np

from numattn._names import Array
from numattn._score import CachedScore, ScoreOptions
from numattn.cache import Cache, CacheLayer
from numattn.position import Rope

from .heads import Heads
from .rope import turn_heads


def continued(
    cache: Cache | CacheLayer,
    heads: Heads,
    rope: Rope | None,
    x: Array,
    values_from: Array | None,
    score: CachedScore,
    num_threads: int | None,
    finish: Callable[[Array], Array],
) -> Array:
    """Append x to a layer, attend causally to all that it has, and return finish(o).

    The cache is as it was after any error, one of `finish` included.
    """
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
    o = layer.attend(q, k, v, layout="bshd", num_threads=num_threads, **score)
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


def score_with_cache(score: ScoreOptions, context: object, weights: bool) -> CachedScore:
    """What attention over a cache takes of a score; ValueError if more than that is given."""
    kept: dict[str, Any] = {}
    given = {"context": context, "return_weights": weights or None}
    for name, value in score.items():
        (kept if name in CachedScore.__optional_keys__ else given)[name] = value
    given.pop("is_causal", None)  # it is causal whatever this says
    if isinstance(given.get("q_offset"), int) and given["q_offset"] == 0:  # the default
        del given["q_offset"]
    refused = [name for name, value in given.items() if value is not None]
    if refused:
        raise ValueError(
            f"{refused[0]} cannot be given with a cache: x continues what the cache holds, "
            "causally, and each query sees all keys up to its own"
        )
    return cast(CachedScore, kept)
