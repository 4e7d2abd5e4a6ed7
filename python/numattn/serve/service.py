"""What endpoints share: the models with their engines, limits, metrics, and the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TypeVar

from .batch import Written
from .catalogue import Catalogue, Entry
from .embedding_engine import EmbeddingEngine
from .limits import Limits
from .metrics import Metrics
from .text_engine import TextEngine
from .writing import Writing

Result = TypeVar("Result")


class Service:
    """A running service, in one process.

    Parameters
    ----------
    catalogue : Catalogue
    limits : Limits
    num_threads : int, optional
        Upper limit of threads of each computation.
    """

    def __init__(
        self, catalogue: Catalogue, limits: Limits, num_threads: int | None = None
    ) -> None:
        self.catalogue, self.limits = catalogue, limits
        self.metrics = Metrics()
        self.draining = False
        self.embedding: dict[str, EmbeddingEngine] = {}
        self.text: dict[str, TextEngine] = {}
        for entry in catalogue.entries.values():
            self._add_engine(entry, num_threads)
        self._numbers = count(1)

    def _add_engine(self, entry: Entry, num_threads: int | None) -> None:
        name, model = entry.name, entry.model
        if entry.embeds:
            self.embedding[name] = EmbeddingEngine(
                name, model, self.limits.batch_tokens, self.metrics, num_threads
            )
        else:
            self.text[name] = TextEngine(name, model, self.limits, self.metrics, num_threads)

    def start(self) -> None:
        """Start all threads: from the event loop of the process that serves."""
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="numattn prepare")
        for engine in self.text.values():
            engine.listener = self._tell
        for each in (*self.embedding.values(), *self.text.values()):
            each.start()

    def stop(self) -> None:
        """End all threads; what they had still to do is given up."""
        self.draining = True
        for engine in (*self.embedding.values(), *self.text.values()):
            engine.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def alive(self) -> bool:
        """Return whether all threads run."""
        return all(each.alive for each in (*self.embedding.values(), *self.text.values()))

    def next_id(self) -> str:
        """Return a name for a request, which tells the process, too."""
        return f"{os.getpid()}-{next(self._numbers)}"

    def in_pool(self, function: Callable[[], Result]) -> Awaitable[Result]:
        """Have a function called beside the event loop, which it would hold up."""
        return self._loop.run_in_executor(self._pool, function)

    def soon(self, function: Callable[[], object]) -> None:
        """Have the event loop call a function; any thread may ask. Nothing once it is closed."""
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _tell(self, written: list[Written]) -> None:
        """Hand what a step has written to those that wait for it."""
        told = [
            (each.sequence, each.sequence.piece(each.error))
            for each in written
            if isinstance(each.sequence, Writing)
        ]

        def deliver() -> None:
            for writing, piece in told:
                writing.pieces.put_nowait(piece)

        self.soon(deliver)
