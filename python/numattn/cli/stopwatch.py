"""How long calls take: repeated for some time, in turns where several are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

# A turn of short calls has many of them, before which one is not timed: it brings back the caches
# and threads that the others' turn took over.
TURN, SLOW_CALL = 0.02, 0.05
# Lets another library's spinning threads go to sleep.
REST = 0.003
# So many make a median and a spread.
LEAST_CALLS = 3


class Timing(NamedTuple):
    """How long a call took."""

    seconds: float
    """The median."""
    quartiles: tuple[float, float]
    """A quarter of the calls took less than the first, a quarter more than the second."""
    calls: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """Return what is said of calls, two of them or more.

        Examples
        --------
        >>> Timing.of([3.0, 1.0, 2.0, 9.0, 4.0])
        Timing(seconds=3.0, quartiles=(2.0, 4.0), calls=5)
        """
        first, median, third = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(median, (first, third), len(seconds))

    @property
    def spread(self) -> float:
        """Return half of what is between the quartiles, as a share of the median."""
        return (self.quartiles[1] - self.quartiles[0]) / (2 * self.seconds)


def timings(calls: Sequence[Callable[[], object]], seconds: float) -> list[Timing]:
    """Return how long each of some calls takes, by turns that take some seconds together.

    They take longer if a call is so slow that it would have too few turns.
    """
    taken: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or len(taken[-1]) < LEAST_CALLS:
        for call, own in zip(calls, taken, strict=True):
            if len(calls) > 1:
                time.sleep(REST)
            own += turn(call)
    return [Timing.of(each) for each in taken]


def turn(call: Callable[[], object]) -> list[float]:
    """Return how long each call of a turn takes."""
    first = seconds_of(call)
    if first >= SLOW_CALL:
        return [first]
    taken: list[float] = []
    while sum(taken) < TURN:
        taken.append(seconds_of(call))
    return taken


def seconds_of(call: Callable[[], object]) -> float:
    """Return how long one call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
