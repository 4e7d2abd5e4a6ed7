"""`numattn transcribe`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import refused
from numattn.cli import main
from numattn.cli.transcripts import clock, written
from numattn.models import Whisper
from numattn.models.encoder_decoder.transcript import Segment, Transcript, Word
from test_sound import write_wav
from tiny_encoder_decoders import speech_like, write_whisper
from tiny_speech_tokenizer import write_speech_tokenizer
from whisper_cases import HEADS


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    own = {"alignment_heads": HEADS}
    return write_speech_tokenizer(write_whisper(tmp_path_factory.mktemp("whisper"), own))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sounds")
    return [
        write_wav(folder / f"{name}.wav", speech_like(3.0, seed)[:, np.newaxis], 2, 1, 16000)
        for seed, name in enumerate("ab")
    ]


def printed(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    assert main(["transcribe", *map(str, arguments)]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return output.out


def test_lines(whisper: Path, sounds: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    model, given = Whisper.from_folder(whisper), ("--model", whisper, "--language", "de")
    texts = [" ".join(model.transcribe(each, language="de").text.split()) for each in sounds]
    assert printed(capsys, *sounds, *given).splitlines() == texts
    found = model.transcribe(sounds[0], language="de", word_timestamps=True)
    words = [word for segment in found.segments for word in segment.words or []]
    lines = printed(capsys, sounds[0], "--words", *given).splitlines()
    assert lines == [f"{each.start:.2f}\t{each.end:.2f}\t{each.text.strip()}" for each in words]
    assert len(lines) > 2


def test_tasks_and_prompts(
    whisper: Path, sounds: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model, given = Whisper.from_folder(whisper), ("--model", whisper, "--language", "de")
    for option, named in [("--task", {"task": "translate"}), ("--prompt", {"prompt": "the cat"})]:
        expected = model.transcribe(sounds[0], language="de", **named)
        (value,) = named.values()
        line = printed(capsys, sounds[0], option, value, *given)
        assert line == " ".join(expected.text.split()) + "\n"


def test_json(whisper: Path, sounds: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    model = Whisper.from_folder(whisper)
    lines = printed(capsys, *sounds, "--model", whisper, "--format", "json", "--words").splitlines()
    for file, line in zip(sounds, lines, strict=True):
        found, got = model.transcribe(file, word_timestamps=True), json.loads(line)
        assert (got["file"], got["language"], got["text"]) == (
            str(file),
            found.language,
            found.text,
        )
        for segment, part in zip(found.segments, got["segments"], strict=True):
            assert part["start"] == round(segment.start, 3)
            texts = [word.text.strip() for word in segment.words or []]
            assert [word["text"] for word in part["words"]] == texts
    (line,) = printed(capsys, sounds[0], "--model", whisper, "--format", "json").splitlines()
    assert "words" not in json.loads(line)["segments"][0]


def test_subtitles(whisper: Path, sounds: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    model = Whisper.from_folder(whisper)
    segments = model.transcribe(sounds[0], timestamps=True).segments
    srt = printed(capsys, sounds[0], "--model", whisper, "--format", "srt")
    cues = re.findall(r"(\d+)\n00:00:(\d\d,\d{3}) --> 00:00:(\d\d,\d{3})\n(.+)\n\n", srt)
    assert "".join(f"{n}\n00:00:{a} --> 00:00:{b}\n{text}\n\n" for n, a, b, text in cues) == srt
    assert [int(number) for number, *_ in cues] == [*range(1, len(cues) + 1)]
    assert [text for *_, text in cues] == [" ".join(each.text.split()) for each in segments]
    starts = [float(start.replace(",", ".")) for _, start, _, _ in cues]
    np.testing.assert_allclose(starts, [each.start for each in segments], rtol=0, atol=5e-4)
    vtt = printed(capsys, sounds[0], "--model", whisper, "--format", "vtt")
    assert vtt.startswith("WEBVTT\n\n00:00:") and vtt.count(" --> ") == len(cues)


FOUND = Transcript(
    "A <b> & c\nd",
    [
        Segment(0.0, 1.5, " A <b> & c\n", [], [Word(" A", 0.0, 0.5), Word(" <b>", 0.5, 1.5)]),
        Segment(1.5, 1.5, " ", [], []),
        Segment(3599.9996, 3600.25, " d", [], [Word(" d", 3600.0, 3600.25)]),
    ],
    "en",
)


@pytest.mark.parametrize(
    ("form", "times", "words", "expected"),
    [
        ("txt", False, False, "A <b> & c d\n"),
        ("txt", True, False, "0.00\t1.50\tA <b> & c\n3600.00\t3600.25\td\n"),
        ("txt", True, True, "0.00\t0.50\tA\n0.50\t1.50\t<b>\n3600.00\t3600.25\td\n"),
        (
            "srt", False, False,
            "1\n00:00:00,000 --> 00:00:01,500\nA <b> & c\n\n"
            "2\n01:00:00,000 --> 01:00:00,250\nd\n\n",
        ),
        (
            "vtt", False, True,
            "WEBVTT\n\n00:00:00.000 --> 00:00:00.500\nA\n\n"
            "00:00:00.500 --> 00:00:01.500\n&lt;b&gt;\n\n"
            "01:00:00.000 --> 01:00:00.250\nd\n\n",
        ),
    ],
)  # fmt: skip
def test_forms(form: str, times: bool, words: bool, expected: str) -> None:
    assert written(Path("a.wav"), FOUND, form, times, words) == expected


def test_nothing_said() -> None:
    nothing = Transcript("", [], "en")
    texts = [written(Path("a.wav"), nothing, form, False, False) for form in ("txt", "srt", "vtt")]
    assert texts == ["\n", "", "WEBVTT\n\n"]
    assert clock(59.9996, ".") == "00:01:00.000"


def test_files(
    whisper: Path, sounds: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--model", whisper, "--format", "srt")
    assert printed(capsys, *sounds, *given, "--out", tmp_path) == ""
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.srt", "b.srt"]
    assert (tmp_path / "b.srt").read_text() == printed(capsys, sounds[1], *given)


def test_what_is_refused(
    whisper: Path, sounds: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def message(*arguments: Any) -> str:
        return refused(capsys, "transcribe", *arguments, "--model", whisper)

    assert "prints the subtitles of one file, not of 2" in message(*sounds, "--format", "vtt")
    assert "no folder" in message(*sounds, "--out", tmp_path / "none")
    both = message(sounds[0], sounds[0], "--out", tmp_path)
    assert "would both be written to" in both and str(tmp_path / "a.txt") in both
    assert "no c.wav" in message(sounds[0], tmp_path / "c.wav")
    assert "invalid choice: 'doc'" in message(sounds[0], "--format", "doc")
    assert "language 'xx' is none" in message(sounds[0], "--language", "xx")
    assert [*tmp_path.iterdir()] == []
    plain = write_speech_tokenizer(write_whisper(tmp_path / "plain"))
    found = refused(capsys, "transcribe", sounds[0], "--words", "--model", plain)
    assert "word_timestamps need alignment_heads" in found
