"""A Hugging Face folder of a tiny random BERT, written by the tests themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = "a cat dog sat on the mat and ran un ##believ ##able it was tired . , '".split()
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]

CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
}

# Of many lengths, one empty, one twice.
SENTENCES = [
    "the cat sat on the mat .",
    "",
    "dog",
    "it was unbelievable , and the dog ran on and on and on",
    "a cat and a dog",
    "nonsense words",
    "the cat sat on the mat .",
]


def tensors_of(config: dict[str, Any], seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Return random tensors under the names of a BertModel, large enough to make peaked maps."""
    generator = np.random.default_rng(seed)
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], width),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
    }
    for number in range(config["num_hidden_layers"]):
        dense = {
            "attention.self.query": (width, width),
            "attention.self.key": (width, width),
            "attention.self.value": (width, width),
            "attention.output.dense": (width, width),
            "intermediate.dense": (inner, width),
            "output.dense": (width, inner),
        }
        for name, shape in dense.items():
            shapes[f"encoder.layer.{number}.{name}.weight"] = shape
            shapes[f"encoder.layer.{number}.{name}.bias"] = shape[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"encoder.layer.{number}.{name}.weight"] = (width,)
            shapes[f"encoder.layer.{number}.{name}.bias"] = (width,)
    tensors = {}
    for name, shape in shapes.items():
        values = generator.normal(0, 0.3, shape)
        tensors[name] = (values + ("LayerNorm.weight" in name)).astype(np.float32)
    return tensors


def tokenizer() -> Tokenizer:
    """Return a WordPiece tokenizer with padding and truncation set, as published files have."""
    made = Tokenizer(
        models.WordPiece({word: index for index, word in enumerate(VOCABULARY)}, unk_token="[UNK]")
    )
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", VOCABULARY.index("[CLS]")), ("[SEP]", VOCABULARY.index("[SEP]"))],
    )
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    made.enable_padding(length=12)
    made.enable_truncation(5)
    return made


def write_folder(
    folder: Path,
    config: dict[str, Any] | None = None,
    tensors: dict[str, NDArray[Any]] | None = None,
    **files: Any,
) -> Path:
    """Write a folder and return it.

    `config` changes entries of CONFIG (None removes one). `files` are further JSON files: their
    names without ".json", "__" standing for a folder's "/".
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**CONFIG, **(config or {})}
    settings = {name: value for name, value in settings.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    save_file(tensors_of(CONFIG) if tensors is None else tensors, folder / "model.safetensors")
    tokenizer().save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        path = folder / (name.replace("__", "/") + ".json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
    return folder
