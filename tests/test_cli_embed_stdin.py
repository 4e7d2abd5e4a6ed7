"""`numattn embed` with its texts from standard input: a pipe, a terminal, an interrupted wait."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from command_line import command, refused
from numattn.cli import main
from numattn.models import Bert

LINES = ["the cat sat", "", "a dog ran , and ran"]


def test_embed_standard_input(tmp_path: Path, bert_folder: Path, bert: Bert) -> None:
    out = tmp_path / "vectors.npy"
    process = subprocess.run(
        command("embed", "--file", "-", "--out", out, "--model", bert_folder, "--threads", 1),
        input="\n".join(LINES),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert f"{out}: 3 × 32 float32, in " in process.stdout
    np.testing.assert_allclose(np.load(out), bert.encode(LINES), rtol=0, atol=1e-5)


@pytest.mark.parametrize("arguments", [[], ["-"], ["--file", "-"]])
def test_embed_reads_lines_of_standard_input(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bert_folder: Path,
    bert: Bert,
    tmp_path: Path,
    arguments: list[str],
) -> None:
    """Without --out, they are compared as texts of the command line are."""

    def give(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    for texts in (["a cat"], ["a cat", "", "dog"], ["a cat"] * 12):
        give("".join(f"{text}\n" for text in texts))
        assert main(["embed", *arguments, "--model", str(bert_folder)]) == 0
        compared = capsys.readouterr().out
        assert main(["embed", *texts, "--model", str(bert_folder)]) == 0
        assert capsys.readouterr().out == compared
    for text, message in [
        ("a cat\n" * 13, "more than 12 texts need --out or --json; standard input has 13 lines"),
        ("", "standard input has no line"),
    ]:
        give(text)
        given = refused(capsys, "embed", *arguments, "--model", bert_folder)
        assert given == f"numattn embed: error: {message}\n"
    give("a cat\ndog")
    out = tmp_path / "vectors.npy"
    assert main(["embed", *arguments, "--model", str(bert_folder), "--out", str(out)]) == 0
    np.testing.assert_array_equal(np.load(out), bert.encode(["a cat", "dog"]))


def test_embed_at_the_end_of_a_pipe(capsys: pytest.CaptureFixture[str], bert_folder: Path) -> None:
    process = subprocess.run(
        command("embed", "--model", bert_folder),
        input="a cat\ndog\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    assert main(["embed", "a cat", "dog", "--model", str(bert_folder)]) == 0
    assert capsys.readouterr().out == process.stdout


def test_embed_does_not_wait_for_a_terminal(bert_folder: Path) -> None:
    """Whoever typed no text is told so."""
    ours, theirs = pty.openpty()
    process = subprocess.run(
        command("embed", "--model", bert_folder),
        stdin=theirs,
        capture_output=True,
        text=True,
        timeout=60,
    )
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 2
    assert process.stderr == (
        "numattn embed: error: give texts, or --file, or lines on standard input\n"
    )


def test_a_minus_among_texts_is_a_text(
    capsys: pytest.CaptureFixture[str], bert_folder: Path
) -> None:
    assert main(["embed", "-", "a cat", "--model", str(bert_folder)]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("1  -")


def wait_until_asleep(pid: int) -> None:
    """Wait until a process has been asleep at ten looks in a row: it waits for its input then.

    A signal between two reads of one buffer is noticed only when the next of them ends: CPython
    looks for signals after a read, not before.
    """
    asleep = 0
    while asleep < 10:
        time.sleep(0.02)
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        asleep = asleep + 1 if state == "S" else 0


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to see it wait in")
def test_ctrl_c_is_quiet(tmp_path: Path, bert_folder: Path) -> None:
    """It waits for standard input, and is interrupted there."""
    process = subprocess.Popen(
        command("embed", "--file", "-", "--out", tmp_path / "v.npy", "--model", bert_folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A process started in the background inherits SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdin is not None
    # More than a pipe holds: once it is written, the process has begun to read.
    process.stdin.write(b"a cat\n" * 50_000)
    process.stdin.flush()
    wait_until_asleep(process.pid)
    process.send_signal(signal.SIGINT)
    # No communicate(): it would close standard input, which could end the process by itself.
    assert process.wait(timeout=60) == 130
    out, error = process.communicate()
    assert (out, error) == (b"", b"")
    assert list(tmp_path.iterdir()) == []
