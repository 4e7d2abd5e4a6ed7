"""Vision models and their processors beside transformers as it is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tiny_vision
from numattn.models import load
from tolerance import assert_same_bits

pytest.importorskip("torch")
pytest.importorskip("transformers")

from vision_by_transformers import other_pixels, outputs_of  # noqa: E402


@pytest.mark.parametrize("kind", tiny_vision.CONFIGS)
def test_beside_transformers(tmp_path: Path, kind: str) -> None:
    folder = tiny_vision.write_folder(tmp_path, kind)
    model, expected = load(folder), outputs_of(kind, folder)
    numbers = model.preprocess(tiny_vision.pictures())
    assert_same_bits(numbers, expected["pixels"])
    if kind in tiny_vision.CLIPS:
        found = {
            "states": model.image_states(numbers),
            "images": model.encode_images(tiny_vision.pictures()),
            "texts": model.encode_tokens(tiny_vision.TOKENS),
        }
        logits = found["images"] @ found["texts"].T * model.scale + model.bias
        found["logits"] = logits
    else:
        found = {
            "states": model(numbers),
            "logits": model.logits(numbers),
            "weights": model.attention_weights(numbers[1]),
            "other": model(other_pixels(kind), resample_positions=True),
        }
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5, err_msg=name)
