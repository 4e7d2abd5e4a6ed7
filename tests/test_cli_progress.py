"""Progress on a terminal: of which commands, and when there is none."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import numattn.cli.similarity as similarity
import tiny_detr
from numattn.cli import bench_rows, classify, main
from numattn.models import Seq2Seq, load
from test_cli_images import FOLDER, THREE
from test_encoder_decoder_texts import write_tokenizer
from test_whisper import write_wav
from tiny_encoder_decoders import WHISPER, speech_like, write_whisper
from tiny_marian import write_folder as write_marian


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


Arguments = Callable[[Path], list[str]]


def of_classify(folder: Path) -> list[str]:
    return ["classify", *[str(THREE)] * 5, "--model", str(FOLDER)]


def of_translate(folder: Path) -> list[str]:
    return ["translate", *["a"] * 5, "--model", str(write_marian(folder / "marian"))]


def of_transcribe(folder: Path) -> list[str]:
    model = write_whisper(folder / "whisper")
    write_tokenizer(model, WHISPER["vocab_size"], WHISPER["eos_token_id"])
    path = write_wav(folder / "a.wav", speech_like(5.2)[:, np.newaxis], 2, 1, 16000)
    return ["transcribe", str(path), "--model", str(model)]


def of_similarity(folder: Path) -> list[str]:
    return ["similarity", "--query", "a cat", "--top", "1", *"abcde"]


def of_embed(folder: Path) -> list[str]:
    return ["embed", "--json", *"abcde"]


def of_detect(folder: Path) -> list[str]:
    for name in ("onnx", "onnxruntime"):
        pytest.importorskip(name)
    model = tiny_detr.write_folder(folder / "detr", "basic")
    return ["detect", *[str(THREE)] * 5, "--model", str(model)]


def of_bench(folder: Path) -> list[str]:
    return ["bench", "--seconds", "0.01"]


# Whether results are printed meanwhile, so that there is no bar among them.
COMMANDS = {
    of_classify: True,
    of_translate: True,
    of_transcribe: False,
    of_similarity: False,
    of_embed: True,
    of_detect: True,
    of_bench: False,
}


@pytest.fixture(autouse=True)
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in many parts, and none of it long."""
    monkeypatch.setattr(classify, "BATCH", 2)
    monkeypatch.setattr(similarity, "PIECE_LINES", 2)
    # Random weights write texts of which it is said that they may lack something.
    monkeypatch.setattr(Seq2Seq, "translate", lambda model, texts: texts)
    monkeypatch.setattr(bench_rows, "rows", lambda: [bench_rows.linear_row("float32")] * 5)
    monkeypatch.setattr(bench_rows, "ROWS", 4)


@pytest.mark.parametrize("arguments_of", COMMANDS)
def test_a_bar(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments_of: Arguments,
) -> None:
    pytest.importorskip("tqdm")
    arguments = arguments_of(tmp_path)
    for options, on_terminal in [([], False), (["--quiet"], False), ([], True)]:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", Terminal())
            if on_terminal:
                patch.setattr(sys, "stdout", Terminal())
            assert main([*arguments, *options]) == 0
            shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
        if options or (on_terminal and COMMANDS[arguments_of]):
            assert shown == ""
        else:
            assert "/5 [" in shown
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tqdm", None)
        patch.setattr(sys, "stderr", Terminal())
        assert main(arguments) == 0
        assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]
    assert main(arguments) == 0
    assert capsys.readouterr().err == ""


def test_windows_of_sound(tmp_path: Path) -> None:
    """Each is told when it is done; the last is the end."""
    model = load(write_whisper(tmp_path))
    write_tokenizer(tmp_path, WHISPER["vocab_size"], WHISPER["eos_token_id"])
    calls: list[tuple[float, float]] = []
    sound = speech_like(5.2)
    found = model.transcribe(sound, progress=lambda *given: calls.append(given))
    done = [each for each, _ in calls]
    assert {whole for _, whole in calls} == {sound.size / 16000}
    assert len(done) >= 3 and done == sorted(set(done)) and done[-1] == sound.size / 16000
    ends = {round(each.end, 6) for each in found.segments}
    assert all(round(each, 6) in ends for each in done[:-1])
    assert model.transcribe(sound) == found


def test_remarks_do_not_stand_in_the_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("tqdm")
    folder = write_marian(tmp_path)

    def lacking(model: Seq2Seq, texts: list[str]) -> list[str]:
        warnings.warn("something lacks", UserWarning, stacklevel=1)
        return texts

    monkeypatch.setattr(Seq2Seq, "translate", lacking)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Terminal())
        assert main(["translate", "a", "b", "--model", str(folder)]) == 2
        shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    remarks = [line for line in shown.splitlines() if "something lacks" in line]
    assert [remark.rpartition("\r")[2] for remark in remarks] == [
        f"numattn translate: text {number}: something lacks" for number in (1, 2)
    ]
