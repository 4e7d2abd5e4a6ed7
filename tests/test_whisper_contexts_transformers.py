"""What goes before a window: prompts, and what was said before, beside transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from numattn.models.encoder_decoder.window_writer import WindowWriter
from test_whisper import read
from test_whisper_attempts_transformers import check
from tiny_encoder_decoders import speech_like, write_whisper
from whisper_by_transformers import written
from whisper_cases import CONTEXTS, PREVIOUS, PROMPT, SECONDS, for_transformers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What we put before each window."""
    found: list[list[int]] = []
    attempted = WindowWriter._attempted

    def watched(self: WindowWriter, state: Any, opening: Any, wishes: Any) -> Any:
        found.append(opening.tolist())
        return attempted(self, state, opening, wishes)

    monkeypatch.setattr(WindowWriter, "_attempted", watched)
    return found


def their_prompts(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    found: list[list[int]] = []
    model = transformers.WhisperForConditionalGeneration
    generate = model.generate_with_fallback

    def watched(self: Any, *arguments: Any, **named: Any) -> Any:
        found.append(named["decoder_input_ids"][0].tolist())
        return generate(self, *arguments, **named)

    monkeypatch.setattr(model, "generate_with_fallback", watched)
    return found


@pytest.mark.parametrize(
    ("case", "beams", "seed"),
    [*((case, 1, 0) for case in CONTEXTS), ("both", 3, 1), ("conditioned", 1, 2)],
)
def test_contexts(
    tmp_path: Path, case: str, beams: int, seed: int, prompts: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = write_whisper(tmp_path / "whisper", {"prev_sot_token_id": PREVIOUS}, seed=seed)
    sound, options = speech_like(SECONDS, seed), {**CONTEXTS[case], "beams": beams}
    theirs = their_prompts(monkeypatch)
    expected, _ = written(folder, sound, **for_transformers(options))
    got = read(folder).transcribe(sound, timestamps=True, **options)
    assert prompts == theirs and len({*map(len, prompts)}) + (case == "prompted") > 1
    check(got, expected)


def test_no_context_after_a_hot_window(
    tmp_path: Path, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of which only the second is likely enough; the others end at 0.5, here the likeliest
    once more, on both sides."""
    folder = write_whisper(tmp_path / "whisper", {"prev_sot_token_id": PREVIOUS, "top_k": 1})
    options = {
        "condition_on_prev_tokens": True, "prompt": PROMPT, "temperature": (0.0, 0.5),
        "logprob_threshold": -1.2,
    }  # fmt: skip
    theirs = their_prompts(monkeypatch)
    expected, decisions = written(folder, speech_like(SECONDS), **for_transformers(options))
    got = read(folder).transcribe(speech_like(SECONDS), timestamps=True, **options)
    assert prompts == theirs and (True, False) in decisions
    assert any(each[:-3] == PROMPT for each in prompts[1:])
    assert any(each[:-3] != PROMPT for each in prompts[1:])
    check(got, expected)


def test_the_token_before_what_was_said(
    tmp_path: Path, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In files of old it is the last but one of those that are suppressed."""
    folder = write_whisper(tmp_path / "whisper", {"condition_on_prev_tokens": True})
    theirs = their_prompts(monkeypatch)
    expected, _ = written(folder, speech_like(SECONDS), temperature=(0.0,))
    got = read(folder).transcribe(speech_like(SECONDS), timestamps=True)
    assert prompts == theirs and prompts[1][0] == 57
    check(got, expected)
