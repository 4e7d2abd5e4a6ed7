"""A communicator whose processes are threads, with what of mpi4py's numattn.compat.mpi calls."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import Any

import numpy as np

SECONDS = 60


class World:
    """What the threads share."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size, timeout=SECONDS)
        self.told: list[Any] = [None] * size
        self.sent: defaultdict[tuple[int, int, int], Queue[Any]] = defaultdict(Queue)

    def run(self, work: Callable[[ThreadComm], Any]) -> list[Any]:
        """Run the work in each thread; raise what one of them raises."""

        def one(rank: int) -> Any:
            try:
                return work(ThreadComm(self, rank))
            except BaseException:
                self.barrier.abort()
                raise

        with ThreadPoolExecutor(self.size) as pool:
            futures = [pool.submit(one, rank) for rank in range(self.size)]
        faults = [error for future in futures if (error := future.exception()) is not None]
        for fault in sorted(
            faults, key=lambda error: isinstance(error, threading.BrokenBarrierError)
        ):
            raise fault
        assert not any(queue.qsize() for queue in self.sent.values()), "nobody received it"
        return [future.result() for future in futures]


class Arriving:
    """A message that may not be there yet."""

    def __init__(self, queue: Queue[Any], into: np.ndarray) -> None:
        self._queue, self._into = queue, into

    def Test(self) -> bool:
        return False

    def Wait(self) -> None:
        message = self._queue.get(timeout=SECONDS)
        assert message.dtype == self._into.dtype
        self._into[...] = message


class Sent:
    """A message on its way."""

    def Test(self) -> bool:
        return True

    def Wait(self) -> None:
        pass


class ThreadComm:
    """One thread's end."""

    def __init__(self, world: World, rank: int) -> None:
        self._world, self._rank = world, rank

    def Get_size(self) -> int:
        return self._world.size

    def Get_rank(self) -> int:
        return self._rank

    def allgather(self, value: Any) -> list[Any]:
        self._world.told[self._rank] = value
        self._world.barrier.wait()
        told = [*self._world.told]
        self._world.barrier.wait()
        return told

    def Allgatherv(self, mine: np.ndarray, into: Any) -> None:
        whole, counts = into
        told = self.allgather(mine.copy())
        assert [each.size for each in told] == counts
        whole[...] = np.concatenate(told)

    def Isend(self, message: np.ndarray, dest: int, tag: int) -> Sent:
        self._world.sent[self._rank, dest, tag].put(message.copy())
        return Sent()

    def Irecv(self, into: np.ndarray, source: int, tag: int) -> Arriving:
        return Arriving(self._world.sent[source, self._rank, tag], into)
