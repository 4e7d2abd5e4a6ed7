"""Windows that Whisper writes again, beside stored results of transformers, and by a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from numattn.models.encoder_decoder.attempts import Thresholds, Verdict, compression_ratio
from test_whisper import read
from tiny_encoder_decoders import speech_like, write_whisper
from whisper_cases import ATTEMPTS, SECONDS, check_segments, golden_part


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[Any]]:
    return golden_part("attempt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.mark.parametrize("case", ATTEMPTS)
def test_decisions(
    folder: Path, golden: dict[str, NDArray[Any]], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Verdict] = []
    judge = Thresholds.verdict

    def watched(self: Thresholds, *arguments: Any) -> Verdict:
        found.append(judge(self, *arguments))
        return found[-1]

    monkeypatch.setattr(Thresholds, "verdict", watched)
    got = read(folder).transcribe(speech_like(SECONDS), timestamps=True, **ATTEMPTS[case])
    assert [*map(tuple, found)] == [*map(tuple, golden[f"{case}_decisions"].tolist())]
    assert len({*found}) == 2
    check_segments(got, golden, case)


def test_silence_throughout(folder: Path) -> None:
    got = read(folder).transcribe(
        speech_like(SECONDS), logprob_threshold=0.0, no_speech_threshold=0.0
    )
    assert (got.text, got.segments) == ("", [])


def test_seeds(folder: Path) -> None:
    model, sound = read(folder), speech_like(3.0)
    options: dict[str, Any] = {"language": "de", "temperature": 1.0}
    first = model.transcribe(sound, seed=1, **options)
    assert model.transcribe(sound, seed=1, **options) == first
    others = {model.transcribe(sound, seed=seed, **options).text for seed in range(2, 6)}
    assert len(others) == 4 and first.text not in others
    assert len({model.transcribe(sound, **options).text for _ in range(3)}) > 1
    # A second attempt draws other numbers than the first.
    again = {"logprob_threshold": 0.0, "temperature": (1.0, 1.0)}
    assert model.transcribe(sound, seed=1, **{**options, **again}) != first


def test_as_often_as_probable(folder: Path) -> None:
    """The second token of a window, the first that is a choice, drawn many times."""
    model, sound = read(folder), speech_like(1.0)
    state = model.encode(model.log_mel(np.pad(sound, (0, 16000)))[np.newaxis])
    opening = [51, 53, 56, 59]
    logits = model.logits([opening], state)[0, -1].astype(np.float64)
    kept = np.setdiff1d(np.arange(161), [1, 2, 3, 50, 51, 52, 53, 54, 55, 56, 57, 58])
    best = kept[np.argsort(-logits[kept])][:50]
    chances = np.exp(logits[best] / 0.7)
    chances /= chances.sum()
    counts = dict.fromkeys(best.tolist(), 0)
    for seed in range(150):
        got = model.transcribe(sound, language="de", temperature=0.7, seed=seed, max_tokens=1)
        counts[got.segments[0].tokens[0]] += 1
    deviation = np.sqrt(150 * chances * (1 - chances))
    assert (np.abs(np.array([*counts.values()]) - 150 * chances) <= 5 * deviation + 1).all()


def test_compression() -> None:
    assert compression_ratio([5] * 60, 161) > 4 * compression_ratio([5, 6, 7, 8], 161)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": -0.1}, ValueError, "temperature must be 0 or more, and finite, not -0.1"),
        ({"temperature": (0.0, "hot")}, TypeError, "temperature must be a real number, not 'hot'"),
        ({"temperature": "0.2"}, TypeError, "temperature must be a real number, not '0.2'"),
        ({"temperature": ()}, ValueError, "temperature must be one number or more, not none"),
        ({"seed": -1}, ValueError, "seed must be 0 or more, not -1"),
        ({"seed": 0.5}, TypeError, "seed must be an integer, not 0.5"),
        ({"no_speech_threshold": 0.6}, ValueError, "0.6 needs a logprob_threshold"),
        ({"logprob_threshold": "a"}, TypeError, "logprob_threshold must be a real number"),
        ({"logprob_threshold": float("nan")}, ValueError, "logprob_threshold must be a number"),
    ],
)
def test_arguments_that_are_refused(
    folder: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read(folder).transcribe(speech_like(0.5), **options)


def test_silence_needs_its_token(tmp_path: Path) -> None:
    model = read(write_whisper(tmp_path / "whisper", {"no_timestamps_token_id": None}))
    with pytest.raises(ValueError, match="no_speech_threshold needs no_timestamps_token_id"):
        model.transcribe(speech_like(0.5), logprob_threshold=-1.0, no_speech_threshold=0.6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"typical_p": 0.9}, "typical_p 0.9 is not supported"),
        ({"logprob_threshold": "low"}, "logprob_threshold must be a number, not 'low'"),
    ],
)
def test_settings_that_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read(write_whisper(tmp_path / "whisper", changes))
