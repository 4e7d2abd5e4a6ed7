"""A ViT that was trained on digits, and digits that it was not trained on.

tests/data/make_digits_vit.py made both.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from numattn.models import ViT

DATA = Path(__file__).parent / "data"
FOLDER = DATA / "digits_vit"
NAMES = "zero one two three four five six seven eight nine".split()
RIGHT = 253  # of 256, as transformers finds


@pytest.fixture(scope="module")
def model() -> ViT:
    return ViT.from_folder(FOLDER)


def test_as_many_are_right_as_by_transformers(model: ViT) -> None:
    with np.load(DATA / "digits.npz") as digits:
        images, labels, logits = (digits[name] for name in ("images", "labels", "logits"))
    assert len(images) == 256
    guesses = model.classify(list(images), top=1, batch_size=64)
    right = [guess.label == NAMES[label] for (guess,), label in zip(guesses, labels, strict=True)]
    assert sum(right) == RIGHT
    found = model.logits(model.preprocess(list(images[: len(logits)])))
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_narrow_weights_are_right_as_often(dtype: str) -> None:
    with np.load(DATA / "digits.npz") as digits:
        images, labels = list(digits["images"]), digits["labels"]
    guesses = ViT.from_folder(FOLDER, dtype=dtype).classify(images, top=1, batch_size=64)
    right = [guess.label == NAMES[label] for (guess,), label in zip(guesses, labels, strict=True)]
    assert abs(sum(right) - RIGHT) <= 2


def test_a_digit_in_another_size(model: ViT) -> None:
    """Four times as large and in colours: it is brought to the size and colours of training."""
    small = Image.open(FOLDER / "three.png")
    file = BytesIO()
    small.resize((32, 32), Image.Resampling.BICUBIC).convert("RGB").save(file, "PNG")
    for image in (FOLDER / "three.png", file.getvalue()):
        ((guess,),) = model.classify([image], top=1)
        assert guess.label == "three" and guess.probability > 0.5
