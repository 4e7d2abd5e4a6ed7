"""One layer of a cache, for what knows of no other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .base import Cache


@dataclass(frozen=True)
class CacheLayer:
    """A layer of a `KVCache` or `PagedKVCache`, made by its method `layer`.

    It holds no tokens of its own: what is attended to through it, the cache has.
    """

    cache: Cache
    index: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Return how many tokens each row of the layer has, (B,)."""
        return self.cache.layer_lengths(self.index)

    def attend(self, q: NDArray[Any], k: NDArray[Any], v: NDArray[Any], **options: Any) -> Any:
        """Return `Cache.attend` of this layer, with its options."""
        return self.cache.attend(self.index, q, k, v, **options)

    def forget(self, lengths: NDArray[np.int64]) -> None:
        """Take back the tokens that were appended since the layer had so many in each row, (B,)."""
        self.cache._forget(self.index, lengths)
