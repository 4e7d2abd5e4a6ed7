"""`BlockMask`: lists of key blocks, checked, in order, and combined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn._arguments import as_array, integer_array, size
from numattn._names import Array, Int64Array

from .lists import BLOCK, Bools, Rule, Shape, Words, block_counts, lists_of, unpacked


class BlockMask:
    """A sparse mask: for each block of 64 queries a list of the key blocks that it sees.

    Attention's work, and what it reads, is that of the listed blocks. Keys of blocks that no query
    of a block lists are never read; a key that bits hide in a listed one has weight exactly 0.

    `from_lists`, `from_mask` and `from_rule` make masks, as do the functions of
    :mod:`numattn.patterns`; ``a & b`` and ``a | b`` combine them.

    Parameters
    ----------
    shape : (Sq, Sk), (H, Sq, Sk) or (B, H, Sq, Sk)
        What attention's q and k have; B or H of 1, or left out, is the same mask for all.
    starts : int array of shape (B · H · ⌈Sq / 64⌉ + 1,)
        List n is ``blocks[starts[n]:starts[n + 1]]``; lists follow one another by batch entry, head
        and query block.
    blocks : int array of shape (N,)
        Key blocks; those of a list in any order.
    bits : int array of shape (N,), optional
        Which of `words` says what is seen of a block; −1, the default, is all of it.
    words : uint64 array of shape (M, 64), optional
        Bit j of ``words[m, i]``: whether query i of a block sees key j of it.

    Attributes
    ----------
    shape : (B, H, Sq, Sk)
    starts, blocks, bits, words : arrays
        As given, in order, read-only.
    sparsity : float
        The share of pairs that are hidden.

    Raises
    ------
    TypeError
        An array does not hold integers.
    ValueError
        A list names a block that there is not, or one twice; arrays do not fit `shape`.

    Notes
    -----
    The block-sparse form of FlexAttention's ``BlockMask`` (He et al., 2024), with the bits of what
    is partly seen stored where that evaluates a function.

    Examples
    --------
    >>> import numattn as na
    >>> mask = na.BlockMask((128, 192), starts=[0, 1, 3], blocks=[0, 2, 0])
    >>> mask
    BlockMask(shape=(1, 1, 128, 192), 3 of 6 blocks, sparsity 0.5)
    >>> mask.to_dense()[0, 0, [0, 64]][:, [0, 64, 128]]
    array([[ True, False, False],
           [ True, False,  True]])
    """

    shape: Shape
    starts: Int64Array
    entries: NDArray[np.int32]
    words: Words

    def __init__(
        self,
        shape: Sequence[int],
        starts: ArrayLike,
        blocks: ArrayLike,
        bits: ArrayLike | None = None,
        words: ArrayLike | None = None,
    ) -> None:
        self.shape = _full_shape(shape)
        first = integer_array("starts", starts, scalar=False).copy()
        key = integer_array("blocks", blocks, scalar=False)
        which = np.full_like(key, -1) if bits is None else integer_array("bits", bits, scalar=False)
        word = np.zeros((0, BLOCK), np.uint64) if words is None else as_array("words", words)
        if word.dtype != np.uint64:
            raise TypeError(f"words must hold 64 bits each (uint64), not {word.dtype}")
        self._check(first, key, which, word)
        entries = np.stack((key, which), axis=1)
        order = np.lexsort((key, np.repeat(np.arange(first.size - 1), np.diff(first))))
        self.starts = _fixed(first)
        self.entries = _fixed(np.ascontiguousarray(entries[order], dtype=np.int32))
        self.words = _fixed(np.array(word, order="C"))
        self._refuse_repeated()

    # --- What it is made from ---------------------------------------------------------------------

    @classmethod
    def from_lists(cls, shape: Sequence[int], lists: Sequence[Sequence[int]]) -> BlockMask:
        """Return a mask of whole blocks, from a list for each block of 64 queries.

        Parameters
        ----------
        shape : as for the class
        lists : B · H · ⌈Sq / 64⌉ sequences of int
            The key blocks that each sees; by batch entry, head and query block.

        Examples
        --------
        >>> import numattn as na
        >>> na.BlockMask.from_lists((100, 100), [[0], [0, 1]])
        BlockMask(shape=(1, 1, 100, 100), 3 of 4 blocks, sparsity 0.23)
        """
        counts = [len(each) for each in lists]
        blocks = [block for each in lists for block in each]
        return cls(shape, np.append(0, np.cumsum(counts, dtype=np.int64)), blocks)

    @classmethod
    def from_mask(cls, mask: ArrayLike) -> BlockMask:
        """Return the same as a dense mask, True where a key may be attended.

        Parameters
        ----------
        mask : bool array of shape (Sq, Sk), (H, Sq, Sk) or (B, H, Sq, Sk)

        Raises
        ------
        TypeError
            It is not of bool.

        Examples
        --------
        >>> import numpy as np
        >>> import numattn as na
        >>> causal = np.tri(200, dtype=bool)
        >>> mask = na.BlockMask.from_mask(causal)
        >>> bool((mask.to_dense()[0, 0] == causal).all())
        True
        """
        dense = as_array("mask", mask)
        if dense.dtype != np.bool_:
            raise TypeError(f"mask must be bool (True = may attend), not {dense.dtype}")
        shape = _full_shape(dense.shape)
        full = dense.reshape(shape)
        return cls(shape, *lists_of(shape, lambda b, h, i, j: full[b, h, i, j]))

    @classmethod
    def from_rule(
        cls, rule: Rule, queries: int, keys: int, *, batch: int = 1, heads: int = 1
    ) -> BlockMask:
        """Return the mask in which query i sees key j where ``rule(b, h, i, j)`` is true.

        The rule is evaluated for a block of queries and some hundred blocks of keys at a time, so
        that nothing of the size of the mask is ever held: what FlexAttention's ``mask_mod`` is,
        without a compiler.

        Parameters
        ----------
        rule : callable
            Given ints b and h and int64 arrays i and j that broadcast with one another, in 0 …
            queries − 1 and 0 … keys − 1; returns bools that broadcast with both.
        queries, keys : int
            Sq and Sk.
        batch, heads : int
            For how many batch entries and query heads to ask; 1 is the same mask for all.

        Examples
        --------
        >>> import numpy as np
        >>> import numattn as na
        >>> document = np.repeat([0, 1, 2], [100, 150, 6])
        >>> rule = lambda b, h, i, j: (document[i] == document[j]) & (j <= i)
        >>> na.BlockMask.from_rule(rule, 256, 256)
        BlockMask(shape=(1, 1, 256, 256), 8 of 16 blocks, sparsity 0.75)
        """
        shape = (size("batch", batch), size("heads", heads))
        lengths = (size("queries", queries, least=0), size("keys", keys, least=0))
        whole = (*shape, *lengths)
        return cls(whole, *lists_of(whole, rule))

    # --- What it is -------------------------------------------------------------------------------

    @property
    def blocks(self) -> Int64Array:
        """Return the key blocks of all lists."""
        return self.entries[:, 0].astype(np.int64)

    @property
    def bits(self) -> Int64Array:
        """Return for each of `blocks` which words say what is seen of it, −1 for all."""
        return self.entries[:, 1].astype(np.int64)

    @property
    def sparsity(self) -> float:
        """Return the share of pairs that are hidden."""
        batch, heads, queries, keys = self.shape
        pairs = batch * heads * queries * keys
        return 1 - self._visible_pairs() / pairs if pairs else 0.0

    def to_dense(self) -> Bools:
        """Return the mask as a bool array (B, H, Sq, Sk), True where a key is seen."""
        batch, heads, queries, keys = self.shape
        query_blocks, key_blocks = block_counts(self.shape)
        dense = np.zeros((self.starts.size - 1, BLOCK, key_blocks, BLOCK), np.bool_)
        for number, (_, blocks, bits) in enumerate(self._lists()):
            dense[number][:, blocks[bits < 0]] = True
            partial = bits >= 0
            dense[number][:, blocks[partial]] = unpacked(self.words[bits[partial]]).swapaxes(0, 1)
        whole = dense.reshape(batch, heads, query_blocks * BLOCK, key_blocks * BLOCK)
        return np.ascontiguousarray(whole[:, :, :queries, :keys])

    def __and__(self, other: BlockMask) -> BlockMask:
        """Return the mask of what both show."""
        return _combined(self, other, both=True)

    def __or__(self, other: BlockMask) -> BlockMask:
        """Return the mask of what either shows."""
        return _combined(self, other, both=False)

    def __eq__(self, other: object) -> bool:
        """Whether the lists and their bits are the same."""
        if not isinstance(other, BlockMask):
            return NotImplemented
        return self.shape == other.shape and all(
            np.array_equal(a, b) for a, b in zip(self._arrays(), other._arrays(), strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def of_arrays(cls, shape: Shape, starts: Array, entries: Array, words: Array) -> BlockMask:
        """Return the mask of arrays that are known to be right, which become its own."""
        mask = cls.__new__(cls)
        mask.shape, mask.starts = shape, _fixed(starts)
        mask.entries, mask.words = _fixed(entries), _fixed(words)
        return mask

    def __reduce__(self) -> tuple[Any, ...]:
        return BlockMask, (self.shape, self.starts, self.blocks, self.bits, self.words)

    def __repr__(self) -> str:
        total = (self.starts.size - 1) * block_counts(self.shape)[1]
        return (
            f"BlockMask(shape={self.shape}, {len(self.entries)} of {total} blocks, "
            f"sparsity {self.sparsity:.3g})"
        )

    # --- Inside -----------------------------------------------------------------------------------

    def _arrays(self) -> tuple[Array, ...]:
        return (self.starts, self.entries, self.words)

    def _lists(self) -> Iterator[tuple[tuple[int, int, int], Int64Array, Int64Array]]:
        """Yield each list's batch entry, head and query block, its key blocks and their bits."""
        axes = (*self.shape[:2], block_counts(self.shape)[0])
        for number, place in enumerate(np.ndindex(axes)):
            own = self.entries[self.starts[number] : self.starts[number + 1]].astype(np.int64)
            yield place, own[:, 0], own[:, 1]

    def _visible_pairs(self) -> int:
        queries, keys = self.shape[2:]
        seen = 0
        for (_, _, query_block), blocks, bits in self._lists():
            rows = min(BLOCK, queries - query_block * BLOCK)
            columns = np.minimum(BLOCK, keys - blocks * BLOCK)
            seen += rows * int(columns[bits < 0].sum())
            partial = bits >= 0
            shown = unpacked(self.words[bits[partial], :rows])
            seen += int((shown & (np.arange(BLOCK) < columns[partial, None, None])).sum())
        return seen

    def _check(
        self, starts: Int64Array, blocks: Int64Array, bits: Int64Array, words: Array
    ) -> None:
        query_blocks, key_blocks = block_counts(self.shape)
        lists = self.shape[0] * self.shape[1] * query_blocks
        if starts.size != lists + 1 or starts[0] != 0 or np.any(np.diff(starts) < 0):
            raise ValueError(
                f"starts must be {lists + 1} numbers that begin at 0 and never fall for a mask of "
                f"shape {self.shape}, not {starts.size} of them: {starts.tolist()[:20]}"
            )
        if starts[-1] != blocks.size or bits.size != blocks.size:
            raise ValueError(
                f"starts must end at the number of blocks and of bits, not at {starts[-1]} for "
                f"{blocks.size} and {bits.size}"
            )
        if words.ndim != 2 or words.shape[1] != BLOCK:
            raise ValueError(f"words must have shape (M, {BLOCK}), not {words.shape}")
        wrong = np.flatnonzero((blocks < 0) | (blocks >= key_blocks))
        if wrong.size:
            place = self._place(starts, int(wrong[0]))
            raise ValueError(
                f"blocks: list {place} names key block {blocks[wrong[0]]}, but Sk = "
                f"{self.shape[3]} has the blocks 0 … {key_blocks - 1}"
            )
        wrong = np.flatnonzero((bits < -1) | (bits >= len(words)))
        if wrong.size:
            place = self._place(starts, int(wrong[0]))
            raise ValueError(
                f"bits: list {place} names words {bits[wrong[0]]}, but there are {len(words)}"
            )

    def _refuse_repeated(self) -> None:
        same = self.entries[1:, 0] == self.entries[:-1, 0]
        begins = np.zeros(len(self.entries) + 1, np.bool_)
        begins[self.starts] = True
        repeated = np.flatnonzero(same & ~begins[1:-1])
        if repeated.size:
            at = int(repeated[0])
            raise ValueError(
                f"blocks: list {self._place(self.starts, at)} names key block "
                f"{self.entries[at, 0]} twice"
            )

    def _place(self, starts: Int64Array, entry: int) -> tuple[int, ...]:
        """Return batch entry, head and query block of the list that has an entry."""
        number = int(np.searchsorted(starts, entry, side="right")) - 1
        axes = (*self.shape[:2], block_counts(self.shape)[0])
        return tuple(int(index) for index in np.unravel_index(number, axes))


