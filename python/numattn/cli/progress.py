"""A bar on stderr for work that takes long, where somebody looks on and tqdm is installed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .streams import note


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add --quiet."""
    parser.add_argument("--quiet", action="store_true", help="show no progress on stderr")


class Progress:
    """What is told how far the work is; without a bar it tells nobody."""

    def __init__(self, bar: Any = None) -> None:
        self._bar = bar
        self._done = 0

    def __call__(self, count: int) -> None:
        """So much more is done."""
        if self._bar is not None:
            self._bar.update(count)

    def note(self, program: str, text: str) -> None:
        """Print a line on stderr, in whose place the bar then goes on below."""
        if self._bar is not None:
            self._bar.clear()
        note(program, text)

    def reached(self, done: float, total: float) -> None:
        """So much is done altogether, of so much; the bar counts in whole numbers."""
        if self._bar is not None:
            if self._bar.total is None:  # shown at once, also where the rest takes no time
                self._bar.reset(round(total))
            self._bar.update(round(done) - self._done)
            self._done = round(done)


@contextmanager
def progress_bar(
    arguments: argparse.Namespace, total: int | None, unit: str, *, prints: bool = False
) -> Iterator[Progress]:
    """Show how far the work is; yield what is told how much more is done.

    Parameters
    ----------
    arguments : argparse.Namespace
        The command's, with `quiet`.
    total : int, optional
        How much there is to do, if that is known.
    unit : str
        One of what is counted.
    prints : bool
        Whether results are printed meanwhile. On a terminal these show how far the work is, and a
        bar would stand among them.
    """
    watched = sys.stderr.isatty() and not (prints and sys.stdout.isatty())
    if arguments.quiet or not watched:
        yield Progress()
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield Progress()
        return
    with tqdm(total=total, unit=unit, leave=False) as bar:
        yield Progress(bar)
