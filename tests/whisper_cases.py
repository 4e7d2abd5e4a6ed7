"""What is asked of a tiny Whisper, and of transformers for the golden file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GOLDEN = Path(__file__).parent / "data" / "whisper_golden.npz"
SECONDS = 7.7
# At 0 twice: a second attempt is made of a window, and is the first one again.
ATTEMPTS: dict[str, dict[str, Any]] = {
    "unlikely": {"temperature": (0.0, 0.0), "logprob_threshold": -1.25},
    "repeating": {"temperature": (0.0, 0.0), "compression_ratio_threshold": 1.0},
    "silent": {"temperature": (0.0,), "logprob_threshold": -1.1, "no_speech_threshold": 4e-5},
}

# What goes before a window; PREVIOUS is the token that says so. The window that a limit sends to a
# second attempt, at 0.5, is no context for the next.
PREVIOUS = 57
PROMPT = [PREVIOUS, 7, 8, 9, 10, 30]
CONTEXTS: dict[str, dict[str, Any]] = {
    "conditioned": {"condition_on_prev_tokens": True},
    "prompted": {"prompt": PROMPT},
    "both": {"condition_on_prev_tokens": True, "prompt": PROMPT},
    "everywhere": {
        "condition_on_prev_tokens": True,
        "prompt": PROMPT,
        "prompt_condition_type": "all-segments",
    },
    "silent": {
        "condition_on_prev_tokens": True,
        "prompt": PROMPT,
        "logprob_threshold": -1.1,
        "no_speech_threshold": 4e-5,
    },
}


def for_transformers(options: dict[str, Any]) -> dict[str, Any]:
    """Return what transformers calls the same."""
    import torch

    named = {"temperature": (0.0,), **options}
    named["num_beams"] = named.pop("beams", 1)
    if "prompt" in named:
        named["prompt_ids"] = torch.tensor(named.pop("prompt"))
    return named


# Heads of the decoder's layers that are taken to look at what they write.
HEADS = [[0, 1], [2, 0], [2, 1]]
WORDS: dict[str, dict[str, Any]] = {"greedy": {}, "beams": {"beams": 3}}


def golden_part(kind: str) -> dict[str, NDArray[Any]]:
    """Return the stored results of some cases."""
    with np.load(GOLDEN) as arrays:
        names = [name for name in arrays.files if name.startswith(f"{kind}_")]
        return {name.removeprefix(f"{kind}_"): arrays[name] for name in names}


def check_segments(got: Any, golden: dict[str, NDArray[Any]], case: str) -> None:
    """Check tokens and times of a transcript."""
    tokens = [token for each in got.segments for token in each.tokens]
    assert tokens == golden[f"{case}_tokens"].tolist()
    times = [(each.start, each.end) for each in got.segments]
    np.testing.assert_allclose(times, golden[f"{case}_times"], rtol=0, atol=1e-9)
