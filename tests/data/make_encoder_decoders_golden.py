"""Make encoder_decoders_golden.npz: what transformers computes for tiny encoder–decoders.

    pip install torch transformers
    PYTHONPATH=tests python tests/data/make_encoder_decoders_golden.py

Run it again only if tests/tiny_encoder_decoders.py changes; the file is committed, so that the
tests need neither of the two libraries.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from tiny_encoder_decoders import (
    CONFIGS,
    FAMILIES,
    SPEECH,
    VOCABULARY,
    WHISPER,
    settings_of,
    speech_like,
    write_folder,
    write_whisper,
)

LENGTHS = np.array([9, 5])
SECONDS = 4.6


def texts(folder: Path, family: str) -> dict[str, Any]:
    """Return logits, and texts of one beam and of three with their scores."""
    write_folder(folder, family)
    rng = np.random.default_rng(0)
    ids = rng.integers(3, VOCABULARY, (2, 9))
    decoder_ids = rng.integers(3, VOCABULARY, (2, 8))
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    model.generation_config = transformers.GenerationConfig(**settings_of(CONFIGS[family]))
    given = {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor(np.arange(9) < LENGTHS[:, np.newaxis]),
    }
    greedy = model.generate(**given)
    beams = model.generate(
        **given, num_beams=3, length_penalty=0.7, early_stopping="never",
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    return {
        "ids": ids,
        "decoder_ids": decoder_ids,
        "logits": model(**given, decoder_input_ids=torch.tensor(decoder_ids)).logits.numpy(),
        "greedy": greedy.numpy(),
        "beams": beams.sequences.numpy(),
        "scores": beams.sequences_scores.numpy(),
    }


def speech(folder: Path) -> dict[str, Any]:
    """Return a spectrogram, logits, and segments of one beam and of three."""
    write_whisper(folder)
    sound = speech_like(SECONDS)
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    frames = extractor(
        sound, sampling_rate=16000, return_tensors="pt", truncation=False, padding="longest"
    ).input_features
    ids = np.random.default_rng(0).integers(0, WHISPER["vocab_size"], (1, 8))
    model = transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval()
    first = frames[:, :, :200]
    logits = model(input_features=first, decoder_input_ids=torch.tensor(ids)).logits
    arrays = {"frames": frames[0].numpy(), "decoder_ids": ids, "logits": logits.numpy()}
    for beams in (1, 3):
        segments = model.generate(
            frames, task="transcribe", num_beams=beams, return_timestamps=True, return_segments=True
        )["segments"][0]
        arrays[f"tokens_{beams}"] = np.concatenate([each["tokens"].numpy() for each in segments])
        arrays[f"times_{beams}"] = np.array(
            [[float(each["start"]), float(each["end"])] for each in segments]
        )
    return arrays


def main() -> None:
    """Compute and write the file beside this script."""
    arrays: dict[str, Any] = {}
    assert SPEECH["lang_to_id"]
    with torch.no_grad():
        for family in FAMILIES:
            with tempfile.TemporaryDirectory() as folder:
                found = texts(Path(folder), family)
            arrays |= {f"{family}_{name}": value for name, value in found.items()}
        with tempfile.TemporaryDirectory() as folder:
            found = speech(Path(folder))
        arrays |= {f"whisper_{name}": value for name, value in found.items()}
    np.savez_compressed(Path(__file__).with_name("encoder_decoders_golden.npz"), **arrays)


if __name__ == "__main__":
    main()
