"""`numattn completion`: scripts that shells take, and by which they really complete."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import refused
from numattn.cli import COMMANDS, main
from numattn.cli.completion import SHELLS

NAMES = [module.__name__.rpartition(".")[2] for module in COMMANDS]
CASES = {
    "numattn ": NAMES,
    "numattn e": ["embed"],
    "numattn embed --no": ["--no-normalize", "--normalize"],
    "numattn embed --dtype b": ["bfloat16"],
    "numattn embed --dtype ": ["bfloat16", "float32", "int8", "w8a8"],
    "numattn completion ": [*SHELLS],
    "numattn generate --model ": ["models"],
    "numattn generate --draft m": ["models"],
    "numattn serve ": ["models"],
    "numattn embed --file l": ["lines.txt"],
    "numattn detect p": ["picture.png"],
    "numattn classify p": ["picture.png"],
    "numattn transcribe s": ["speech.wav"],
}


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    pytest.importorskip("shtab")
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what there may be to complete."""
    (tmp_path / "models").mkdir()
    for name in ("lines.txt", "picture.png", "speech.wav"):
        (tmp_path / name).touch()
    return tmp_path


def script_of(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def run_shell(shell: str, script: str, folder: Path) -> list[str]:
    process = subprocess.run(
        [shell, "-c", script], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout.splitlines()


def test_the_shell_takes_it(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = folder / "script"
    script.write_text(script_of(shell, capsys))
    process = subprocess.run([shell, "-n", script], capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


def test_bash_completes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As it does at a prompt: by the function that `complete` names, of the words so far."""
    pytest.importorskip("shtab")
    script = script_of("bash", capsys) + '\nfunction=$(complete -p numattn | grep -o "_[^ ]*")\n'
    for line in CASES:
        words = [*shlex.split(line), *([""] if line.endswith(" ") else [])]
        script += (
            f"COMP_WORDS=({' '.join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}\n"
            f"COMPREPLY=(); $function numattn {words[-1]!r} {words[-2]!r}\n"
            'printf "%s " "${COMPREPLY[@]}"; echo\n'
        )
    for found, (line, wanted) in zip(run_shell("bash", script, folder), CASES.items(), strict=True):
        assert sorted(set(found.split())) == sorted(wanted), line


def test_fish_completes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    (folder / "numattn.fish").write_text(script_of("fish", capsys))
    for line, wanted in CASES.items():
        lines = run_shell("fish", f"source numattn.fish; complete -C {line!r}", folder)
        found = {each.split("\t")[0].rstrip("/") for each in lines}
        assert set(wanted) <= found, line
        if not line.endswith(" "):
            assert found == set(wanted), line
        if line == "numattn e":
            assert lines == ["embed\ttexts to vectors; a few texts are compared"]


def test_what_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "invalid choice: 'tcsh'" in refused(capsys, "completion", "tcsh")
    assert "arguments are required: shell" in refused(capsys, "completion")
    monkeypatch.setitem(sys.modules, "shtab", None)
    message = refused(capsys, "completion", "bash")
    assert message.endswith("shtab is not installed: pip install 'numattn[completion]'\n")
