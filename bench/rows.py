"""One row: choose each contestant's fastest right way, time them in turn, state the ratio."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import serving_oracle  # noqa: F401  (teaches `probe` the rows of a service)
from cases import Case
from contestant import Candidate, Contestant, Unsupported, failure
from measure import Clock, interleave, quick
from oracle import Probe, probe, relative_error
from ours import InOnePiece, Numattn
from serving import ServingCase


@dataclass
class Entry:
    """What one contestant did on one row."""

    status: str = "not available"  # or "ok", "wrong"
    reason: str = ""
    how: str = ""
    seconds: float | None = None  # median
    least_seconds: float | None = None  # of the fastest call: what a quiet machine might give
    calls: int = 0
    rate: float | None = None  # in the row's unit
    error: float | None = None  # against the float64 reference
    difference: float | None = None  # from ours, over the whole result
    tried: dict[str, float] = field(default_factory=dict)  # way → seconds of a few calls
    failed: list[str] = field(default_factory=list)  # errors and wrong results of other ways


@dataclass
class Row:
    """One line of the table."""

    name: str
    dtype: str
    unit: str
    length: int | None  # keys of an attention row: the plot's horizontal axis
    entries: dict[str, Entry]
    best_peer: str | None = None
    ratio: float | None = None  # best peer's time / our time
    group: str = "computing"  # the table in which the row stands


@dataclass(frozen=True)
class Effort:
    """How long to measure: at least so many turns and seconds, with a rest between turns or not."""

    repeats: int
    min_time: float
    rest: bool


@dataclass
class Ready:
    """A candidate that gave the right result."""

    candidate: Candidate
    result: NDArray[np.float32]


def in_unit(seconds: float, unit: str, work: float) -> float:
    return seconds * 1e3 if unit == "ms" else work / seconds / 1e9


def choose(
    contestant: Contestant, case: Case | ServingCase, dtype: str, operands: Any, probe: Probe
) -> tuple[Entry, Ready | None]:
    """The contestant's fastest right way, or an entry that says why there is none."""
    entry, best = Entry(), None
    try:
        recipes = contestant.recipes(case, dtype, operands)
    except Unsupported as error:
        entry.reason = str(error)
        return entry, None
    for recipe in recipes:
        # Whatever a library raises is its result for this row, and is printed as that.
        try:
            candidate = recipe()
            result = candidate.fetch(candidate.run())
        except Exception as error:
            entry.failed.append(failure(error))
            continue
        error_here = relative_error(probe, result)
        if error_here > case.wrong_beyond[dtype]:
            entry.failed.append(f"{candidate.how} is wrong: relative error {error_here:.1e}")
            entry.status = entry.status if best else "wrong"
            continue
        seconds = quick(candidate.run)
        entry.tried[candidate.how] = seconds
        if best is None or seconds < entry.tried[best.candidate.how]:
            best = Ready(candidate, result)
            entry.status, entry.how, entry.error = "ok", candidate.how, error_here
    if best is None:
        entry.reason = "; ".join(entry.failed)
    return entry, best


def distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def hold_against_ours(
    entries: dict[str, Entry], ready: dict[str, Ready], ours: str, most: float
) -> None:
    """A peer that differs from us somewhere outside the probed rows is not timed either."""
    if ours not in ready:
        return
    for name in [name for name in ready if name != ours]:
        entry = entries[name]
        entry.difference = distance(ready[name].result, ready[ours].result)
        if not entry.difference <= most:
            entry.status = "wrong"
            entry.reason = f"differs from {ours} by {entry.difference:.1e}; one of them is wrong"
            del ready[name]


def measure_row(
    case: Case | ServingCase, dtype: str, ours: Numattn, peers: list[Contestant], effort: Effort
) -> Row:
    """Prepare, check, time in turn, and state the ratio."""
    operands = case.operands(dtype)
    expected = probe(case, operands)
    if case.also_in_one_piece:
        peers = [InOnePiece(ours), *peers]
    entries: dict[str, Entry] = {}
    ready: dict[str, Ready] = {}
    for contestant in [ours, *peers]:
        entry, best = choose(contestant, case, dtype, operands, expected)
        entries[contestant.name] = entry
        if best is not None:
            ready[contestant.name] = best
    hold_against_ours(entries, ready, ours.name, case.wrong_beyond[dtype])

    clocks = {name: Clock(one.candidate.run) for name, one in ready.items()}
    interleave(
        list(clocks.values()),
        repeats=effort.repeats,
        min_time=effort.min_time,
        rest=effort.rest,
    )
    for name, clock in clocks.items():
        entry = entries[name]
        entry.seconds, entry.calls = clock.median(), len(clock.seconds)
        entry.least_seconds = min(clock.seconds)
        entry.rate = in_unit(entry.seconds, case.unit, case.work(dtype))
    row = Row(case.name, dtype, case.unit, case.length, entries, group=case.group)
    return with_ratio(row, ours.name)


def with_ratio(row: Row, ours: str) -> Row:
    """Ratio = best peer's median time / our median time."""
    peers = {name: e.seconds for name, e in row.entries.items() if name != ours and e.seconds}
    if peers:
        row.best_peer = min(peers, key=lambda name: peers[name])
        seconds = row.entries[ours].seconds
        if seconds:
            row.ratio = peers[row.best_peer] / seconds
    return row
