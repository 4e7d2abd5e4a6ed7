"""A thread that owns a model, and does what others ask of it."""

from __future__ import annotations

import logging
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

Call: TypeAlias = "Callable[[], object]"


class Engine(ABC):
    """A thread that carries out calls that others hand it, and between them works.

    All that belongs to the engine is touched by its thread alone.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread: in the process that serves, after any fork."""
        self._thread = threading.Thread(target=self._run, name=f"numattn {self.name}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def call(self, function: Call) -> None:
        """Have the thread call a function before its next piece of work."""
        self._calls.put(function)

    def close(self, seconds: float = 10) -> None:
        """End the thread after its present piece of work; what waits is given up."""

        def stop() -> None:
            self._closing = True

        self.call(stop)
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while not self._closing:
            try:
                self._take_calls(wait=not self._has_work())
                if not self._closing and self._has_work():
                    self._work()
            except Exception as error:
                # Nobody knows how things stand now; what comes next finds nothing left of it.
                logging.getLogger(__name__).exception("%s: all that waits is given up", self.name)
                self._give_up(error)
        self._take_calls(wait=False)
        self._give_up(RuntimeError("the service has stopped"))

    def _take_calls(self, wait: bool) -> None:
        """Carry out the calls that came; with `wait`, one or more."""
        while True:
            try:
                function = self._calls.get(block=wait)
            except queue.Empty:
                return
            function()
            wait = False

    @abstractmethod
    def _has_work(self) -> bool:
        """Return whether there is something to do."""

    @abstractmethod
    def _work(self) -> None:
        """Do a piece of it. Whatever goes wrong is told to those whom it concerns."""

    @abstractmethod
    def _give_up(self, error: BaseException) -> None:
        """Tell all that wait that they will get nothing."""
