"""Commands that a signal ends while they write: nothing half-written is left."""

from __future__ import annotations

import os
import signal
import textwrap
from pathlib import Path

import numpy as np
import pytest

from command_line import run_script
from numattn.cli import whole_file
from numattn.models import Bert

TEXTS = ["a cat", "a dog ran"]

# A command that gets a signal once it has written a part of its file.
SIGNALLED = """
    import resource, signal, sys
    import numattn.cli.embed as embed
    from numattn.cli import main

    def signalled(*arguments):
        signal.raise_signal(number)
        return whole(*arguments)

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    number, whole, embed.write_rows = int(sys.argv[1]), embed.write_rows, signalled
    sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("name", "former"),
    [
        ("SIGTERM", True),
        ("SIGTERM", False),
        ("SIGHUP", True),
        ("SIGQUIT", True),
        ("SIGXCPU", True),
        ("SIGINT", True),
    ],
)
def test_a_signal_leaves_nothing(bert_folder: Path, out: Path, name: str, former: bool) -> None:
    """And the process ends by it, so that a shell sees the reason; Ctrl-C has its exit code."""
    number = signal.Signals[name]
    if former:
        out.write_bytes(b"a former file")
    arguments = ("embed", *TEXTS, "--out", out, "--model", bert_folder)
    process = run_script(SIGNALLED, int(number), *arguments)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert (process.stdout, process.stderr) == ("", "")
    assert os.listdir(out.parent) == ([out.name] if former else [])
    if former:
        assert out.read_bytes() == b"a former file"


def test_a_signal_that_is_ignored_stays_so(bert_folder: Path, bert: Bert, out: Path) -> None:
    """As under nohup."""
    script = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    script += textwrap.dedent(SIGNALLED)
    arguments = ("embed", *TEXTS, "--out", out, "--model", bert_folder)
    process = run_script(script, int(signal.SIGHUP), *arguments)
    assert process.returncode == 0, process.stderr
    np.testing.assert_array_equal(np.load(out), bert.encode(TEXTS))


def test_a_second_signal_does_not_disturb_what_the_first_began(tmp_path: Path) -> None:
    script = """
        import pathlib, signal, sys
        from numattn.cli.whole_file import whole_file

        remove = pathlib.Path.unlink
        def unlink(path, **options):
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGINT)
            remove(path, **options)

        pathlib.Path.unlink = unlink
        with whole_file(pathlib.Path(sys.argv[1])) as file:
            signal.raise_signal(signal.SIGTERM)
    """
    process = run_script(script, tmp_path / "file")
    assert process.returncode == -signal.SIGTERM
    assert os.listdir(tmp_path) == []


def test_signals_are_as_before_afterwards(tmp_path: Path) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU)
    before = [signal.getsignal(number) for number in numbers]
    with whole_file.whole_file(tmp_path / "file") as file:
        file.write(b"new")
    assert [signal.getsignal(number) for number in numbers] == before
