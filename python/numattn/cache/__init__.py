"""Caches of keys and values, which a decoder reads again at each step.

`KVCache` keeps the tokens of a row side by side; `PagedKVCache` keeps them in pages of one pool, so
that rows share what they have in common. Both are used in the same way.
"""

from __future__ import annotations

from numattn._quantize import Storage

from .base import Cache
from .cached_pages import CachedPages
from .contiguous import Cached, KVCache
from .layer import CacheLayer
from .paged import PagedKVCache

__all__ = ["Cache", "CacheLayer", "Cached", "CachedPages", "KVCache", "PagedKVCache", "Storage"]
