"""One layer of a cache, as a layer of a model is given it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from numattn._names import Array, Int64Array, Layout, Output
from numattn._score import CachedScore, require_known, spelled_out

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .base import Cache


@dataclass(frozen=True)
class CacheLayer:
    """A layer of a `KVCache` or `PagedKVCache`, made by its method `layer`.

    It holds no tokens of its own: what is attended to through it, the cache has.
    """

    cache: Cache
    index: int

    @property
    def lengths(self) -> Int64Array:
        """Return how many tokens each row of the layer has, (B,)."""
        return self.cache.layer_lengths(self.index)

    @spelled_out(CachedScore)
    def attend(
        self,
        q: Array,
        k: Array,
        v: Array | None = None,
        *,
        counts: ArrayLike | None = None,
        layout: Layout = "bhsd",
        out: Output | None = None,
        num_threads: int | None = None,
        **score: Unpack[CachedScore],
    ) -> Array:
        """Return `Cache.attend` of this layer."""
        if score:
            require_known("CacheLayer.attend", score, CachedScore)
        return self.cache.attend(
            self.index, q, k, v, counts=counts, layout=layout, out=out, num_threads=num_threads,
            **score,
        )  # fmt: skip

    def forget(self, lengths: Int64Array) -> None:
        """Take back the tokens that were appended since the layer had so many in each row, (B,)."""
        self.cache._forget(self.index, lengths)
