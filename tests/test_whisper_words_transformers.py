"""When words are said, beside transformers with the same weights and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numattn.models import Whisper
from numattn.models.encoder_decoder.speech_text import SpeechText
from numattn.models.encoder_decoder.token_times import smoothed, warped
from test_whisper_attempts_transformers import check
from tiny_encoder_decoders import speech_like, write_whisper
from tiny_speech_tokenizer import SPOKEN, write_speech_tokenizer
from whisper_by_transformers import words_of, written
from whisper_cases import CONTEXTS, HEADS, PREVIOUS, SECONDS, WORDS, for_transformers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def check_words(got: Any, expected: list[Any]) -> int:
    """Check the words of segments; return how many they are."""
    for segment, words in zip(got.segments, expected, strict=True):
        assert [word.text for word in segment.words] == [text for text, _, _ in words]
        times = [(word.start, word.end) for word in segment.words]
        # Theirs are float32.
        np.testing.assert_allclose(times, [word[1:] for word in words], rtol=0, atol=1e-6)
    return sum(map(len, expected))


@pytest.mark.parametrize(
    ("options", "seed", "seconds"),
    [
        *((options, 0, SECONDS) for options in WORDS.values()),
        ({"beams": 3}, 1, 2.0),
        ({}, 2, 4.44),
        (CONTEXTS["both"], 0, SECONDS),
        ({"temperature": (0.0, 0.0), "logprob_threshold": -1.25}, 1, 5.0),
    ],
)
def test_words(tmp_path: Path, options: dict[str, Any], seed: int, seconds: float) -> None:
    own = {"alignment_heads": HEADS, "prev_sot_token_id": PREVIOUS}
    folder = write_speech_tokenizer(write_whisper(tmp_path / "whisper", own, seed=seed))
    sound = speech_like(seconds, seed)
    frames = torch.ones(1, round(seconds * 100), dtype=torch.long)
    expected, _ = written(
        folder, sound, attention_mask=frames, return_token_timestamps=True,
        **for_transformers(options),
    )  # fmt: skip
    got = Whisper.from_folder(folder).transcribe(sound, word_timestamps=True, **options)
    check(got, expected)
    assert check_words(got, words_of(folder, expected, "english")) > 2


def test_the_pipeline(tmp_path: Path) -> None:
    """The whole of it, where no segment lacks its end: transformers' joins such a one with the
    next."""
    own = {"alignment_heads": HEADS}
    folder = write_speech_tokenizer(write_whisper(tmp_path / "whisper", own))
    whole = transformers.pipeline(
        "automatic-speech-recognition",
        model=transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval(),
        tokenizer=transformers.WhisperTokenizer.from_pretrained(folder),
        feature_extractor=transformers.WhisperFeatureExtractor.from_pretrained(folder),
    )
    sound = speech_like(4.0, 1)
    expected = whole(
        sound, return_timestamps="word",
        generate_kwargs={"task": "transcribe", "num_beams": 1, "temperature": 0.0},
    )  # fmt: skip
    got = Whisper.from_folder(folder).transcribe(sound, word_timestamps=True, beams=1)
    words = [word for segment in got.segments for word in segment.words or []]
    assert [word.text for word in words] == [chunk["text"] for chunk in expected["chunks"]]
    times = [(word.start, word.end) for word in words]
    np.testing.assert_allclose(
        times, [chunk["timestamp"] for chunk in expected["chunks"]], atol=1e-9
    )
    assert len(words) > 2


@pytest.mark.parametrize("language", ["english", "japanese"])
def test_words_of_tokens(tmp_path: Path, rng: np.random.Generator, language: str) -> None:
    from transformers.models.whisper.tokenization_whisper import _combine_tokens_into_words

    theirs = transformers.WhisperTokenizer.from_pretrained(write_speech_tokenizer(tmp_path))
    text = SpeechText(tmp_path)
    for number in range(300):
        tokens = rng.integers(0, len(SPOKEN), number % 23).tolist()
        words, _, indices = _combine_tokens_into_words(theirs, tokens, language)
        got = text.words(tokens, language == "english")
        assert [span.text for span in got] == words
        assert [[*range(span.begin, span.end)] for span in got] == indices


def test_paths(rng: np.random.Generator) -> None:
    from transformers.models.whisper.generation_whisper import (
        _dynamic_time_warping,
        _median_filter,
    )

    for rows, columns in [(1, 1), (1, 9), (9, 1), (5, 5), (30, 100), (60, 20)]:
        for _ in range(3):
            cost = rng.standard_normal((rows, columns))
            text, places = _dynamic_time_warping(cost)
            _, first = np.unique(text, return_index=True)
            assert warped(cost).tolist() == places[first].tolist()
    x = rng.standard_normal((4, 5, 30)).astype(np.float32)
    for width in (1, 3, 7, 9):
        expected = _median_filter(torch.tensor(x), width).numpy()
        assert np.array_equal(np.stack([smoothed(row, width) for row in x]), expected)