def _full_shape(shape: Sequence[int]) -> Shape:
    lengths = tuple(size("shape", length, least=0) for length in shape)
    if not 2 <= len(lengths) <= 4:
        raise ValueError(
            f"a block mask has shape (Sq, Sk), (H, Sq, Sk) or (B, H, Sq, Sk), not {lengths}"
        )
    batch, heads, queries, keys = (*(1,) * (4 - len(lengths)), *lengths)
    if max(queries, keys) >= BLOCK * (2**31 - 1):
        raise ValueError(f"a block mask has up to 2^31 − 2 blocks of 64 keys, not {lengths}")
    return batch, heads, queries, keys


def _fixed(array: Any) -> Any:
    array.flags.writeable = False
    return array


def _combined(a: BlockMask, b: BlockMask, both: bool) -> BlockMask:
    if not isinstance(b, BlockMask):
        return NotImplemented
    lengths: list[int] = []
    for axis in range(4):
        sizes = {a.shape[axis], b.shape[axis]} - ({1} if axis < 2 else set())
        if len(sizes) > 1:
            raise ValueError(f"block masks of shapes {a.shape} and {b.shape} do not fit")
        lengths.append(sizes.pop() if sizes else 1)
    shape = _full_shape(lengths)
    own, other = BlocksByList(a), BlocksByList(b)

    def rule(entry: int, head: int, i: Int64Array, j: Int64Array) -> Bools:
        places = (entry, head, int(i[0, 0]) // BLOCK)
        first, second = own.bits(*places, j), other.bits(*places, j)
        return first & second if both else first | second

    def candidates(entry: int, head: int, query_block: int) -> Int64Array:
        first, second = (each.blocks(entry, head, query_block) for each in (own, other))
        return (np.intersect1d if both else np.union1d)(first, second)

    return BlockMask(shape, *lists_of(shape, rule, candidates))


class BlocksByList:
    """The bits of a mask's blocks, by list; a list of one batch entry or head is that of all."""

    def __init__(self, mask: BlockMask) -> None:
        self.mask = mask
        self.lists = {place: (blocks, bits) for place, blocks, bits in mask._lists()}

    def _list(self, entry: int, head: int, query_block: int) -> tuple[Int64Array, Int64Array]:
        batch, heads = self.mask.shape[:2]
        return self.lists[entry if batch > 1 else 0, head if heads > 1 else 0, query_block]

    def blocks(self, entry: int, head: int, query_block: int) -> Int64Array:
        return self._list(entry, head, query_block)[0]

    def bits(self, entry: int, head: int, query_block: int, j: Int64Array) -> Bools:
        """Return what is seen of the blocks with keys j (n, 1, 64), as (n, 64, 64)."""
        wanted = j[:, 0, 0] // BLOCK
        blocks, bits = self._list(entry, head, query_block)
        seen = np.zeros((wanted.size, BLOCK, BLOCK), np.bool_)
        at = np.minimum(np.searchsorted(blocks, wanted), max(blocks.size - 1, 0))
        there = np.flatnonzero(blocks[at] == wanted) if blocks.size else at[:0]
        which = bits[at[there]]
        seen[there[which < 0]] = True
        seen[there[which >= 0]] = unpacked(self.mask.words[which[which >= 0]])
        return seen
