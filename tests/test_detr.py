"""DETR against what transformers made of the same weights."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_detr
from numattn.models import load
from numattn.models.vision import resnet
from tiny_detr import picture
from tolerance import assert_same_bits

GOLDEN = np.load(Path(__file__).parent / "data" / "detr_golden.npz")
KINDS = ["bottleneck", "basic"]


class Evaluator:
    """ONNX's own reference in the place of ONNX Runtime, which need not be installed."""

    def __init__(self, graph: bytes) -> None:
        onnx = pytest.importorskip("onnx")
        reference = pytest.importorskip("onnx.reference")
        model = onnx.load_model_from_string(graph)
        onnx.checker.check_model(model)
        self._own = reference.ReferenceEvaluator(model)

    def run(self, names: None, inputs: dict[str, Any]) -> list[Any]:
        return list(self._own.run(names, inputs))


@pytest.fixture(params=["reference", "runtime"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("onnx")
    if request.param == "runtime":
        pytest.importorskip("onnxruntime")
    else:
        monkeypatch.setattr(resnet, "session_of", Evaluator)
    return str(request.param)


def assert_close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_of_stored_results(tmp_path: Path, backend: str, kind: str) -> None:
    model = load(tiny_detr.write_folder(tmp_path, kind))
    expected = {name: GOLDEN[f"{kind}/{name}"] for name in ("logits", "boxes", "weights")}
    numbers = model.processor(picture())[np.newaxis]
    assert_same_bits(numbers, GOLDEN["pixels"])
    logits, boxes = model(numbers)
    assert_close(logits, expected["logits"])
    assert_close(boxes, expected["boxes"])
    assert_close(model.attention_weights(numbers[0]), expected["weights"])
    (seen,) = model.detect([picture()], threshold=0.0)
    order = np.argsort(-GOLDEN[f"{kind}/seen_scores"])
    assert_close([each.probability for each in seen], GOLDEN[f"{kind}/seen_scores"][order])
    labels = GOLDEN[f"{kind}/seen_labels"][order].astype(int)
    assert [each.label for each in seen] == [f"thing {label}" for label in labels]
    np.testing.assert_allclose(
        [each.box for each in seen], GOLDEN[f"{kind}/seen_boxes"][order], rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("kind", KINDS)
def test_beside_transformers(tmp_path: Path, kind: str) -> None:
    for name in ("torch", "transformers", "onnx", "onnxruntime"):
        pytest.importorskip(name)
    from detr_by_transformers import outputs_of

    folder = tiny_detr.write_folder(tmp_path, kind)
    expected, model = outputs_of(folder), load(folder)
    numbers = model.processor(picture())[np.newaxis]
    assert_same_bits(numbers, expected["pixels"])
    logits, boxes = model(numbers)
    assert_close(logits, expected["logits"])
    assert_close(boxes, expected["boxes"])


def test_names_of_timm(tmp_path: Path) -> None:
    """A ResNet-18 is the same by either library's names, as folders of old have timm's."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    widths, depths = [64, 128, 256, 512], [2, 2, 2, 2]
    shapes = tiny_detr.resnet_shapes(64, widths, depths, "basic")
    tensors = tiny_detr.random_tensors(shapes | tiny_detr.transformer_shapes(512))
    own = tiny_detr.config_of("basic")["backbone_config"]
    own |= {"embedding_size": 64, "hidden_sizes": widths, "depths": depths}
    folder = tiny_detr.write_folder(tmp_path / "own", "basic", {"backbone_config": own}, tensors)

    def renamed(name: str) -> str:
        name = name.replace("embedder.embedder.convolution", "conv1")
        name = name.replace("embedder.embedder.normalization", "bn1")
        for stage in range(4):
            name = name.replace(f"encoder.stages.{stage}.layers.", f"layer{stage + 1}.")
        name = name.replace("shortcut.convolution", "downsample.0")
        name = name.replace("shortcut.normalization", "downsample.1")
        for part in range(2):
            name = name.replace(f"layer.{part}.convolution", f"conv{part + 1}")
            name = name.replace(f"layer.{part}.normalization", f"bn{part + 1}")
        return name

    timm: dict[str, Any] = {renamed(name): value for name, value in tensors.items()}
    timm[f"{tiny_detr.STEM}bn1.num_batches_tracked"] = np.zeros((), np.int64)
    config = {"backbone": "resnet18", "use_timm_backbone": True, "backbone_config": None}
    other = tiny_detr.write_folder(tmp_path / "timm", "basic", config, timm)
    numbers = np.random.RandomState(0).standard_normal((1, 3, 70, 64)).astype(np.float32)
    for found, expected in zip(load(other)(numbers), load(folder)(numbers), strict=True):
        assert_same_bits(found, expected)


def test_narrow_weights_and_copies(tmp_path: Path, backend: str) -> None:
    folder = tiny_detr.write_folder(tmp_path, "basic")
    model = load(folder, dtype="int8")
    assert model.dtype == np.int8
    numbers = model.processor(picture())[np.newaxis]
    logits, _ = model(numbers)
    expected = GOLDEN["basic/logits"]
    assert 0 < np.linalg.norm(logits - expected) / np.linalg.norm(expected) < 0.05
    assert_same_bits(pickle.loads(pickle.dumps(model))(numbers)[0], logits)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"dilation": True}, "dilation True is not supported"),
        ({"position_embedding_type": "learned"}, "'learned' is not supported"),
        ({"encoder_attention_heads": 3}, "d_model 16 does not divide into 3 heads"),
        ({"d_model": 18}, "d_model 18 must be a multiple of 4"),
        ({"backbone_config": None, "backbone": "vgg"}, "backbone 'vgg' is not supported"),
        ({"backbone_config": {"model_type": "swin"}}, "model_type 'swin' is not supported"),
        ({"backbone_config": {"model_type": "resnet", "depths": [1]}}, "end with the same stage"),
        ({"backbone_config": {"model_type": "resnet", "depths": 1}}, "depths must be a list"),
        ({"decoder_layers": 3}, "has 2 layers .*calls for 3"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], message: str
) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setattr(resnet, "session_of", Evaluator)
    with pytest.raises(ValueError, match=message):
        load(tiny_detr.write_folder(tmp_path, "basic", config))


def test_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setattr(resnet, "session_of", Evaluator)
    model = load(tiny_detr.write_folder(tmp_path, "basic"))
    assert model.detect([]) == []
    with pytest.raises(ValueError, match="threshold must be in 0 … 1, not 2"):
        model.detect([], threshold=2)
    with pytest.raises(ValueError, match="image 0: the image is not an image"):
        model.detect([b"nothing"])
    with pytest.raises(ValueError, match=r"must be \(N, 3, H, W\), not \(3, 8, 8\)"):
        model(np.zeros((3, 8, 8), np.float32))
    with pytest.raises(TypeError, match="must be floats, not int64"):
        model(np.zeros((1, 3, 8, 8), np.int64))


@pytest.mark.parametrize("library", ["onnx", "onnxruntime"])
def test_what_is_not_installed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(ImportError, match=rf"need {library}: pip install 'numattn\[detection\]'"):
        load(tiny_detr.write_folder(tmp_path, "basic"))
