"""SigLIP 2 in its own proportions (NaFlex), beside transformers and its stored results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_vision
from numattn.models import Clip, ImageClassifier, load
from numattn.models.vision.processor import size_of_patches
from tiny_vision import LABELLED, PATCH, pictures, write_siglip2
from tolerance import assert_same_bits
from vision_by_transformers import siglip2_outputs

GOLDEN = Path(__file__).parent / "data" / "siglip2_golden.npz"
CLASSIFIER = {"architectures": ["Siglip2ForImageClassification"], **LABELLED}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_siglip2(tmp_path_factory.mktemp("siglip2"))


def check(model: Any, expected: Any) -> None:
    images, texts = model.encode_images(pictures()), model.encode_tokens(tiny_vision.TOKENS)
    found = {
        "images": images,
        "texts": texts,
        "logits": images @ texts.T * model.scale + model.bias,
        "states": np.concatenate(
            [model.image_states(model.preprocess([each]))[0] for each in pictures()]
        ),
    }
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


def patches_of(numbers: Any) -> Any:
    """Return the patches of an image (C, H, W) as SigLIP 2's processor lays them out."""
    channels, height, width = numbers.shape
    cut = numbers.reshape(channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return cut.transpose(1, 3, 2, 4, 0).reshape(-1, PATCH * PATCH * channels)


def test_outputs(folder: Path, isa: str) -> None:
    model = load(folder)
    assert type(model) is Clip
    with np.load(GOLDEN) as golden:
        check(model, golden)


def test_beside_transformers(folder: Path) -> None:
    for peer in ("torch", "transformers"):
        pytest.importorskip(peer)
    model, expected = load(folder), siglip2_outputs(folder)
    assert len({*map(tuple, expected["shapes"].tolist())}) > 2
    for image, patches in zip(pictures(), expected["pixels"], strict=True):
        made = patches_of(model.preprocess([image])[0])
        assert_same_bits(made, patches[: len(made)])
        assert not patches[len(made) :].any()
    check(model, expected)


def test_a_classifier(tmp_path: Path) -> None:
    for peer in ("torch", "transformers"):
        pytest.importorskip(peer)
    folder = write_siglip2(tmp_path / "classifier", CLASSIFIER)
    model, expected = load(folder), siglip2_outputs(folder, classifier=True)
    assert type(model) is ImageClassifier
    for image, logits in zip(pictures(), expected["logits"], strict=True):
        got = model.logits(model.preprocess([image]))[0]
        np.testing.assert_allclose(got, logits, rtol=1e-5, atol=1e-5)
    best = [row[0].label for row in model.classify(pictures(), top=1)]
    assert best == [f"label {number}" for number in expected["logits"].argmax(axis=1)]


def test_an_image_alone_and_in_company(folder: Path) -> None:
    model = load(folder)
    together = model.encode_images(pictures(), batch_size=2)
    for image, vector in zip(pictures(), together, strict=True):
        assert_same_bits(model.encode_images([image])[0], vector)
    numbers = model.preprocess(pictures()[1:2])[0]
    rows, columns = model.grid(numbers)
    maps = model.image_attention_weights(numbers)
    assert maps.shape[-1] == rows * columns != 16
    with pytest.raises(ValueError, match="the images have several sizes once processed"):
        model.preprocess(pictures())


def test_sizes() -> None:
    for height, width in [(16, 16), (1, 900), (480, 640), (4000, 3), (37, 91)]:
        tall, wide = size_of_patches(height, width, 16, 256)
        assert tall % 16 == wide % 16 == 0 and 0 < (tall // 16) * (wide // 16) <= 256
    pytest.importorskip("transformers")
    from transformers.models.siglip2.image_processing_pil_siglip2 import (
        get_image_size_for_max_num_patches,
    )

    rng = np.random.default_rng(0)
    for height, width, patch, most in rng.integers(1, (3000, 3000, 33, 800), (200, 4)).tolist():
        expected = get_image_size_for_max_num_patches(height, width, patch, most)
        assert size_of_patches(height, width, patch, most) == expected


@pytest.mark.parametrize(("side", "token"), [(None, "<unk>"), ("left", {"content": "<unk>"})])
def test_padding_of_texts(tmp_path: Path, side: str | None, token: Any) -> None:
    """As tokenizer_config.json says: SigLIP 2's token is not the one that config.json takes."""
    folder = write_siglip2(tmp_path / "siglip2")
    said = {"pad_token": token, **({"padding_side": side} if side else {})}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    model, length = load(folder), tiny_vision.LENGTH
    assert model.tokenizer is not None
    ids = model.tokenizer.encode("a cat").ids
    more = [tiny_vision.VOCABULARY.index("<unk>")] * (length - len(ids))
    expected = model.encode_tokens([more + ids if side else ids + more])
    assert_same_bits(model.encode_texts(["a cat"]), expected)
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<none>"}))
    with pytest.raises(ValueError, match="pad_token '<none>' is no token of tokenizer.json"):
        load(folder)


@pytest.mark.parametrize(
    ("config", "processor", "message"),
    [
        ({"num_patches": 15}, {}, "num_patches 15 is not supported"),
        ({}, {"patch_size": 8}, "patch_size 8 is not supported"),
        ({}, {"do_resize": False}, "do_resize False is not supported"),
    ],
)
def test_settings_that_are_refused(
    config: dict[str, Any], processor: dict[str, Any], message: str, tmp_path: Path
) -> None:
    changes = {"vision_config": {**tiny_vision.SIGLIP2["vision_config"], **config}}
    with pytest.raises(ValueError, match=message):
        load(write_siglip2(tmp_path / "siglip2", changes, processor))
