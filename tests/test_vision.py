"""ViT, DeiT, DINOv2, CLIP and SigLIP against what transformers made of the same weights."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tiny_vision
from numattn.models import Clip, ViT, load
from tiny_vision import CLIPS, VITS, pictures
from tolerance import assert_same_bits
from vision_by_transformers import other_pixels

GOLDEN = np.load(Path(__file__).parent / "data" / "vision_golden.npz")
# Of values of some units; float32 sums of a few dozen terms in another order.
CLOSE = 1e-5


def golden(kind: str, name: str) -> NDArray[np.float32]:
    return GOLDEN[f"{kind}/{name}"]


def assert_close(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert found.shape == expected.shape and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=CLOSE, atol=CLOSE)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("vision")
    return {kind: load(tiny_vision.write_folder(root / kind, kind)) for kind in tiny_vision.CONFIGS}


@pytest.mark.parametrize("kind", tiny_vision.CONFIGS)
def test_classes(models: dict[str, Any], kind: str) -> None:
    assert type(models[kind]) is (ViT if kind in VITS else Clip)


@pytest.mark.parametrize("kind", tiny_vision.CONFIGS)
def test_images_are_preprocessed_bit_by_bit(models: dict[str, Any], kind: str) -> None:
    assert_same_bits(models[kind].preprocess(pictures()), golden(kind, "pixels"))


@pytest.mark.parametrize("kind", VITS)
def test_hidden_states_and_logits(models: dict[str, Any], kind: str, isa: str) -> None:
    numbers = golden(kind, "pixels")
    assert_close(models[kind](numbers), golden(kind, "states"))
    assert_close(models[kind].logits(numbers), golden(kind, "logits"))


@pytest.mark.parametrize("kind", VITS)
def test_positions_of_another_grid(models: dict[str, Any], kind: str) -> None:
    model, numbers = models[kind], other_pixels(kind)
    if kind.startswith("dinov2"):
        assert_close(model(numbers), golden(kind, "other"))
        return
    assert_close(model(numbers, resample_positions=True), golden(kind, "other"))
    with pytest.raises(ValueError, match=r"\(24, 8\); the model reads \(16, 16\)"):
        model(numbers)


@pytest.mark.parametrize("kind", VITS)
def test_attention_maps(models: dict[str, Any], kind: str) -> None:
    model, numbers = models[kind], golden(kind, "pixels")[1]
    expected = golden(kind, "weights")
    assert_close(model.attention_weights(numbers), expected)
    assert_close(model.attention_weights(numbers, 1, rows=[0, 3]), expected[1][:, [0, 3]])
    assert_close(model.attention_weights(numbers, head=1), expected[:, 1])
    with pytest.raises(ValueError, match="layer must be in 0 … 1, not 2"):
        model.attention_weights(numbers, 2)
    with pytest.raises(ValueError, match="rows must be"):
        model.attention_weights(numbers, rows=[99])


@pytest.mark.parametrize("kind", CLIPS)
def test_both_halves(models: dict[str, Any], kind: str, isa: str) -> None:
    model = models[kind]
    assert_close(model.image_states(golden(kind, "pixels")), golden(kind, "states"))
    images = model.encode_images(pictures(), batch_size=2)
    texts = model.encode_tokens(tiny_vision.TOKENS)
    assert_close(images, golden(kind, "images"))
    assert_close(texts, golden(kind, "texts"))
    assert_close(images @ texts.T * model.scale + model.bias, golden(kind, "logits"))


@pytest.mark.parametrize("kind", CLIPS)
def test_similarity_and_labels_without_training(models: dict[str, Any], kind: str) -> None:
    model, labels = models[kind], ["cat", "dog", "bird"]
    texts = [f"a photo of the {label}" for label in labels]
    expected = model.similarity(pictures(), texts)
    assert expected.shape == (5, 3)
    given = [model.tokenizer.encode(text).ids for text in texts]
    if kind == "siglip":
        given = [ids + [0] * (tiny_vision.LENGTH - len(ids)) for ids in given]
    logits = model.encode_images(pictures()) @ model.encode_tokens(given).T * model.scale
    assert_close(expected, logits + np.float32(model.bias))
    if kind == "siglip":
        chances = 1 / (1 + np.exp(-expected))
    else:
        chances = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    found = model.classify(pictures(), labels, template="a photo of the {}", top=2)
    for row, guesses in zip(chances, found, strict=True):
        order = np.argsort(-row)[:2]
        assert [guess.label for guess in guesses] == [labels[number] for number in order]
        np.testing.assert_allclose([guess.probability for guess in guesses], row[order], rtol=1e-5)


@pytest.mark.parametrize("kind", CLIPS)
def test_maps_of_both_halves(models: dict[str, Any], kind: str) -> None:
    model = models[kind]
    numbers = model.preprocess(pictures()[:1])[0]
    rows = model.image_attention_weights(numbers)
    tokens = 16 + model.num_special
    assert rows.shape == (2, 2, tokens, tokens)
    np.testing.assert_allclose(rows.sum(axis=-1), 1, rtol=1e-5)
    rows = model.text_attention_weights(tiny_vision.TOKENS[0], 1)
    np.testing.assert_allclose(rows.sum(axis=-1), 1, rtol=1e-5)
    sees_later = np.triu(rows, 1).any()
    assert sees_later == (kind == "siglip")


@pytest.mark.parametrize("kind", ["vit", "dinov2_with_registers"])
def test_an_image_alone_and_in_company(models: dict[str, Any], kind: str) -> None:
    model, numbers = models[kind], golden(kind, "pixels")
    together = model(numbers)
    for number in range(len(numbers)):
        assert_same_bits(model(numbers[number : number + 1]), together[number : number + 1])
    assert_same_bits(model.encode(pictures(), batch_size=2), model.encode(pictures()))


def test_labels(models: dict[str, Any]) -> None:
    model = models["vit"]
    logits = golden("vit", "logits").astype(np.float64)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    done: list[int] = []
    found = model.classify(iter(pictures()), top=9, batch_size=2, progress=done.append)
    assert done == [2, 2, 1]
    for row, guesses in zip(chances, found, strict=True):
        assert [guess.label for guess in guesses] == [f"label {n}" for n in np.argsort(-row)]
        np.testing.assert_allclose([each.probability for each in guesses], np.sort(row)[::-1], 1e-5)
    assert [len(guesses) for guesses in model.classify(pictures(), top=1)] == [1] * 5


def test_vectors(models: dict[str, Any]) -> None:
    model = models["vit"]
    first = golden("vit", "states")[:, 0]
    assert_close(model.encode(pictures(), normalize=False), first)
    expected = first / np.linalg.norm(first, axis=1, keepdims=True)
    assert_close(model.encode(pictures()), expected)
    assert model.encode([]).shape == (0, tiny_vision.WIDTH)
    assert model.classify([]) == []
    assert model(np.zeros((0, 3, 16, 16), np.float32)).shape == (0, 17, 16)


@pytest.mark.parametrize("kind", ["vit", "dinov2-swiglu", "clip", "siglip"])
@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 0.05), ("int8", 0.03)])
def test_narrow_weights(tmp_path: Path, kind: str, dtype: str, most: float) -> None:
    """Of the size of the states, the error of weights of 8 bits; beyond it is a wrong model."""
    model = load(tiny_vision.write_folder(tmp_path, kind), dtype=dtype)
    assert model.dtype.name == dtype
    numbers, expected = golden(kind, "pixels"), golden(kind, "states")
    found = model(numbers) if kind in VITS else model.image_states(numbers)
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 0 < error < most
    if kind in CLIPS:
        texts = model.encode_tokens(tiny_vision.TOKENS)
        assert 0 < np.abs(texts - golden(kind, "texts")).max() < 2 * most


@pytest.mark.parametrize("kind", ["vit", "siglip"])
def test_models_are_copied(models: dict[str, Any], kind: str) -> None:
    numbers = golden(kind, "pixels")
    for other in (pickle.loads(pickle.dumps(models[kind])), copy.deepcopy(models[kind])):
        found = other(numbers) if kind == "vit" else other.image_states(numbers)
        assert_close(found, golden(kind, "states"))
