"""Choice of the instruction set."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from numattn import _core


def _first_choice() -> str:
    """What holds at first; a name in ``NUMATTN_ISA`` that cannot be obeyed fails the import."""
    try:
        name: str = _core.current_isa()
    except ValueError as error:
        raise ImportError(str(error)) from None
    return name


_lock = threading.RLock()  # a block that is collected as garbage may end in the middle of another's
_chosen: dict[object, str] = {None: _first_choice()}
"""What holds outside of every block of :func:`use`, and what the open ones have chosen, in the
order in which they were entered."""


def available() -> list[str]:
    """Instruction sets that this machine can run, slowest first.

    Examples
    --------
    >>> import numattn as na
    >>> "scalar" in na.isa.available()
    True
    """
    names: list[str] = _core.available_isas()
    return names


def current() -> str:
    """The instruction set in force: the best available unless another was chosen.

    Examples
    --------
    >>> import numattn as na
    >>> na.isa.current() in na.isa.available()
    True
    """
    name: str = _core.current_isa()
    return name


@contextmanager
def use(name: str) -> Iterator[None]:
    """Use one instruction set inside a ``with`` block, in every thread of the process.

    Where several blocks are open, in one thread or in many, the one that was entered last holds.
    When all have ended, in whatever order, that holds which held before them.

    Parameters
    ----------
    name : str
        One of :func:`available`.

    Raises
    ------
    ValueError
        The name is unknown or the machine lacks the instructions.

    Examples
    --------
    >>> import numattn as na
    >>> with na.isa.use("scalar"):
    ...     na.isa.current()
    'scalar'
    """
    block = object()
    with _lock:
        _core.use_isa(name)
        _chosen[block] = name
    try:
        yield
    finally:
        with _lock:
            del _chosen[block]
            _core.use_isa(next(reversed(_chosen.values())))
