"""Run the command `numattn`, in this process or as one of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

from numattn.cli import main


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail as the user's doing, and return its one line of reason."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as leave:  # argparse leaves so
        code = leave.code
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert printed.err.count("\n") == 1 and printed.err.endswith("\n")
    return printed.err


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "numattn", *map(str, arguments)]


def run_script(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script that runs the command; without standard input, and with signals as usual."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        # A process started in the background inherits SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
