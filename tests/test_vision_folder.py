"""Folders of vision models: settings that are carried out, and those refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_vision
from child import output_of
from numattn.models import load
from numattn.models.vision.processor import ImageProcessor
from tiny_vision import pictures, write_folder
from tolerance import assert_same_bits


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        ("vit", {"num_attention_heads": 3}, "hidden_size 16 does not divide into 3 heads"),
        ("vit", {"head_dim": 4}, "head_dim 4 is not supported"),
        ("vit", {"hidden_act": "mish"}, "hidden_act 'mish' is not supported"),
        ("vit", {"num_channels": 4}, "num_channels 4 is not supported"),
        ("vit", {"patch_size": 17}, "patch_size 17 × 17 is larger than image_size 16 × 16"),
        ("vit", {"image_size": [16]}, "image_size must be one or two sizes"),
        ("vit", {"image_size": 24}, r"position_embeddings .*calls for \(1, 37, 16\)"),
        ("vit", {"num_hidden_layers": 3}, "has 2 layers .*calls for 3"),
        ("vit", {"id2label": {"0": "a", "2": "b"}}, "id2label must have a label for each"),
        ("vit", {"id2label": ["a"]}, "id2label .* is no object of labels"),
        ("vit", {"id2label": {"0": "a"}}, r"classifier.weight .*calls for \(1, 16\)"),
        ("vit", {"problem_type": "regression"}, "problem_type 'regression' is not supported"),
        ("vit", {"quantization_config": {"bits": 8}}, "quantization_config"),
        ("dinov2", {"mlp_ratio": "two"}, "mlp_ratio must be a number"),
        ("dinov2", {"image_size": [16, 32]}, "make no square of patches"),
        ("dinov2", {"use_swiglu_ffn": True}, "has no tensor .*mlp.weights_in"),
        ("clip", {"vision_config": {"vision_use_head": False}}, "vision_use_head False"),
        ("clip", {"text_config": {"model_type": "bert"}}, "model_type 'bert' is not supported"),
        ("siglip", {"text_config": {"projection_size": 8}}, "projection_size 8 is not supported"),
    ],
)
def test_what_a_model_is_not_made_of(
    tmp_path: Path, kind: str, config: dict[str, Any], message: str
) -> None:
    own = tiny_vision.CONFIGS[kind]
    whole = {
        name: own[name] | value if name.endswith("sion_config") or name == "text_config" else value
        for name, value in config.items()
    }
    with pytest.raises(ValueError, match=message):
        load(write_folder(tmp_path, kind, whole))


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        ({"image_processor_type": "DonutImageProcessor"}, "'DonutImageProcessor' is not supported"),
        ({"image_processor_type": 3}, "image_processor_type 3 is not supported"),
        ({"size": {"longest_edge": 20}}, "size {'longest_edge': 20} is not supported"),
        ({"size": {"height": 0, "width": 4}}, "height must be a positive whole number"),
        ({"size": "big"}, "size 'big' is not supported"),
        ({"do_center_crop": True, "crop_size": {"shortest_edge": 3}}, "has no height and width"),
        ({"do_pad": True}, "do_pad True is not supported"),
        ({"resample": 9}, "resample 9 is not supported"),
        ({"image_mean": [0.5]}, "image_mean must be 3 numbers"),
        ({"image_std": [0.5, 0, 1]}, "image_std must be 3 positive numbers"),
        ({"image_mean": [0.5, 10**400, 1]}, "image_mean must be 3 numbers"),
        ({"image_mean": float("nan")}, "image_mean must be 3 numbers"),
        ({"rescale_factor": -1}, "rescale_factor must be a positive number"),
        ({"do_resize": "no"}, "do_resize must be true or false"),
        ({"data_format": "channels_last"}, "data_format 'channels_last' is not supported"),
        ({"auto_map": {"AutoImageProcessor": "x.Y"}}, "names code of the folder's own"),
    ],
)
def test_what_is_not_done_to_an_image(
    tmp_path: Path, processor: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load(write_folder(tmp_path, "vit", processor=processor))


def processor_of(folder: Path, settings: dict[str, Any], model_type: str = "vit") -> ImageProcessor:
    text = json.dumps(settings)
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")
    return ImageProcessor.from_folder(folder, model_type, 3)


def test_forms_of_a_size(tmp_path: Path) -> None:
    """One number is a square, or CLIP's shortest edge; so in folders of old."""
    square = processor_of(tmp_path, {"feature_extractor_type": "ViTFeatureExtractor", "size": 20})
    assert square.size == {"height": 20, "width": 20}
    listed = processor_of(tmp_path, {"size": [10, 20], "image_processor_type": None})
    assert listed.size == {"height": 10, "width": 20}
    edge = processor_of(tmp_path, {"size": 20, "crop_size": 8}, "clip")
    assert edge.size == {"shortest_edge": 20} and edge.crop == (8, 8)
    assert edge(pictures()[2]).shape == (3, 8, 8)
    asked = processor_of(tmp_path, {"size": 20, "default_to_square": False})
    assert asked.size == {"shortest_edge": 20}
    fast = processor_of(tmp_path, {"image_processor_type": "SiglipImageProcessorFast"})
    assert fast.resample == 3 and fast.size == {"height": 224, "width": 224}


