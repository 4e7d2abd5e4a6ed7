"""Makers of ``block_mask``: the sparse patterns of published models, for each query its keys.

Each returns a :class:`numattn.BlockMask`. Give ``is_causal=True`` with it for a decoder: what a
pattern shows is intersected with ``is_causal``, ``window``, lengths and the other arguments.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn._arguments import integers, size
from numattn._names import Int64Array
from numattn.block_mask import BlockMask
from numattn.block_mask.lists import BLOCK, Blocks, Rule, lists_of

__all__ = ["bigbird", "dilated", "longformer", "strided", "tree"]


def longformer(length: int, window: int, global_tokens: ArrayLike = 0) -> BlockMask:
    """Every token sees its neighbours; global tokens see all, and are seen by all.

    Parameters
    ----------
    length : int
        Tokens, S.
    window : int
        Neighbours that a token sees, half of them on each side: keys |i − j| ≤ window // 2.
    global_tokens : int or int array
        How many of the first tokens are global; or the positions of those that are.

    Returns
    -------
    BlockMask
        Of shape (1, 1, S, S).

    Raises
    ------
    TypeError
        An argument is no integer.
    ValueError
        One is negative, or a position is not in 0 … S − 1.

    Notes
    -----
    Beltagy et al., "Longformer: The Long-Document Transformer" (2020), with one set of projections.

    Examples
    --------
    >>> import numattn as na
    >>> na.patterns.longformer(16384, 512, global_tokens=1)
    BlockMask(shape=(1, 1, 16384, 16384), 2786 of 65536 blocks, sparsity 0.969)
    """
    length, reach = size("length", length), size("window", window, least=0) // 2
    is_global = _flags("global_tokens", global_tokens, length)
    global_blocks = np.unique(np.flatnonzero(is_global) // BLOCK)
    last = (length - 1) // BLOCK

    def candidates(_: int, __: int, block: int) -> Int64Array:
        if block in global_blocks:
            return np.arange(last + 1)
        return np.union1d(_near(block, reach, last), global_blocks)

    return _shared(
        length,
        lambda b, h, i, j: (abs(i - j) <= reach) | is_global[j] | is_global[i],
        candidates,
    )


def bigbird(
    length: int,
    block: int = 64,
    window: int = 3,
    global_blocks: ArrayLike = (0, -1),
    random_blocks: int = 3,
    seed: int = 0,
) -> BlockMask:
    """Every block of tokens sees its neighbours, global blocks and some others by chance.

    Parameters
    ----------
    length : int
        Tokens, S.
    block : int
        Tokens of a block. 64 needs no bits.
    window : int
        Neighbouring blocks that a block sees, its own included; an odd number.
    global_blocks : int or int array
        How many of the first blocks are global; or their numbers, negative ones counted from the
        end. They see all, and are seen by all.
    random_blocks : int
        How many others each block sees, drawn evenly among those that it does not see anyway.
    seed : int
        Of the generator that draws them.

    Returns
    -------
    BlockMask
        Of shape (1, 1, S, S).

    Raises
    ------
    TypeError
        An argument is no integer.
    ValueError
        One is negative, `window` is even, or a global block does not exist.

    Notes
    -----
    Zaheer et al., "Big Bird: Transformers for Longer Sequences" (2020).

    Examples
    --------
    >>> import numattn as na
    >>> na.patterns.bigbird(4096)
    BlockMask(shape=(1, 1, 4096, 4096), 622 of 4096 blocks, sparsity 0.848)
    """
    length, block, window = size("length", length), size("block", block), size("window", window)
    draws = size("random_blocks", random_blocks, least=0)
    if window % 2 == 0:
        raise ValueError(f"window must be an odd number of blocks, not {window}")
    count = -(-length // block)
    is_global = _flags("global_blocks", global_blocks, count)
    generator = np.random.default_rng(size("seed", seed, least=0))
    number = np.arange(count)
    sees = np.zeros((count, count), np.bool_)
    for own, row in enumerate(sees):
        row[:] = is_global | is_global[own] | (abs(number - own) <= window // 2)
        others = np.flatnonzero(~row)
        row[generator.choice(others, min(draws, others.size), replace=False)] = True
    return _from_blocks(sees, block, length)


def _from_blocks(sees: NDArray[np.bool_], block: int, length: int) -> BlockMask:
    """Return the mask of blocks of any size, from (n, n) flags of which blocks see which."""

    def candidates(_: int, __: int, own: int) -> Int64Array:
        rows = sees[own * BLOCK // block : ((own + 1) * BLOCK - 1) // block + 1]
        seen = np.flatnonzero(rows.any(axis=0))
        parts = [np.arange(n * block // BLOCK, ((n + 1) * block - 1) // BLOCK + 1) for n in seen]
        every = np.unique(np.concatenate(parts)) if parts else seen
        return every[every <= (length - 1) // BLOCK]

    return _shared(length, lambda b, h, i, j: sees[i // block, j // block], candidates)


def strided(length: int, stride: int) -> BlockMask:
    """Every token sees the stride of tokens around it, and every stride-th token.

    Parameters
    ----------
    length : int
        Tokens, S.
    stride : int
        Keys |i − j| < stride are seen, and those whose distance is a multiple of it. A power of two
        near √S in the paper.

    Returns
    -------
    BlockMask
        Of shape (1, 1, S, S). Every block has a multiple of a stride up to 64, and is listed: a
        stride below that saves nothing.

    Raises
    ------
    TypeError, ValueError
        An argument is no integer, or less than 1.

    Notes
    -----
    Both heads of the strided pattern of Child et al., "Generating Long Sequences with Sparse
    Transformers" (2019), which are causal: give ``is_causal=True``.

    Examples
    --------
    >>> import numattn as na
    >>> na.patterns.strided(4, 2).to_dense()[0, 0].astype(int)
    array([[1, 1, 1, 0],
           [1, 1, 1, 1],
           [1, 1, 1, 1],
           [0, 1, 1, 1]])
    """
    length, stride = size("length", length), size("stride", stride)
    return BlockMask.from_rule(
        lambda b, h, i, j: (abs(i - j) < stride) | ((i - j) % stride == 0), length, length
    )


def dilated(length: int, window: int, dilation: int) -> BlockMask:
    """Every token sees neighbours with gaps between them.

    Parameters
    ----------
    length : int
        Tokens, S.
    window : int
        Keys that a token sees beside its own, half of them on each side.
    dilation : int
        The distance from one of them to the next; 1 leaves no gap. Below 64 it costs what a window
        of window · dilation does.

    Returns
    -------
    BlockMask
        Of shape (1, 1, S, S).

    Raises
    ------
    TypeError, ValueError
        An argument is no integer, or too small.

    Notes
    -----
    The dilated sliding window of Beltagy et al. (2020).

    Examples
    --------
    >>> import numattn as na
    >>> na.patterns.dilated(5, 2, dilation=2).to_dense()[0, 0].astype(int)
    array([[1, 0, 1, 0, 0],
           [0, 1, 0, 1, 0],
           [1, 0, 1, 0, 1],
           [0, 1, 0, 1, 0],
           [0, 0, 1, 0, 1]])
    """
    length, dilation = size("length", length), size("dilation", dilation)
    reach = size("window", window, least=0) // 2 * dilation
    last = (length - 1) // BLOCK

    return _shared(
        length,
        lambda b, h, i, j: (abs(i - j) <= reach) & ((i - j) % dilation == 0),
        lambda b, h, block: _near(block, reach, last),
    )


def tree(parents: ArrayLike, prefix: int = 0) -> BlockMask:
    """Every guess of a tree sees a prefix, its ancestors and itself.

    Parameters
    ----------
    parents : int array of shape (n,) or (B, n)
        The number of each guess's parent, which comes before it; −1 for those that follow the
        prefix at once.
    prefix : int
        Tokens before the tree: those of a cache, whose keys come before the guesses'.

    Returns
    -------
    BlockMask
        Of shape (1 or B, 1, n, prefix + n).

    Raises
    ------
    TypeError
        An argument does not hold integers.
    ValueError
        A parent is neither −1 nor before its child.

    Notes
    -----
    Tree attention, by which a model checks many guesses in one step (SpecInfer, Miao et al., 2023;
    Medusa, Cai et al., 2024). Over a cache whose rows have `prefix` tokens each it is the
    `block_mask` of ``cache.attend``; afterwards ``cache.keep_only(prefix, [accepted])`` leaves what
    the branch alone would have left. A guess's
    position in the text is prefix plus its depth: by that are its query and key to be turned. A
    window counts rows, not depths.

    Examples
    --------
    >>> import numattn as na
    >>> na.patterns.tree([-1, 0, 0, 2], prefix=1).to_dense()[0, 0].astype(int)
    array([[1, 1, 0, 0, 0],
           [1, 1, 1, 0, 0],
           [1, 1, 0, 1, 0],
           [1, 1, 0, 1, 1]])
    """
    given = integers("parents", parents)
    prefix = size("prefix", prefix, least=0)
    if given.ndim not in (1, 2):
        raise ValueError(f"parents must have shape (n,) or (B, n), not {given.shape}")
    rows = np.atleast_2d(given)
    count = rows.shape[1]
    wrong = np.argwhere((rows < -1) | (rows >= np.arange(count)))
    if wrong.size:
        row, child = wrong[0]
        raise ValueError(
            f"parents: guess {child} has the parent {rows[row, child]}, which is neither −1 nor "
            "before it"
        )
    sees = np.zeros((len(rows), count, count), np.bool_)
    for row, own in zip(rows, sees, strict=True):
        for child, parent in enumerate(row):
            own[child] = own[parent] if parent >= 0 else False
            own[child, child] = True
    return BlockMask.from_rule(
        lambda b, h, i, j: (j < prefix) | sees[b, i, np.maximum(j - prefix, 0)],
        count,
        prefix + count,
        batch=len(rows),
    )


def _shared(length: int, rule: Rule, candidates: Blocks) -> BlockMask:
    """Return the mask of a rule for all batch entries and heads, asked about the candidates."""
    shape = (1, 1, length, length)
    return BlockMask(shape, *lists_of(shape, rule, candidates))


def _near(block: int, reach: int, last: int) -> Int64Array:
    """Return the blocks with a key at most `reach` from one of the block."""
    first = block * BLOCK
    end = min((first + BLOCK - 1 + reach) // BLOCK, last) + 1
    return np.arange(max(first - reach, 0) // BLOCK, end)


def _flags(name: str, given: ArrayLike, count: int) -> NDArray[np.bool_]:
    """Return which of so many are named: the first ones, or those whose numbers are given."""
    numbers = integers(name, given)
    flags = np.zeros(count, np.bool_)
    if numbers.ndim == 0:
        flags[: size(name, int(numbers), least=0)] = True
        return flags
    wrong = numbers[(numbers < -count) | (numbers >= count)]
    if wrong.size:
        raise ValueError(f"{name} must be in 0 … {count - 1}, not {wrong[0]}")
    flags[numbers] = True
    return flags
