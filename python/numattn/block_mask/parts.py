"""What some queries see of a block mask, and what is seen of keys that lie elsewhere."""

from __future__ import annotations

import numpy as np

from numattn._names import Int64Array

from .lists import BLOCK, Bools, block_counts, lists_of
from .mask import BlockMask, BlocksByList


def first_queries(mask: BlockMask, entry: int, queries: int, keys: int) -> BlockMask:
    """Return what the first queries of one batch entry see, of as many keys as it has or more."""
    batch, heads = mask.shape[:2]
    before, now = (block_counts((1, 1, count, 0))[0] for count in (mask.shape[2], queries))
    first = (entry if batch > 1 else 0) * heads + np.arange(heads)
    starts = mask.starts[first[:, np.newaxis] * before + np.arange(now + 1)]
    parts = [mask.entries[own[0] : own[-1]] for own in starts]
    counts = np.diff(starts, axis=1).reshape(-1)
    return BlockMask.of_arrays(
        (1, heads, queries, keys),
        np.append(0, np.cumsum(counts, dtype=np.int64)),
        np.concatenate(parts),
        mask.words,
    )


def at_positions(mask: BlockMask, positions: Int64Array) -> BlockMask:
    """Return the mask of other keys: key s of batch entry b is key positions[b, s] of this one."""
    heads, queries = mask.shape[1:3]
    shape = (len(positions), heads, queries, positions.shape[1])
    lists = BlocksByList(mask)

    def rule(entry: int, head: int, i: Int64Array, j: Int64Array) -> Bools:
        wanted = positions[entry][j]
        blocks, place = np.unique(wanted // BLOCK, return_inverse=True)
        query_block = int(i[0, 0]) // BLOCK
        seen = lists.bits(entry, head, query_block, blocks[:, np.newaxis, np.newaxis] * BLOCK)
        at = (place.reshape(j.shape), np.arange(BLOCK)[:, np.newaxis], wanted % BLOCK)
        return np.asarray(seen[at])

    def candidates(entry: int, head: int, query_block: int) -> Int64Array:
        listed = np.isin(positions[entry] // BLOCK, lists.blocks(entry, head, query_block))
        return np.unique(np.flatnonzero(listed) // BLOCK)

    return BlockMask(shape, *lists_of(shape, rule, candidates))
