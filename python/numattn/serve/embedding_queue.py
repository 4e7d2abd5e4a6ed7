"""Texts that wait for their vectors, and which of them are computed together.

A request of many texts does not keep the others waiting: requests give one text each in turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


class Job:
    """One request's texts, as token ids, and the vectors that they have by now.

    Parameters
    ----------
    texts : sequence of int arrays
        One or more.
    done : callable
        Called once, by the thread that computes, with None or what went wrong.
    """

    def __init__(
        self,
        texts: Sequence[NDArray[np.integer[Any]]],
        done: Callable[[BaseException | None], object],
    ) -> None:
        self.texts, self.done = texts, done
        self.vectors: list[Vector | None] = [None] * len(texts)
        self.cancelled = False
        self._next, self._missing = 0, len(texts)

    @property
    def left(self) -> int:
        """Return how many texts wait."""
        return len(self.texts) - self._next

    @property
    def next_tokens(self) -> int:
        """Return of how many tokens the text is that comes next."""
        return int(self.texts[self._next].size)

    def take(self) -> int:
        """Return the index of the text that comes next, which then waits no more."""
        self._next += 1
        return self._next - 1

    def put(self, index: int, vector: Vector) -> bool:
        """Keep a text's vector; return whether it was the last."""
        self.vectors[index] = vector
        self._missing -= 1
        return self._missing == 0


class EmbeddingQueue:
    """Jobs, from which batches of at most `batch_tokens` tokens are taken.

    Examples
    --------
    >>> queue = EmbeddingQueue(10)
    >>> many = Job([np.arange(4)] * 3, print)
    >>> queue.add(many)
    >>> queue.add(Job([np.arange(3)], print))
    >>> [(job is many, index) for job, index in queue.batch()]
    [(True, 0), (False, 0)]
    >>> [(job is many, index) for job, index in queue.batch()]
    [(True, 1), (True, 2)]
    """

    def __init__(self, batch_tokens: int) -> None:
        self.batch_tokens = batch_tokens
        self._jobs: deque[Job] = deque()

    @property
    def waiting(self) -> int:
        """Return how many texts wait."""
        return sum(job.left for job in self._jobs)

    def add(self, job: Job) -> None:
        """Put a job at the end."""
        self._jobs.append(job)

    def batch(self) -> list[tuple[Job, int]]:
        """Return the texts that are next, one or more if any wait; those cancelled are left out."""
        taken: list[tuple[Job, int]] = []
        held = 0
        while self._jobs:
            job = self._jobs[0]
            if job.cancelled:
                self._jobs.popleft()
                continue
            if taken and held + job.next_tokens > self.batch_tokens:
                break
            held += job.next_tokens
            taken.append((job, job.take()))
            self._jobs.popleft()
            if job.left:
                self._jobs.append(job)
        return taken

    def drop(self) -> list[Job]:
        """Return all jobs that wait, which then wait no more."""
        jobs = list(self._jobs)
        self._jobs.clear()
        return jobs
