"""A file that appears under its name only when it is complete, written as a careful editor writes.

    nothing of that name   a new file; its mode is what the umask leaves
    a regular file         replaced in one step; its mode and owner stay
    a symbolic link        followed: what it leads to is written, in the folder where that lies
    a FIFO, a device       written to, never replaced

Whatever ends the writing, a former file is as it was and nothing is left beside it: an exception, a
full disk, Ctrl-C, or a signal that asks the process to end.
"""

from __future__ import annotations

import errno
import os
import secrets
import signal
import stat
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

# What asks a process to end, and by default ends it at once, without a word to Python.
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU)

# How a write fails for which there is no room.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

STDIN = Path("-")


class Ended(BaseException):
    """A signal asks the process to end. No Exception, so that nobody takes it for an error."""


def check_writable(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Raise unless a file can be written under this name, before any work is spent on it.

    Parameters
    ----------
    path : Path
        The name.
    inputs : paths
        What is read; "-" is standard input. None of them may be the file, by whatever name.

    Raises
    ------
    OSError
        If the name is a folder's, its folder is missing, or permission is.
    ValueError
        If the file is one of the inputs.
    """
    target, former = follow(path)
    for folder in (path.parent, target.parent):
        if not folder.is_dir() and (former is None or is_replaced(target, former)):
            raise FileNotFoundError(f"no folder {folder}")
    if former is not None:
        if stat.S_ISDIR(former.st_mode):
            raise IsADirectoryError(f"{path} is a folder")
        if not os.access(path, os.W_OK):
            raise PermissionError(f"{path} may not be written to")
        for source in inputs:
            if is_same_file(former, source):
                name = "standard input" if source == STDIN else source
                raise ValueError(f"{path} is the same file as {name}, which is read")
        if not is_replaced(target, former):
            return
        ours = former.st_uid == os.geteuid() and former.st_gid in {os.getegid(), *os.getgroups()}
        if not (ours or os.geteuid() == 0):
            raise PermissionError(
                f"{path} has another owner or group, which a file in its place would not have"
            )
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write into {target.parent}")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for the block to write, and give it its name if the block ends well."""
    target, former = follow(path)
    if former is not None and not is_replaced(target, former):
        # Never made anew, and a terminal does not become the process's own.
        emptied = os.O_TRUNC if stat.S_ISREG(former.st_mode) else 0
        with open(os.open(path, os.O_WRONLY | os.O_NOCTTY | emptied), "wb") as file:
            yield file
        return
    # Not from the file's name, which may be as long as names can be.
    part = target.with_name(f".numattn-{secrets.token_hex(8)}.part")
    with signals_raise():
        try:
            mode = 0o666 if former is None else 0o600
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                yield file
                file.flush()
                if former is not None:
                    os.fchown(file.fileno(), former.st_uid, former.st_gid)
                    os.fchmod(file.fileno(), stat.S_IMODE(former.st_mode))
                os.fsync(file.fileno())
            os.replace(part, target)
        except BaseException as error:
            part.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in FULL:
                error.filename = str(path)  # a failing write does not say where
            raise


def is_stdout(path: Path) -> bool:
    """Return whether what is written under this name goes where print() writes."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(sys.stdout.fileno()))
    except OSError:  # no such file, or a stdout that is none
        return False


def follow(path: Path) -> tuple[Path, os.stat_result | None]:
    """Return where a name leads to through links, and what is there; None if nothing is."""
    target = Path(os.path.realpath(path))
    try:
        return target, os.stat(path)
    except FileNotFoundError:
        return target, None


def is_replaced(target: Path, former: os.stat_result) -> bool:
    """Return whether a file is a regular one that its name leads to.

    The name of an open file in /proc may lead to one that has no other name any more.
    """
    if not stat.S_ISREG(former.st_mode):
        return False
    try:
        return os.path.samestat(os.stat(target), former)
    except FileNotFoundError:
        return False


def is_same_file(former: os.stat_result, source: Path) -> bool:
    """Return whether writing to a file would change what is read from a source.

    A terminal or another device may well be both.
    """
    try:
        state = os.fstat(sys.stdin.fileno()) if source == STDIN else os.stat(source)
    except OSError:  # is reported where it is read
        return False
    shared = stat.S_ISREG(state.st_mode) or stat.S_ISFIFO(state.st_mode)
    return shared and os.path.samestat(state, former)


@contextmanager
def signals_raise() -> Iterator[None]:
    """Let the first signal that asks to end raise an exception; after the block, it does its work.

    Those that follow are held back, so that they do not disturb what is done because of the first.
    Signals that somebody handles or ignores (as `nohup` does) stay theirs.
    """
    came: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:
            raise KeyboardInterrupt if number == signal.SIGINT else Ended

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, *ENDING_SIGNALS):
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, receive)
    try:
        yield
    finally:
        for handled, handler in before.items():
            signal.signal(handled, handler)
        if came and came[0] != signal.SIGINT:
            os.kill(os.getpid(), came[0])
