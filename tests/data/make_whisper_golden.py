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

from tiny_encoder_decoders import speech_like, write_whisper
from whisper_by_transformers import written
from whisper_cases import ATTEMPTS, CONTEXTS, PREVIOUS, SECONDS, for_transformers


def case(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Return tokens and times of segments, and what is found of each text."""
    segments, decisions = written(folder, speech_like(SECONDS), **for_transformers(options))
    times = [[float(each["start"]), float(each["end"])] for each in segments]
    return {
        "tokens": np.concatenate([each["tokens"] for each in segments]),
        "times": np.array(times),
        "decisions": np.array(decisions),
    }


def main() -> None:
    """Compute and write the file beside this script."""
    arrays: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = write_whisper(Path(name), {"prev_sot_token_id": PREVIOUS})
        for kind, cases in (("attempt", ATTEMPTS), ("context", CONTEXTS)):
            for name, options in cases.items():
                found = case(folder, options)
                arrays |= {f"{kind}_{name}_{key}": value for key, value in found.items()}
    np.savez_compressed(Path(__file__).with_name("whisper_golden.npz"), **arrays)


if __name__ == "__main__":
    main()
