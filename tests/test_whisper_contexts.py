"""Prompts of Whisper and what was said before, beside stored results of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from numattn.models import Whisper
from test_encoder_decoder_texts import write_tokenizer
from test_whisper import read
from tiny_encoder_decoders import END, WHISPER, speech_like, write_whisper
from whisper_cases import CONTEXTS, PREVIOUS, PROMPT, SECONDS, check_segments, golden_part


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[Any]]:
    return golden_part("context")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper")
    write_whisper(folder, {"prev_sot_token_id": PREVIOUS})
    write_tokenizer(folder, WHISPER["vocab_size"], END)
    return folder


@pytest.mark.parametrize("case", CONTEXTS)
def test_contexts(folder: Path, golden: dict[str, NDArray[Any]], case: str) -> None:
    got = read(folder).transcribe(speech_like(SECONDS), timestamps=True, **CONTEXTS[case])
    check_segments(got, golden, case)


def test_they_differ(golden: dict[str, NDArray[Any]]) -> None:
    assert len({golden[f"{case}_tokens"].tobytes() for case in CONTEXTS}) == len(CONTEXTS)


def test_a_prompt_as_text(folder: Path) -> None:
    model, sound = Whisper.from_folder(folder), speech_like(3.0)
    tokens = model.transcribe(sound, prompt=PROMPT)
    assert model.transcribe(sound, prompt=" w7 w8 w9 w10  w30 ") == tokens
    assert model.transcribe(sound, prompt="  ") == model.transcribe(sound) != tokens
    assert model.transcribe(sound, prompt=[]) == model.transcribe(sound)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prompt": [7] * 38}, ValueError, "prompt has 38 tokens, and there is room for 36"),
        ({"prompt": "w5 w52"}, ValueError, "prompt has the token 52, which is no text: 'w5 w52'"),
        ({"prompt": [7, 161]}, ValueError, "prompt must be in 0 … 160, not 7 … 161"),
        ({"prompt": [0.5]}, TypeError, "prompt must be integers"),
        ({"condition_on_prev_tokens": "no"}, TypeError, "condition_on_prev_tokens must be True or"),
        ({"prompt_condition_type": "all"}, ValueError, "'first-segment' or 'all-segments', not"),
        ({"prompt_condition_type": "all-segments"}, ValueError, "needs condition_on_prev_tokens"),
        (
            {**CONTEXTS["everywhere"], "prompt": [7] * 18},
            ValueError,
            "prompt has 18 tokens, and there is room for 17",
        ),
        ({"max_tokens": 0}, ValueError, "max_tokens must be 1 or more, not 0"),
    ],
)
def test_arguments_that_are_refused(
    folder: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Whisper.from_folder(folder).transcribe(speech_like(2.5), **options)


def test_the_longest_prompts(folder: Path) -> None:
    """A window then has room for a token; with what was said before it has as much as ever."""
    model, sound = read(folder), speech_like(2.5)
    got = model.transcribe(sound[:8000], prompt=[7] * 35)
    assert [len(each.tokens) for each in got.segments] == [1]
    options = {**CONTEXTS["everywhere"], "prompt": [7] * 17}
    assert model.transcribe(sound, max_tokens=100, **options).segments


def test_a_prompt_without_a_tokenizer(tmp_path: Path) -> None:
    model = Whisper.from_folder(write_whisper(tmp_path / "whisper"))
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json"):
        model.transcribe(speech_like(0.5), prompt="w5")
