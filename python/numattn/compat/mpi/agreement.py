"""What processes must agree on before any of them sends: a fault of one is an error of all.

Without it the others would wait for ever for a message that does not come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numattn._names import Array

Read = TypeVar("Read")

MISSING = "numattn.compat.mpi needs mpi4py, and an MPI for it: pip install 'numattn[mpi]'"


def communicator(comm: Any) -> Any:
    """Return the communicator given, MPI.COMM_WORLD without one.

    Raises
    ------
    ImportError
        There is none, and no mpi4py.
    """
    if comm is not None:
        return comm
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError(MISSING) from error
    return MPI.COMM_WORLD


def as_numbers(array: Array) -> Array:
    """Return an array's memory as integers of its size: MPI knows neither float16 nor bfloat16."""
    return array.reshape(-1).view(f"u{array.itemsize}")


def agreed(
    comm: Any,
    read: Callable[[], tuple[Read, tuple[object, ...], tuple[int, ...]]],
    share: Callable[[int, int, int], int],
) -> tuple[Read, tuple[int, ...]]:
    """Return what `read` makes of this process's arguments, and the lengths of all together.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
    read : callable
        Returns something, what must be alike in every process, and how many tokens this one has;
        TypeErrors and ValueErrors of it are those of all.
    share : callable
        Says how many tokens of a length a process of so many should have.

    Raises
    ------
    TypeError, ValueError
        In each process, where one has a fault or two do not fit.
    """
    error: Exception | None = None
    mine: Any = None
    alike: tuple[object, ...] = ()
    tokens: tuple[int, ...] = ()
    try:
        mine, alike, tokens = read()
    except Exception as raised:
        error = raised
    shown = None if error is None else (isinstance(error, TypeError), str(error))
    told = comm.allgather((shown, alike, tokens))
    for rank, (fault, _, _) in enumerate(told):
        if fault is not None and error is None:
            kind = TypeError if fault[0] else ValueError
            raise kind(f"in process {rank}: {fault[1]}")
    if error is not None:
        raise error
    for rank, (_, others, _) in enumerate(told):
        if others != told[0][1]:
            raise ValueError(
                f"processes must give the same but for tokens: {told[0][1]} in process 0, "
                f"{others} in process {rank}"
            )
    lengths = tuple(map(sum, zip(*(each for _, _, each in told), strict=True)))
    for rank, (_, _, each) in enumerate(told):
        wanted = tuple(share(length, len(told), rank) for length in lengths)
        if each != wanted:
            raise ValueError(
                f"process {rank} must have {wanted} tokens of {lengths} in {len(told)} processes, "
                f"not {each}: positions() says which, split() takes them"
            )
    return mine, lengths
