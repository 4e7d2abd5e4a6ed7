"""Work on things that come one by one, each done while the caller uses what came of the last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Ahead(Generic[R]):
    """A call that is made in a thread of its own, at once.

    Where the system has no thread to give, or a fork has left it behind in the parent, the call is
    made by whoever asks for its result.
    """

    def __init__(self, call: Callable[[], R]) -> None:
        self._call = call
        self._results: list[R] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="numattn ahead")
        try:
            self._thread.start()
            self._started = True
        except (RuntimeError, MemoryError):
            self._started = False

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except BaseException as error:
            self._error = error

    def finish(self) -> None:
        """Wait until the thread has ended."""
        if self._started:
            self._thread.join()

    def result(self) -> R:
        """Return what the call returns, or raise what it raises."""
        self.finish()
        if self._error is not None:
            raise self._error
        return self._results[0] if self._results else self._call()


def one_ahead(work: Callable[[T], R], things: Iterable[T]) -> Generator[R, None, None]:
    """Yield work(thing) for each; while the caller uses one, the next is worked on in a thread.

    The things themselves are taken by the caller's thread. A single one starts no thread. When the
    generator ends or is closed, so has the thread, whatever the reason.

    Examples
    --------
    >>> [*one_ahead(len, ["a", "bcd", ""])]
    [1, 3, 0]
    """
    left = iter(things)
    for first in left:
        result = work(first)
        for thing in left:
            ahead = Ahead(partial(work, thing))
            try:
                yield result
            finally:
                ahead.finish()
            result = ahead.result()
        yield result