def test_steps_that_are_left_out(tmp_path: Path) -> None:
    image = pictures()[1]
    nothing = {"do_resize": False, "do_rescale": False, "do_normalize": False}
    expected = np.moveaxis(image, 2, 0).astype(np.float32)
    assert_same_bits(processor_of(tmp_path, nothing)(image), expected)
    scaled = processor_of(tmp_path, nothing | {"do_rescale": True})(image)
    assert_same_bits(scaled, (expected.astype(np.float64) / 255).astype(np.float32))


def test_a_crop_larger_than_the_image_is_filled_with_zeros(tmp_path: Path) -> None:
    nothing = {"do_resize": False, "do_rescale": False, "do_normalize": False}
    settings = nothing | {"do_center_crop": True, "crop_size": {"height": 20, "width": 11}}
    image = np.full((15, 14, 3), 9, np.uint8)
    cropped = processor_of(tmp_path, settings)(image)[0]
    assert cropped.shape == (20, 11)
    assert cropped.sum(axis=1).tolist() == [0] * 3 + [99] * 15 + [0] * 2


def test_images_of_several_sizes_stand_in_batches_of_their_own(tmp_path: Path) -> None:
    model = load(write_folder(tmp_path, "dinov2", processor={"do_center_crop": False}))
    vectors = model.encode(pictures())
    for number, picture in enumerate(pictures()):
        assert_same_bits(model.encode([picture]), vectors[number : number + 1])
    with pytest.raises(ValueError, match="the images have several sizes once processed"):
        model.preprocess(pictures())


def test_a_processor_within_a_processor(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "clip")
    path = folder / "preprocessor_config.json"
    expected = load(folder).preprocess(pictures())
    whole = {"image_processor": json.loads(path.read_text()), "processor_class": "CLIPProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(whole), encoding="utf-8")
    path.unlink()
    assert_same_bits(load(folder).preprocess(pictures()), expected)
    (folder / "processor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no preprocessor_config\.json"):
        load(folder)


def test_without_a_classifier(tmp_path: Path) -> None:
    tensors = tiny_vision.tensors_of("vit")
    bare = {name.removeprefix("vit."): value for name, value in tensors.items()}
    for name in ("classifier.weight", "classifier.bias"):
        del bare[name]
    bare["pooler.dense.weight"] = np.zeros((16, 16), np.float32)
    model = load(write_folder(tmp_path, "vit", tensors=bare))
    assert not model.has_classifier and model.encode(pictures()).shape == (5, 16)
    with pytest.raises(ValueError, match="the folder has no classifier's weights"):
        model.classify(pictures())


def test_labels_that_do_not_exclude_one_another(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "vit", {"problem_type": "multi_label_classification"})
    model = load(folder)
    chances = 1 / (1 + np.exp(-model.logits(model.preprocess(pictures()[:1]))[0]))
    ((first, *_),) = model.classify(pictures()[:1])
    assert first.probability == pytest.approx(chances.max(), rel=1e-6)


def test_a_tensor_too_many(tmp_path: Path) -> None:
    tensors = tiny_vision.tensors_of("siglip") | {
        "classifier.weight": np.zeros((2, 16), np.float32)
    }
    with pytest.raises(ValueError, match="does not use: classifier.weight"):
        load(write_folder(tmp_path, "siglip", tensors=tensors))


def test_parts_of_old(tmp_path: Path) -> None:
    """openai's folders say some things twice; the second counts."""
    config = tiny_vision.CONFIGS["clip"]
    twice = {"text_config_dict": config["text_config"], "text_config": {"hidden_size": 1}}
    model = load(write_folder(tmp_path, "clip", twice))
    assert model.encode_tokens(tiny_vision.TOKENS).shape == (3, tiny_vision.VECTOR)


def test_texts(tmp_path: Path) -> None:
    model = load(write_folder(tmp_path, "clip"))
    with pytest.warns(UserWarning, match="1 of 2 texts have more than the 10 tokens"):
        long, short = model.encode_texts(["a cat " * 9, "a cat"])
    assert_same_bits(model.encode_tokens([[1, 4, 8, 11]])[0], short)
    assert_same_bits(model.encode_tokens([[1, *[4, 8] * 4, 11]])[0], long)
    with pytest.raises(ValueError, match="text 0 has no end mark, token 11"):
        model.encode_tokens([[1, 4]])
    with pytest.raises(ValueError, match="token_ids 1 has 0 tokens; the model reads 1 … 10"):
        model.encode_tokens([[1, 11], []])
    with pytest.raises(ValueError, match="0 … 11"):
        model.encode_tokens([[12]])
    with pytest.raises(TypeError, match="put a single one into a list"):
        model.encode_texts("a cat")
    for options, message in [
        ({"labels": []}, "labels must be one or more"),
        ({"labels": ["cat"], "template": "a cat"}, "template must have a {} for the label"),
        ({"labels": ["cat"], "top": 0}, "top must be 1 or more"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.classify(pictures(), **options)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"no tokenizer\.json: `encode_tokens` takes token ids"):
        load(tmp_path).encode_texts(["a cat"])


def test_nothing_is_imported_before_it_is_used() -> None:
    script = """
        import sys
        import numattn.models
        print({"PIL", "safetensors", "tokenizers", "torch"} & set(sys.modules))
    """
    assert output_of(script).strip() == "set()"
