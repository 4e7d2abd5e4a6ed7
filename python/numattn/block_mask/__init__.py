"""Which blocks of keys each block of queries sees: the argument ``block_mask`` of attention.

A list names key blocks of 64 for a block of 64 queries; each is seen as a whole, or by bits of its
own: 64 words of 64, the bit j of word i for query i and key j of the block.
"""

from __future__ import annotations

from .mask import BlockMask

__all__ = ["BlockMask"]
