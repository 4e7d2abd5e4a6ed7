"""Classifiers over CLIP's and SigLIP's images, against what transformers made of the weights."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_vision
from command_line import refused
from numattn.cli import main
from numattn.models import ImageClassifier, load
from tiny_vision import CLASSIFIERS, LABELS, pictures, write_classifier
from tolerance import assert_same_bits
from vision_by_transformers import classifier_outputs

GOLDEN = Path(__file__).parent / "data" / "image_classifiers_golden.npz"


@pytest.fixture(scope="module", params=[*CLASSIFIERS])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, kind: str) -> Path:
    return write_classifier(tmp_path_factory.mktemp("classifier") / kind, kind)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    found = load(folder)
    assert type(found) is ImageClassifier
    return found


def check(model: Any, numbers: Any, expected: Any) -> None:
    found = {
        "states": model(numbers),
        "logits": model.logits(numbers),
        "weights": model.attention_weights(numbers[1]),
    }
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_outputs(model: Any, kind: str, isa: str) -> None:
    with np.load(GOLDEN) as golden:
        check(
            model, model.preprocess(pictures()),
            {name: golden[f"{kind}/{name}"] for name in ("states", "logits", "weights")},
        )  # fmt: skip


def test_beside_transformers(model: Any, kind: str, folder: Path) -> None:
    for peer in ("torch", "transformers"):
        pytest.importorskip(peer)
    expected, numbers = classifier_outputs(kind, folder), model.preprocess(pictures())
    assert_same_bits(numbers, expected["pixels"])
    check(model, numbers, expected)


def test_labels(model: Any, kind: str, folder: Path, tmp_path: Path) -> None:
    logits = model.logits(model.preprocess(pictures())).astype(np.float64)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for row, guesses in zip(chances, model.classify(pictures(), top=3, batch_size=2), strict=True):
        order = np.argsort(-row)[:3]
        assert [guess.label for guess in guesses] == [f"label {number}" for number in order]
        np.testing.assert_allclose([guess.probability for guess in guesses], row[order], rtol=1e-5)
    several = {"problem_type": "multi_label_classification"}
    each = load(write_classifier(tmp_path / "several", kind, several)).classify(pictures(), top=5)
    alone = np.sort(1 / (1 + np.exp(-logits)), axis=1)[:, ::-1]
    np.testing.assert_allclose([[one.probability for one in row] for row in each], alone, rtol=1e-5)
    with pytest.raises(ValueError, match="top must be 1 or more, not 0"):
        model.classify(pictures(), top=0)


def test_an_image_alone_and_in_company(model: Any) -> None:
    numbers = model.preprocess(pictures())
    together = model.logits(numbers)
    for number in range(len(numbers)):
        assert_same_bits(model.logits(numbers[number : number + 1]), together[number : number + 1])


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_stored_weights(model: Any, folder: Path, dtype: str) -> None:
    pytest.importorskip("ml_dtypes")
    other, numbers = load(folder, dtype=dtype), model.preprocess(pictures())
    found, expected = other.logits(numbers), model.logits(numbers)
    assert 0 < np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)
    copy = pickle.loads(pickle.dumps(other))
    assert_same_bits(copy.logits(numbers), found)


def test_commands(
    folder: Path, model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "a.png"
    image.fromarray(pictures()[0]).save(path)
    assert main(["classify", str(path), "--model", str(folder), "--top", "1"]) == 0
    ((guess,),) = model.classify([path], top=1)
    assert capsys.readouterr().out == f"{path}\n  {guess.probability:.3f}  {guess.label}\n"
    assert main(["attend", "--image", str(path), "--model", str(folder)]) == 0
    assert "looks at" in capsys.readouterr().out
    message = refused(capsys, "classify", path, "--model", folder, "--label", "cat")
    assert "an ImageClassifier has labels of its own" in message.replace("a Image", "an Image")


def test_files_that_are_refused(kind: str, tmp_path: Path) -> None:
    tensors = tiny_vision.tensors_of(kind)
    vision = {name: tensors[name] for name in tensors if name.startswith("vision_model.")}
    changes = {"architectures": [CLASSIFIERS[kind]], **tiny_vision.LABELLED}
    with pytest.raises(ValueError, match=r"classifier\.weight"):
        load(tiny_vision.write_folder(tmp_path / "none", kind, changes, vision))
    more = {"id2label": {str(number): "a" for number in range(LABELS + 1)}}
    with pytest.raises(ValueError, match=r"classifier\.weight"):
        load(write_classifier(tmp_path / "more", kind, more))
