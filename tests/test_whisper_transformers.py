"""numattn.models.encoder_decoder.whisper beside transformers with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numattn.models.encoder_decoder.log_mel import LogMel
from test_whisper import read
from tiny_encoder_decoders import (
    END,
    LANGUAGES,
    NO_TIMES,
    SPEECH,
    START,
    TRANSCRIBE,
    TRANSLATE,
    WHISPER,
    speech_like,
    write_whisper,
)
from whisper_by_transformers import frames_of, reference

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VOCABULARY = WHISPER["vocab_size"]


@pytest.mark.parametrize("bands", [80, 128])
@pytest.mark.parametrize("seconds", [2.5, 31.0])
def test_log_mel(bands: int, seconds: float) -> None:
    sound = speech_like(seconds)
    extractor = transformers.WhisperFeatureExtractor(feature_size=bands)
    longer = seconds > 30
    expected = extractor(
        sound, sampling_rate=16000, return_tensors="np", truncation=not longer,
        padding="longest" if longer else "max_length",
    ).input_features[0]  # fmt: skip
    padded = np.pad(sound, (0, max(0, 480000 - sound.size)))
    got = LogMel(bands)(padded)
    # With PyTorch they compute in float32; without it in float64, as here.
    exact = extractor._np_extract_fbank_features(padded[np.newaxis], "cpu")[0]
    np.testing.assert_allclose(got, exact, rtol=0, atol=1e-6)
    assert np.abs(got - expected).max() <= np.abs(exact - expected).max() + 1e-6


def test_logits(tmp_path: Path, rng: np.random.Generator) -> None:
    folder = write_whisper(tmp_path / "whisper")
    frames = rng.standard_normal((2, 20, 200)).astype(np.float32)
    ids = rng.integers(0, WHISPER["vocab_size"], (2, 12))
    with torch.no_grad():
        expected = reference(folder)(
            input_features=torch.tensor(frames), decoder_input_ids=torch.tensor(ids)
        ).logits.numpy()
    model = read(folder)
    got = model.logits(ids, model.encode(frames))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(("language", "task"), [(None, "transcribe"), ("de", "translate")])
def test_a_window_without_times(
    tmp_path: Path, seed: int, beams: int, language: str | None, task: str
) -> None:
    words = {"suppress_tokens": [*SPEECH["suppress_tokens"], *range(NO_TIMES, VOCABULARY)]}
    folder = write_whisper(tmp_path / "whisper", words, seed=seed)
    sound = speech_like(1.3, seed)
    with torch.no_grad():
        expected = (
            reference(folder)
            .generate(
                frames_of(sound),
                language=language,
                task=task,
                num_beams=beams,
                return_timestamps=False,
            )[0]
            .tolist()
        )
    got = read(folder).transcribe(sound, language=language, task=task, beams=beams)
    (segment,) = got.segments
    tokens = expected if END not in expected else expected[: expected.index(END)]
    assert segment.tokens == tokens
    assert (segment.start, segment.end) == (0.0, pytest.approx(1.3))
    assert f"<|{got.language}|>" in LANGUAGES


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("seconds", [2.0, 7.7])
def test_times(tmp_path: Path, seed: int, beams: int, seconds: float) -> None:
    folder = write_whisper(tmp_path / "whisper", seed=seed)
    sound = speech_like(seconds, seed)
    with torch.no_grad():
        expected = reference(folder).generate(
            frames_of(sound), task="transcribe", num_beams=beams, return_timestamps=True,
            return_segments=True,
        )["segments"][0]  # fmt: skip
    got = read(folder).transcribe(sound, timestamps=True, beams=beams)
    assert [each.tokens for each in got.segments] == [each["tokens"].tolist() for each in expected]
    for end in ("start", "end"):
        theirs = [float(each[end]) for each in expected]
        np.testing.assert_allclose([getattr(each, end) for each in got.segments], theirs, atol=1e-9)
    said = [token for each in got.segments for token in each.tokens if token <= NO_TIMES]
    assert got.text == " ".join(map(str, said))
    assert len(got.segments) > 1


def test_a_model_of_one_language(tmp_path: Path) -> None:
    one: dict[str, Any] = {"is_multilingual": False, "lang_to_id": None, "task_to_id": None}
    one["forced_decoder_ids"] = [[1, NO_TIMES]]
    one["suppress_tokens"] = [*SPEECH["suppress_tokens"], *range(NO_TIMES, VOCABULARY)]
    folder = write_whisper(tmp_path / "whisper", one)
    sound = speech_like(1.3)
    with torch.no_grad():
        expected = reference(folder).generate(frames_of(sound))[0].tolist()
    got = read(folder).transcribe(sound)
    assert got.language is None
    assert expected[: len(got.segments[0].tokens)] == got.segments[0].tokens
    with pytest.raises(ValueError, match="it knows one only"):
        read(folder).transcribe(sound, language="de")
    with pytest.raises(ValueError, match="task must be 'transcribe'"):
        read(folder).transcribe(sound, task="translate")
    assert START != TRANSCRIBE != TRANSLATE
