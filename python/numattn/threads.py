"""The process-wide limit on threads."""

from __future__ import annotations

import os

from numattn import _core
from numattn._arguments import bounded_integer


def set_num_threads(n: int) -> None:
    """Limit the threads of every later call in this process; 0 lifts the limit.

    Raises
    ------
    ValueError
        ``n`` is negative.

    Examples
    --------
    >>> import numattn as na
    >>> na.set_num_threads(1)
    >>> na.get_num_threads()
    1
    >>> na.set_num_threads(0)
    """
    count = bounded_integer("n", n)
    if count < 0:
        raise ValueError(f"n must be at least 1, or 0 for no limit, not {count}")
    _core.set_num_threads(min(count, 2**31 - 1))


def get_num_threads() -> int:
    """Threads that a call would use here and now.

    The least of the limit set, ``omp_get_max_threads()`` (``OMP_NUM_THREADS``), the processors
    this process may run on and the control group's CPU quota; at least 1, and 1 inside somebody
    else's OpenMP parallel region.

    Examples
    --------
    >>> import numattn as na
    >>> na.get_num_threads() >= 1
    True
    """
    count: int = _core.get_num_threads()
    return count


def _use_environment() -> None:
    """Obey ``NUMATTN_NUM_THREADS``; anything but a positive number fails the import."""
    text = os.environ.get("NUMATTN_NUM_THREADS")
    if not text:
        return
    wrong = ImportError(
        f"NUMATTN_NUM_THREADS must be a positive integer of at most 64 signed bits, not {text!r}"
    )
    if not text.strip().isdecimal():
        raise wrong
    try:
        count = bounded_integer("NUMATTN_NUM_THREADS", int(text))
    except ValueError:  # beyond 64 bits, or more digits than int() takes
        raise wrong from None
    if count < 1:
        raise wrong
    set_num_threads(count)
