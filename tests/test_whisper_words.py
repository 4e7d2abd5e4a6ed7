"""When words are said, beside stored results of transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from numattn.models import Whisper
from numattn.models.encoder_decoder.speech_text import SpeechText
from numattn.models.encoder_decoder.token_times import places_of_tokens, smoothed, warped
from tiny_encoder_decoders import WHISPER, speech_like, write_whisper
from tiny_speech_tokenizer import SPOKEN, write_speech_tokenizer
from whisper_cases import HEADS, SECONDS, WORDS, check_segments, golden_part


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[Any]]:
    return golden_part("word")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    own = {"alignment_heads": HEADS}
    return write_speech_tokenizer(write_whisper(tmp_path_factory.mktemp("whisper"), own))


@pytest.mark.parametrize("case", WORDS)
def test_words(folder: Path, golden: dict[str, NDArray[Any]], case: str) -> None:
    got = Whisper.from_folder(folder).transcribe(
        speech_like(SECONDS), word_timestamps=True, **WORDS[case]
    )
    check_segments(got, golden, case)
    words = [word for segment in got.segments for word in segment.words or []]
    assert [word.text for word in words] == golden[f"{case}_texts"].tolist()
    times = [(word.start, word.end) for word in words]
    np.testing.assert_allclose(times, golden[f"{case}_spans"], rtol=0, atol=1e-6)
    for segment in got.segments:
        assert "".join(word.text for word in segment.words or []) == segment.text


def test_words_are_not_asked_for(folder: Path) -> None:
    got = Whisper.from_folder(folder).transcribe(speech_like(2.0), timestamps=True)
    assert got.segments and all(segment.words is None for segment in got.segments)


def test_a_language_without_spaces(tmp_path: Path) -> None:
    own = {"alignment_heads": HEADS, "lang_to_id": {"<|en|>": 52, "<|ja|>": 53}}
    folder = write_speech_tokenizer(write_whisper(tmp_path / "whisper", own))
    model, sound = Whisper.from_folder(folder), speech_like(SECONDS)

    def words(task: str) -> tuple[int, int]:
        got = model.transcribe(sound, language="ja", task=task, word_timestamps=True)
        tokens = [[token for token in each.tokens if token < len(SPOKEN)] for each in got.segments]
        spaced = [len(model._tokens.words(each, True)) for each in tokens]
        unspaced = [len(model._tokens.words(each, False)) for each in tokens]
        assert sum(spaced) < sum(unspaced)
        return sum(len(each.words or []) for each in got.segments), sum(
            spaced if task == "translate" else unspaced
        )

    for task in ("transcribe", "translate"):
        count, expected = words(task)
        assert count == expected


@pytest.mark.parametrize(
    ("text", "spaced", "words"),
    [
        (["Ġthe", "Ġcat", "s", "Ġsat", "."], True, [" the", " cats", " sat."]),
        (['Ġ"', "a", '"', "Ġ(", "b", ")", ","], True, [' "a"', " (b),"]),
        (["Ġn", "ot", "-", "a"], True, [" not", "-a"]),
        (["æ", "Ĺ", "¥", "æ", "ľ", "¬", "ã", "Ģ", "Ĥ"], False, ["日", "本。"]),
        (["Ġcat", "Ã", "©", "s"], True, [" catés"]),
        (["æ", "Ĺ"], True, ["\ufffd\ufffd"]),
        ([], True, []),
    ],
)
def test_words_of_tokens(folder: Path, text: list[str], spaced: bool, words: list[str]) -> None:
    tokens = [SPOKEN.index(token) for token in text]
    got = SpeechText(folder).words(tokens, spaced)
    assert [span.text for span in got] == words
    assert [number for span in got for number in range(span.begin, span.end)] == [
        *range(len(tokens))
    ]


def paths(rows: int, columns: int) -> Iterator[list[tuple[int, int]]]:
    """Yield every path through a table, from its first place to its last."""
    here = [(rows - 1, columns - 1)]
    if rows == columns == 1:
        yield here
    for up, left in ((1, 1), (1, 0), (0, 1)):
        if rows > up and columns > left:
            yield from (path + here for path in paths(rows - up, columns - left))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 6), (5, 1), (3, 5), (4, 4), (5, 3)])
def test_paths(rows: int, columns: int, rng: np.random.Generator) -> None:
    for _ in range(5):
        cost = rng.standard_normal((rows, columns))
        best = min(paths(rows, columns), key=lambda path: sum(cost[place] for place in path))
        arrivals = [min(place for at, place in best if at == row) for row in range(rows)]
        assert warped(cost).tolist() == arrivals


def test_places_of_tokens() -> None:
    """Each token looks at ten places of its own, and one head at nothing in particular."""
    weights = np.full((2, 4, 40), 0.01, np.float32)
    for token in range(4):
        weights[0, token, 10 * token : 10 * token + 10] = 0.5
    assert places_of_tokens(weights, 7).tolist() == [0, 10, 20, 30]
    assert places_of_tokens(weights[:, :1], 7).tolist() == [0]
    short = weights[:1, :, :3]
    assert np.array_equal(smoothed(short[0], 7), short[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alignment_heads": [[0, 2]]}, "alignment_heads must be pairs of a layer of 3 and a head"),
        ({"alignment_heads": [[0]]}, "alignment_heads must be pairs"),
        ({"alignment_heads": 3}, "alignment_heads must be pairs"),
    ],
)
def test_settings_that_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        Whisper.from_folder(write_whisper(tmp_path / "whisper", changes))


def test_words_need_their_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Whisper.from_folder(write_whisper(tmp_path / "whisper"))
    with pytest.raises(ValueError, match="word_timestamps need alignment_heads"):
        model.transcribe(speech_like(0.5), word_timestamps=True)
    monkeypatch.setitem(WHISPER, "median_filter_width", 4)
    with pytest.raises(ValueError, match="median_filter_width must be odd, not 4"):
        Whisper.from_folder(write_whisper(tmp_path / "even"))
