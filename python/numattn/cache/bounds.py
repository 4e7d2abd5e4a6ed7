"""Bounds of a pool's keys, page by page, for those pages that are full."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from numattn._names import Array, Int64Array


class LayerBounds(NamedTuple):
    """The least and the largest number of each channel among the keys of one layer's pages."""

    low: Array
    """(P, Hkv, D)"""
    high: Array
    """(P, Hkv, D)"""
    known: NDArray[np.bool_]
    """(P,): of which pages"""


class PoolBounds:
    """Those of the layers that were asked for, made when they are, of pages filled since then."""

    def __init__(self) -> None:
        self._layers: dict[int, LayerBounds] = {}

    def forget(self, pages: list[int]) -> None:
        """Have pages looked at again, which will be written to."""
        for bounds in self._layers.values():
            bounds.known[pages] = False

    def of(self, layer: int, pool: Array, full: Int64Array) -> LayerBounds:
        """Return a layer's, of keys (P, page, Hkv, D), right for the full pages."""
        if layer not in self._layers:
            shape = (len(pool), *pool.shape[2:])
            low, high = (np.zeros(shape, pool.dtype) for _ in range(2))
            self._layers[layer] = LayerBounds(low, high, np.zeros(len(pool), np.bool_))
        bounds = self._layers[layer]
        new = np.unique(full[~bounds.known[full]])
        if new.size:
            keys = pool[new]
            with np.errstate(invalid="ignore"):
                bounds.low[new], bounds.high[new] = keys.min(axis=1), keys.max(axis=1)
            bounds.known[new] = True
        return bounds
