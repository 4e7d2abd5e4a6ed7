"""New tokens that branch: each follows one of those before it, and sees what it follows alone.

    depth[s] = depth[parent[s]] + 1        sees[s] = sees[parent[s]] ∪ {s}

A token stands where its depth says, and its keys where it came: the mask has both agree. (Miao et
al., "SpecInfer", 2023; Cai et al., "Medusa", 2024.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn import BlockMask
from numattn._arguments import integers

from ..arrays import Int64Array


def checked_parents(parents: ArrayLike, shape: tuple[int, int], counts: Int64Array) -> Int64Array:
    """Return the parents (B, S) of tokens, of which the first counts[b] of a row are real.

    Raises
    ------
    TypeError
        They are not integers.
    ValueError
        They are not one for each token, or a real token's is neither −1 nor before it.
    """
    given = integers("parents", parents)
    if given.shape != shape:
        raise ValueError(f"parents must have shape {shape}, as token_ids, not {given.shape}")
    place = np.arange(shape[1])
    real = place < counts[:, np.newaxis]
    wrong = np.argwhere(real & ((given < -1) | (given >= place)))
    if wrong.size:
        row, child = wrong[0]
        raise ValueError(
            f"parents: token {child} of row {row} has the parent {given[row, child]}, which is "
            "neither −1 nor before it"
        )
    return np.where(real, given, -1)


def depths_of(parents: Int64Array) -> Int64Array:
    """Return how many new tokens each one follows, (B, S)."""
    depths = np.zeros_like(parents)
    rows = np.arange(len(parents))
    for place, parent in enumerate(parents.T):
        depths[:, place] = np.where(parent < 0, 0, depths[rows, parent] + 1)
    return depths


def branch_mask(parents: Int64Array, held: Int64Array, keys: int) -> BlockMask:
    """Return what each new token sees of `keys` tokens of its row, held[b] of which came before."""
    batch, size = parents.shape
    sees = np.zeros((batch, size, size), dtype=np.bool_)
    rows = np.arange(batch)
    for place, parent in enumerate(parents.T):
        sees[:, place] = np.where(parent[:, np.newaxis] < 0, False, sees[rows, parent])
        sees[:, place, place] = True

    def rule(b: int, h: int, i: Int64Array, j: Int64Array) -> NDArray[np.bool_]:
        new = j - held[b]
        seen: NDArray[np.bool_] = sees[b, i, np.clip(new, 0, size - 1)]
        seen = (new < 0) | ((new < size) & seen)
        return seen

    return BlockMask.from_rule(rule, size, keys, batch=batch)
