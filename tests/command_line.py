"""Run the command `numattn`, in this process or as one of its own."""

from __future__ import annotations

import sys

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
