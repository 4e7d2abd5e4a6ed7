"""What transformers writes for a Whisper's folder, for the golden file and for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

RATE, WINDOW = 16000, 32000


def reference(folder: Path) -> Any:
    """Return transformers' model."""
    import transformers

    return transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval()


def frames_of(sound: NDArray[Any]) -> Any:
    """Return what transformers' model reads of sound."""
    import transformers

    extractor = transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=2)
    longer = sound.size > WINDOW
    return extractor(
        sound, sampling_rate=RATE, return_tensors="pt", truncation=not longer,
        padding="longest" if longer else "max_length",
    ).input_features  # fmt: skip


def written(
    folder: Path, sound: NDArray[Any], **options: Any
) -> tuple[list[dict[str, Any]], list[tuple[bool, bool]]]:
    """Return transformers' segments with times, and what it finds of each text: (again, silent)."""
    import torch

    model = reference(folder)
    decisions: list[tuple[bool, bool]] = []
    judge = model._need_fallback

    def watched(*arguments: Any, **named: Any) -> tuple[bool, bool]:
        again, silent = judge(*arguments, **named)
        decisions.append((bool(again), bool(silent)))
        return decisions[-1]

    model._need_fallback = watched
    with torch.no_grad():
        segments = model.generate(
            frames_of(sound), task="transcribe", return_timestamps=True, return_segments=True,
            **options,
        )["segments"][0]  # fmt: skip
    return segments, decisions


def words_of(folder: Path, segments: list[dict[str, Any]], language: str) -> list[Any]:
    """Return the words of segments with times of tokens, as transformers' pipeline joins them.

    For each segment (text, start, end) of each word.
    """
    import transformers
    from transformers.models.whisper.tokenization_whisper import _collate_word_timestamps

    tokenizer = transformers.WhisperTokenizer.from_pretrained(folder)
    found, before = [], 0.0
    for segment in segments:
        tokens, times = segment["tokens"].tolist(), segment["token_timestamps"].tolist()
        starts = [before, *times[:-1]]
        kept = [
            (token, (start, end))
            for token, start, end in zip(tokens, starts, times, strict=True)
            if token < tokenizer.eos_token_id
        ]
        words = _collate_word_timestamps(
            tokenizer, [each[0] for each in kept], [each[1] for each in kept], language, False
        )
        found.append([(word["text"], *word["timestamp"]) for word in words])
        before = times[-1]
    return found
