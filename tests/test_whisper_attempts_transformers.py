"""Windows that Whisper writes again, and those that it passes by, beside transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numattn.models.encoder_decoder import attempts
from numattn.models.encoder_decoder.attempts import Draws, Thresholds, compression_ratio
from test_whisper import read
from tiny_encoder_decoders import speech_like, write_whisper
from whisper_by_transformers import written

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SECONDS = 7.7
Decision = tuple[bool, bool]


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Decision]]:
    """What we find of each text."""
    found: list[Decision] = []
    judge = Thresholds.verdict

    def watched(self: Thresholds, *arguments: Any) -> attempts.Verdict:
        found.append(judge(self, *arguments))
        return found[-1]  # type: ignore[return-value]

    monkeypatch.setattr(Thresholds, "verdict", watched)
    yield found


def check(got: Any, expected: list[Any]) -> None:
    assert [each.tokens for each in got.segments] == [each["tokens"].tolist() for each in expected]
    for end in ("start", "end"):
        times = [float(each[end]) for each in expected]
        np.testing.assert_allclose([getattr(each, end) for each in got.segments], times, atol=1e-9)


LIMITS: list[dict[str, float]] = [
    {"logprob_threshold": -1.25},
    {"compression_ratio_threshold": 0.95},
    {"logprob_threshold": -1.3, "compression_ratio_threshold": 1.0},
    {"logprob_threshold": -1.1, "no_speech_threshold": 4e-5},
    {"logprob_threshold": -1.2, "no_speech_threshold": 1e-3, "compression_ratio_threshold": 0.6},
]


@pytest.mark.parametrize(
    ("limits", "beams", "seed"),
    [*((limits, 1, 0) for limits in LIMITS), *((limits, 3, 1) for limits in LIMITS[::2])],
)
def test_decisions(
    tmp_path: Path, limits: dict[str, float], beams: int, seed: int, decided: list[Decision]
) -> None:
    """At 0 twice: a second attempt is made of a window, and is the first one again."""
    folder = write_whisper(tmp_path / "whisper", seed=seed)
    options: dict[str, Any] = {**limits, "temperature": (0.0, 0.0)}
    expected, decisions = written(folder, speech_like(SECONDS, seed), num_beams=beams, **options)
    got = read(folder).transcribe(
        speech_like(SECONDS, seed), timestamps=True, beams=beams, **options
    )
    assert decided == decisions and len(decisions) > 3
    check(got, expected)


def test_these_limits_decide_both_ways(tmp_path: Path, decided: list[Decision]) -> None:
    for seed in range(3):
        model = read(write_whisper(tmp_path / f"whisper{seed}", seed=seed))
        for limits in LIMITS:
            model.transcribe(speech_like(SECONDS, seed), timestamps=True, **limits)
    assert {*decided} == {(False, False), (True, False), (False, True)}


@pytest.mark.parametrize(("seed", "top_k"), [(0, None), (1, None), (0, 7), (1, 0)])
def test_drawn_texts(
    tmp_path: Path, seed: int, top_k: int | None, decided: list[Decision],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The same numbers draw the same tokens: transformers is given ours."""
    folder = write_whisper(tmp_path / "whisper", {"top_k": top_k}, seed=seed)
    temperatures = (0.0, 0.4, 1.3)
    samplers = Draws(None, None, None).samplers(temperatures, 5)
    now: dict[str, int] = {}
    generate = transformers.GenerationMixin.generate

    def watched(self: Any, *arguments: Any, **named: Any) -> Any:
        config = named["generation_config"]
        now["attempt"] = temperatures.index(config.temperature if config.do_sample else 0.0)
        return generate(self, *arguments, **named)

    def draw(probabilities: Any, num_samples: int) -> Any:
        row = probabilities.numpy()[0].astype(np.float64)
        # Sorted by what is likely where top_k sorts them, or else by number.
        order = np.arange(row.size) if top_k == 0 else np.argsort(-row, kind="stable")
        place = np.searchsorted(np.cumsum(row[order]), samplers[now["attempt"]].uniform(), "right")
        return torch.tensor([[int(order[place])]])

    monkeypatch.setattr(transformers.GenerationMixin, "generate", watched)
    monkeypatch.setattr(torch, "multinomial", draw)
    options: dict[str, Any] = {"logprob_threshold": -1.3, "compression_ratio_threshold": 1.0}
    expected, decisions = written(
        folder, speech_like(SECONDS, seed), temperature=temperatures, **options
    )
    got = read(folder).transcribe(
        speech_like(SECONDS, seed), timestamps=True, temperature=temperatures, seed=5, **options
    )
    assert decided == decisions and (True, False) in decisions
    check(got, expected)


def test_the_folder_s_own(tmp_path: Path, decided: list[Decision]) -> None:
    """Of a folder's logprob_threshold alone transformers keeps no scores: an error of its own."""
    own = {"compression_ratio_threshold": 0.95}
    folder = write_whisper(tmp_path / "whisper", own)
    expected, decisions = written(folder, speech_like(SECONDS), temperature=(0.0, 0.0))
    got = read(folder).transcribe(speech_like(SECONDS), timestamps=True, temperature=(0.0, 0.0))
    assert decided == decisions and {*decided} == {(True, False), (False, False)}
    check(got, expected)


@pytest.mark.parametrize("vocab_size", [161, 300, 51865, 70000])
def test_compression(vocab_size: int, rng: np.random.Generator) -> None:
    model = transformers.WhisperForConditionalGeneration
    for repeats in (1, 30):
        tokens = rng.integers(0, vocab_size, 9).tolist() * repeats
        expected = model._retrieve_compression_ratio(torch.tensor(tokens), vocab_size)
        assert compression_ratio(tokens, vocab_size) == expected
