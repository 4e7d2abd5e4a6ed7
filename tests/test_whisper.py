"""numattn.models.Whisper beside stored results of transformers, its sound and its errors."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from numattn.models import Whisper, load
from test_sound import write_wav
from tiny_encoder_decoders import LANGUAGES, SOUND, SPEECH, speech_like, write_whisper

GOLDEN = Path(__file__).parent / "data" / "encoder_decoders_golden.npz"
SECONDS = 4.6


class Words:
    """A tokenizer of numbers."""

    def decode(self, tokens: list[int]) -> str:
        return "".join(f" {token}" for token in tokens)


def read(folder: Path, **options: Any) -> Whisper:
    model = load(folder, **options)
    assert isinstance(model, Whisper)
    model._tokens = Words()  # type: ignore[assignment]
    return model


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[Any]]:
    with np.load(GOLDEN) as arrays:
        return {
            name.removeprefix("whisper_"): arrays[name]
            for name in arrays.files
            if name.startswith("whisper_")
        }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whisper(tmp_path_factory.mktemp("whisper"))


def test_frames(folder: Path, golden: dict[str, NDArray[Any]]) -> None:
    got = read(folder).log_mel(speech_like(SECONDS))
    np.testing.assert_allclose(got, golden["frames"], rtol=0, atol=2e-5)


def test_logits(folder: Path, golden: dict[str, NDArray[Any]]) -> None:
    model, expected = read(folder), golden["logits"]
    got = model.logits(golden["decoder_ids"], model.encode(golden["frames"][np.newaxis, :, :200]))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("beams", [1, 3])
def test_windows(folder: Path, golden: dict[str, NDArray[Any]], beams: int) -> None:
    got = read(folder).transcribe(speech_like(SECONDS), beams=beams)
    tokens = [token for each in got.segments for token in each.tokens]
    assert tokens == golden[f"tokens_{beams}"].tolist()
    times = [(each.start, each.end) for each in got.segments]
    np.testing.assert_allclose(times, golden[f"times_{beams}"], rtol=0, atol=1e-9)
    assert f"<|{got.language}|>" in LANGUAGES


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_stored_weights(folder: Path, golden: dict[str, NDArray[Any]], dtype: str) -> None:
    pytest.importorskip("ml_dtypes")
    model, expected = read(folder, dtype=dtype), golden["logits"]
    got = model.logits(golden["decoder_ids"], model.encode(golden["frames"][np.newaxis, :, :200]))
    assert 0 < np.linalg.norm(got - expected) < 0.05 * np.linalg.norm(expected)
    copy, sound = pickle.loads(pickle.dumps(model, protocol=5)), speech_like(SECONDS)
    assert copy.transcribe(sound, language="de") == model.transcribe(sound, language="de")


def test_a_wav_file_is_its_samples(folder: Path, tmp_path: Path) -> None:
    sound = speech_like(1.5)
    path = write_wav(tmp_path / "a.wav", sound[:, np.newaxis], 4, 1, 16000)
    model = read(folder)
    assert model.transcribe(path).text == model.transcribe(sound).text
    assert model.transcribe(str(path)).text == model.transcribe(sound).text


def test_calls_that_are_refused(folder: Path) -> None:
    model, sound = read(folder), speech_like(1.0)
    with pytest.raises(ValueError, match="language 'xx' is none that the model knows: en, de, pt"):
        model.transcribe(sound, language="xx")
    with pytest.raises(ValueError, match="task must be one of"):
        model.transcribe(sound, task="sing")
    with pytest.raises(ValueError, match=r"frames must be \(B, 20, 200\)"):
        model.encode(np.zeros((1, 20, 199), np.float32))
    assert model.transcribe(sound, language="<|de|>").language == "de"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lang_to_id": None}, "is_multilingual needs lang_to_id"),
        ({"forced_decoder_ids": [[2, 5]]}, "forced_decoder_ids must be pairs"),
        ({"language": "xx"}, "language 'xx' is not supported"),
        ({"task": "sing"}, "task 'sing' is not supported"),
        ({"decoder_start_token_id": None, "bos_token_id": None}, "no decoder_start_token_id"),
    ],
)
def test_settings_that_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load(write_whisper(tmp_path / "whisper", changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunk_length": 3}, "chunk_length 3 makes 300 frames"),
        ({"dither": 0.1}, "dither 0.1 is not supported"),
        ({"feature_size": 80}, "feature_size 80 is not supported"),
    ],
)
def test_a_preprocessor_that_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = write_whisper(tmp_path / "whisper")
    (folder / "preprocessor_config.json").write_text(json.dumps({**SOUND, **changes}))
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_times_need_their_token(tmp_path: Path) -> None:
    folder = write_whisper(tmp_path / "whisper", {"no_timestamps_token_id": None})
    model = read(folder)
    with pytest.raises(ValueError, match="need no_timestamps_token_id"):
        model.transcribe(speech_like(1.0), timestamps=True)
    assert SPEECH["no_timestamps_token_id"] is not None
    assert len(model.transcribe(speech_like(1.0)).segments) == 1
