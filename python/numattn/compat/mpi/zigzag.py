"""Which process has which tokens: two chunks each, one from either end of the text.

Of 2 · P chunks process r has number r and number 2 · P − 1 − r. A causal query sees what is before
it, so that the first chunks are little work and the last ones much: every pair is the same.
Lengths that do not divide are no exception: chunks differ by one token at most.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from numattn._aligned import empty
from numattn._arguments import as_array, bounded_integer
from numattn._names import Array, Int64Array
from numattn.compat.mpi.agreement import agreed, as_numbers, communicator


def chunks(length: int, size: int, rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (begin, end) of both chunks of a process."""
    numbers = rank, 2 * size - 1 - rank
    first, second = ((n * length // (2 * size), (n + 1) * length // (2 * size)) for n in numbers)
    return first, second


def tokens_of(length: int, size: int, rank: int) -> int:
    """Return how many tokens a process has."""
    return sum(end - begin for begin, end in chunks(length, size, rank))


def positions(length: int, size: int, rank: int) -> Int64Array:
    """Return where the tokens of a process stand in the text, in the order in which it has them.

    Parameters
    ----------
    length : int
        Tokens of the whole text.
    size : int
        Processes.
    rank : int
        Which of them.

    Returns
    -------
    positions : int64 array of shape (S,)
        For rotary positions, and to read or make no more than one's own tokens.

    Raises
    ------
    ValueError
        There is no such process, or the length is negative.

    Examples
    --------
    >>> [positions(8, 2, rank).tolist() for rank in (0, 1)]
    [[0, 1, 6, 7], [2, 3, 4, 5]]
    """
    length, size = bounded_integer("length", length), bounded_integer("size", size)
    rank = bounded_integer("rank", rank)
    if length < 0 or not 0 <= rank < size:
        raise ValueError(
            f"length must be 0 or more and rank from 0 to size − 1, not length {length}, "
            f"rank {rank} and size {size}"
        )
    return np.concatenate(
        [np.arange(*chunk, dtype=np.int64) for chunk in chunks(length, size, rank)]
    )


def split(x: ArrayLike, comm: Any = None) -> Array:
    """Return the tokens of this process out of the whole.

    Parameters
    ----------
    x : array of shape (…, S, D)
        The same in each process that calls.
    comm : mpi4py.MPI.Comm, optional
        ``MPI.COMM_WORLD`` by default.

    Returns
    -------
    part : array of shape (…, S / P, D)
        A copy, contiguous.

    Raises
    ------
    ImportError
        mpi4py is not installed, and no ``comm`` is given.
    ValueError
        x has fewer than two axes.
    """
    comm, x = communicator(comm), as_array("x", x)
    require_axes(x)
    return np.take(x, positions(x.shape[-2], comm.Get_size(), comm.Get_rank()), axis=-2)


def join(part: ArrayLike, comm: Any = None) -> Array:
    """Return the whole from each process's part: the inverse of :func:`split`, for all of them.

    Parameters
    ----------
    part : array of shape (…, S / P, D)
        What this process has.
    comm : mpi4py.MPI.Comm, optional
        ``MPI.COMM_WORLD`` by default.

    Returns
    -------
    x : array of shape (…, S, D)

    Raises
    ------
    ImportError
        mpi4py is not installed, and no ``comm`` is given.
    TypeError, ValueError
        Parts differ in dtype or shape, or are not those of `split`; in every process alike.
    """
    comm = communicator(comm)

    def read() -> tuple[Array, tuple[object, ...], tuple[int, ...]]:
        array = as_array("part", part)
        require_axes(array)
        alike = array.dtype.str, array.dtype.name, array.shape[:-2], array.shape[-1]
        return array, alike, (array.shape[-2],)

    array, (length,) = agreed(comm, read, tokens_of)
    return joined(array, length, comm)


def joined(part: Array, length: int, comm: Any) -> Array:
    """Return the whole text from parts known to fit, its tokens in their own order."""
    size = comm.Get_size()
    lead, width = part.shape[:-2], part.shape[-1]
    shapes = [(*lead, tokens_of(length, size, rank), width) for rank in range(size)]
    counts = [int(np.prod(shape)) for shape in shapes]
    arrived = empty((sum(counts),), part.dtype)
    comm.Allgatherv(as_numbers(np.ascontiguousarray(part)), [as_numbers(arrived), counts])
    whole = empty((*lead, length, width), part.dtype)
    begin = 0
    for rank, (shape, count) in enumerate(zip(shapes, counts, strict=True)):
        own = arrived[begin : begin + count].reshape(shape)
        begin += count
        taken = 0
        for first, last in chunks(length, size, rank):
            whole[..., first:last, :] = own[..., taken : taken + last - first, :]
            taken += last - first
    return whole


def require_axes(x: Array) -> None:
    """Refuse what has no axis of tokens."""
    if x.ndim < 2:
        raise ValueError(f"x must be of shape (…, S, D), not {x.shape}")
