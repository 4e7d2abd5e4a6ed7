"""Lists of key blocks from a rule: which blocks it shows, and the bits of those shown in part."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn._arguments import as_array
from numattn._names import Int64Array

BLOCK = 64
_CHUNK = 512  # key blocks whose bits a rule is asked for at a time: 2 MiB of them

Words = NDArray[np.uint64]
Bools = NDArray[np.bool_]
Shape = tuple[int, int, int, int]
Lists = tuple[Int64Array, Int64Array, Int64Array, Words]
Rule = Callable[[int, int, Int64Array, Int64Array], ArrayLike]
Blocks = Callable[[int, int, int], Int64Array]


def unpacked(words: Words) -> Bools:
    """Return bits of words (..., 64) as bools (..., 64, 64)."""
    octets = np.ascontiguousarray(words).astype("<u8").view(np.uint8)
    bits = np.unpackbits(octets, bitorder="little").view(np.bool_)
    return bits.reshape(*words.shape, BLOCK)


def packed(bits: Bools) -> Words:
    """Return bools (..., 64, 64) as words (..., 64)."""
    octets = np.packbits(bits.reshape(-1), bitorder="little")
    return octets.view("<u8").astype(np.uint64).reshape(bits.shape[:-1])


def block_counts(shape: Shape) -> tuple[int, int]:
    """Return how many blocks of queries and of keys there are."""
    return -(-shape[2] // BLOCK), -(-shape[3] // BLOCK)


def lists_of(shape: Shape, rule: Rule, candidates: Blocks | None = None) -> Lists:
    """Return starts, blocks, bits and words of a rule's mask.

    The rule is asked only about the key blocks candidates(b, h, query block), in order.
    """
    batch, heads, queries, keys = shape
    query_blocks, key_blocks = block_counts(shape)
    every = np.arange(key_blocks)
    counts: list[int] = [0]
    blocks: list[Int64Array] = [every[:0]]
    bits: list[Int64Array] = [every[:0]]
    words: list[Words] = [np.zeros((0, BLOCK), np.uint64)]
    kept = 0
    for b, h, query_block in np.ndindex(batch, heads, query_blocks):
        own = every if candidates is None else candidates(b, h, query_block)
        count = 0
        for first in range(0, own.size, _CHUNK):
            part = own[first : first + _CHUNK]
            seen, valid = _seen(rule, (b, h, query_block), part, (queries, keys))
            some = seen.any(axis=(1, 2))
            whole = (seen == valid).all(axis=(1, 2))[some]
            own_words = packed(seen[some][~whole])
            which = np.full(whole.size, -1, np.int64)
            which[~whole] = np.arange(kept, kept + len(own_words))
            kept += len(own_words)
            count += which.size
            blocks.append(part[some])
            bits.append(which)
            words.append(own_words)
        counts.append(count)
    starts = np.cumsum(counts, dtype=np.int64)
    return starts, np.concatenate(blocks), np.concatenate(bits), np.concatenate(words)


def _seen(
    rule: Rule, place: tuple[int, int, int], blocks: Int64Array, lengths: tuple[int, int]
) -> tuple[Bools, Bools]:
    """Return what is seen of key blocks, and which of their pairs exist, both (n, 64, 64)."""
    within = np.arange(BLOCK)
    i = (place[2] * BLOCK + within)[:, np.newaxis]
    j = (blocks[:, np.newaxis] * BLOCK + within)[:, np.newaxis, :]
    valid = (i < lengths[0]) & (j < lengths[1])
    given = rule(place[0], place[1], np.minimum(i, lengths[0] - 1), np.minimum(j, lengths[1] - 1))
    shown = as_array("what the rule returns", given)
    if shown.dtype != np.bool_:
        raise TypeError(f"a rule must return bools, not {shown.dtype}")
    return valid & shown, valid
