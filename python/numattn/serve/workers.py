"""Processes that serve, all of one: it has loaded the models, forks, and forks again for the dead.

Weights are shared: after a fork memory is copied when it is written to, and nobody writes to them.
The first process computes nothing and has no threads, so that a fork leaves nothing behind.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
# One that dies sooner than this has not begun well; the next waits, longer each time.
SOON, LONGEST_WAIT = 5.0, 10.0
KILL_AFTER = 5  # seconds beyond the drain


class Workers:
    """Keeps `count` processes running.

    Parameters
    ----------
    count : int
    work : callable
        What a process does, given its number from 0 on and a file descriptor that can be read at
        its end when the first process is gone. It returns after SIGTERM.
    ended : callable
        Called with the id of a process that is gone.
    drain_seconds : int
        In which a process ends after SIGTERM, or little later.
    """

    def __init__(
        self,
        count: int,
        work: Callable[[int, int], object],
        ended: Callable[[int], object],
        drain_seconds: int,
    ) -> None:
        self._count, self._work, self._ended = count, work, ended
        self._drain_seconds = drain_seconds
        self._numbers: dict[int, int] = {}  # process → its number
        self._begun: dict[int, float] = {}  # number → when its process began
        self._due: dict[int, float] = {}  # number → when its next process is to begin
        self._failures = [0] * count
        self._stops = 0

    def run(self) -> None:
        """Keep the processes running until SIGTERM or SIGINT, and then until all have ended."""
        self._alive, ours = os.pipe()  # whose other end closes with this process
        bell, ring = os.pipe()
        for end in (bell, ring):
            os.set_blocking(end, False)
        former = {number: signal.signal(number, self._noticed) for number in SIGNALS}
        former_bell = signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
        self._own = (ours, bell, ring)
        gc.freeze()  # so that collections write to no page that is shared
        try:
            for number in range(self._count):
                self._start(number)
            self._watch(bell)
        finally:
            signal.set_wakeup_fd(former_bell)
            for number, handler in former.items():
                signal.signal(number, handler)
            for end in (self._alive, *self._own):
                os.close(end)

    def _noticed(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._stops += 1

    def _watch(self, bell: int) -> None:
        told, deadline = 0, float("inf")
        while not self._stops or self._numbers:
            if self._stops > told:
                # Told a second time, none waits for what it has begun.
                self._tell(signal.SIGTERM if told == 0 else signal.SIGKILL)
                deadline = time.monotonic() + self._drain_seconds + KILL_AFTER
                told = self._stops
            now = time.monotonic()
            if now >= deadline:
                self._tell(signal.SIGKILL)
                deadline = float("inf")
            for number in [each for each, due in self._due.items() if due <= now]:
                del self._due[number]
                if not self._stops:
                    self._start(number)
            next_time = min([deadline, *self._due.values()])
            wait = None if next_time == float("inf") else max(next_time - time.monotonic(), 0)
            select.select([bell], [], [], wait)
            with suppress(BlockingIOError):
                os.read(bell, 4096)
            self._reap()

    def _tell(self, number: int) -> None:
        for process in self._numbers:
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def _start(self, number: int) -> None:
        """Fork a process; a signal that comes meanwhile waits until it can be dealt with."""
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        process = os.fork()
        if process == 0:
            self._be_worker(number)
        self._numbers[process] = number
        self._begun[number] = time.monotonic()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _be_worker(self, number: int) -> None:
        """Do the work of a process, and end it."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for each in SIGNALS:
                signal.signal(each, signal.SIG_DFL)
            for end in self._own:
                os.close(end)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            self._work(number, self._alive)
            code = 0
        except KeyboardInterrupt:
            code = 130
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        """Take leave of processes that have ended, and say when others follow them."""
        while self._numbers:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process == 0:
                return
            number = self._numbers.pop(process, None)
            if number is None:
                continue
            self._ended(process)
            if self._stops:
                continue
            now = time.monotonic()
            early = now - self._begun[number] < SOON
            self._failures[number] = self._failures[number] + 1 if early else 0
            wait = min(0.1 * 2 ** self._failures[number], LONGEST_WAIT) if early else 0
            self._due[number] = now + wait
            code = os.waitstatus_to_exitcode(status)
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            print(
                f"numattn serve: process {process} ended {how}; another follows",
                file=sys.stderr,
                flush=True,
            )
