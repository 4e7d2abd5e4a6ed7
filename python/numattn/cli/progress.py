"""A bar on stderr for work that takes long, where somebody looks on and tqdm is installed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add --quiet."""
    parser.add_argument("--quiet", action="store_true", help="show no progress on stderr")


@contextmanager
def progress_bar(
    arguments: argparse.Namespace, total: int | None, unit: str, *, prints: bool = False
) -> Iterator[Callable[[int], object]]:
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
        yield lambda count: None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda count: None
        return
    with tqdm(total=total, unit=unit, leave=False) as bar:
        yield bar.update
