"""Make whisper_golden.npz: what transformers writes for a tiny Whisper when it is asked for more.

    pip install torch transformers
    PYTHONPATH=tests python tests/data/make_whisper_golden.py

Run it again only if tests/tiny_encoder_decoders.py or the cases in tests/whisper_cases.py change;
the file is committed, so that the tests need neither of the two libraries.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tiny_encoder_decoders import speech_like, write_whisper
from tiny_speech_tokenizer import write_speech_tokenizer
from whisper_by_transformers import words_of, written
from whisper_cases import ATTEMPTS, CONTEXTS, HEADS, PREVIOUS, SECONDS, WORDS, for_transformers


def case(folder: Path, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return tokens and times of segments, and what is found of each text; or their words."""
    sound, more = speech_like(SECONDS), for_transformers(options)
    if kind == "word":
        frames = torch.ones(1, round(100 * SECONDS), dtype=torch.long)
        more |= {"attention_mask": frames, "return_token_timestamps": True}
    segments, decisions = written(folder, sound, **more)
    times = [[float(each["start"]), float(each["end"])] for each in segments]
    words: dict[str, Any] = {}
    if kind == "word":
        found = [word for each in words_of(folder, segments, "english") for word in each]
        words["texts"] = np.array([text for text, _, _ in found])
        words["spans"] = np.array([span for _, *span in found])
    return words | {
        "tokens": np.concatenate([each["tokens"] for each in segments]),
        "times": np.array(times),
        "decisions": np.array(decisions),
    }


def main() -> None:
    """Compute and write the file beside this script."""
    arrays: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        own = {"prev_sot_token_id": PREVIOUS, "alignment_heads": HEADS}
        folder = write_speech_tokenizer(write_whisper(Path(name), own))
        for kind, cases in (("attempt", ATTEMPTS), ("context", CONTEXTS), ("word", WORDS)):
            for name, options in cases.items():
                found = case(folder, kind, options)
                arrays |= {f"{kind}_{name}_{key}": value for key, value in found.items()}
    np.savez_compressed(Path(__file__).with_name("whisper_golden.npz"), **arrays)


if __name__ == "__main__":
    main()
