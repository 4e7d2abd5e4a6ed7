"""Interleaved timing: one turn each, again and again, medians of all calls."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

TURN_SECONDS = 0.02  # one turn lasts about so long: many calls where calls are short
SLOW_CALL_SECONDS = 0.05  # from here on a call brings its own caches and threads up unnoticed
REST_SECONDS = 0.003  # lets another runtime's spinning worker threads go to sleep


@dataclass
class Clock:
    """The timed calls of one contestant."""

    run: Callable[[], Any]
    seconds: list[float] = field(default_factory=list)

    def call(self) -> float:
        start = time.perf_counter()
        self.run()
        elapsed = time.perf_counter() - start
        return elapsed

    def turn(self) -> None:
        """Timed calls for about TURN_SECONDS, after an untimed one where calls are short.

        The untimed call brings back the caches and threads that the contestant before took over,
        so that a call is timed as if its own like had come before it.
        """
        first = self.call()
        if first >= SLOW_CALL_SECONDS:
            self.seconds.append(first)
            return
        spent = 0.0
        while spent < TURN_SECONDS:
            elapsed = self.call()
            self.seconds.append(elapsed)
            spent += elapsed

    def median(self) -> float:
        return statistics.median(self.seconds)


def quick(run: Callable[[], Any], calls: int = 3) -> float:
    """The median of a few calls, fewer where they are slow: enough to choose between two ways."""
    clock = Clock(run)
    for _ in range(calls):
        clock.seconds.append(clock.call())
        if clock.seconds[-1] > 1.0:
            break
    return clock.median()


def interleave(clocks: list[Clock], *, repeats: int, min_time: float, rest: bool) -> None:
    """Give every clock a turn, A B A B …, at least `repeats` times and `min_time` seconds each."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        rounds = 0
        while rounds < repeats or any(sum(clock.seconds) < min_time for clock in clocks):
            for clock in clocks:
                if rest:
                    time.sleep(REST_SECONDS)
                clock.turn()
            rounds += 1
    finally:
        if enabled:
            gc.enable()
