"""The standard streams of a command, in whatever state the process was given them."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress


class ClosedInput(io.RawIOBase):
    """Standard input that was closed before the process began: an error once it is read."""

    def readable(self) -> bool:
        """Return True: it is a file to read from, as far as that goes."""
        return True

    def readinto(self, buffer: object) -> int:
        """Raise OSError."""
        raise OSError("standard input is closed")


def prepare_streams() -> None:
    """Give the process the streams that it was started without, and make printing safe.

    Raises
    ------
    OSError
        If standard output is closed: the first file opened would take its place and its text.
    """
    # Python has None for a stream that is closed, and prints to standard output in stderr's place.
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(ClosedInput()), encoding="utf-8")
    if sys.stdout is None:
        raise OSError("standard output is closed")
    if isinstance(sys.stdin, io.TextIOWrapper) and not sys.stdin.isatty():
        # What comes from files and pipes is UTF-8, whatever the locale says of terminals.
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal without "×" or a text's own letters gets "?" for them, not an error.
        sys.stdout.reconfigure(errors="replace")


def flush_stdout() -> None:
    """Write out what was printed."""
    if sys.stdout is not None:
        sys.stdout.flush()


def release_stdout() -> None:
    """Let what is printed vanish if nobody takes it; Python would complain of it at exit."""
    try:
        flush_stdout()
    except OSError:
        let_vanish(sys.stdout.fileno())


def note(program: str, text: str) -> None:
    """Print a line on stderr; nothing if nobody is left to read it."""
    try:
        print(f"{program}: {text}", file=sys.stderr, flush=True)
    except OSError:
        # What is held back would fail again at exit, and be Python's exit code.
        with suppress(OSError):
            let_vanish(sys.stderr.fileno())


def let_vanish(descriptor: int) -> None:
    """Send to nobody what is written from now on."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
