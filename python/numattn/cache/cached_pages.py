"""What a `PagedKVCache` hands to attention."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from numattn._names import Array, Int64Array


class CachedPages(NamedTuple):
    """The tokens of one layer as :func:`numattn.attention_paged` reads them: its arguments."""

    k_pages: Array
    """(P, page, Hkv, D): the pool's pages of this layer, a view. With wide channels
    (P, page, Hkv, D + E)."""
    v_pages: Array
    """(P, page, Hkv, Dv), likewise."""
    block_table: NDArray[np.int32]
    """(B, n): token t of row b is in slot t % page of page block_table[b, t // page]."""
    q_offset: Int64Array
    """(B,): the position of the first new token of each row."""
    kv_lens: Int64Array
    """(B,): how many tokens each row has."""
    k_scale: Array | None = None
    """(P, page, Hkv): what the integers of k are multiplied by, if the cache stores such."""
    v_scale: Array | None = None
    """(P, page, Hkv), likewise."""
    k_wide: Int64Array | None = None
    """(Hkv, E): which channels of k have 16 bits, if any do."""

    @property
    def keys(self) -> int:
        """Return how many keys attention finds there for each row: those of all its pages."""
        return int(self.block_table.shape[1] * self.k_pages.shape[1])

    def row(self, index: int) -> CachedPages:
        """Return the tokens of one row, as a batch of its own."""
        one = slice(index, index + 1)
        return self._replace(
            block_table=self.block_table[one],
            q_offset=self.q_offset[one],
            kv_lens=self.kv_lens[one],
        )
