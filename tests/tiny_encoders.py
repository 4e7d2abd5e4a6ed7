"""Tiny random encoders of every family, beside transformers' own where it is installed."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import processors

from tiny_bert import VOCABULARY, tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
    "pad_token_id": 0,
}
# The stem of the names of a family's classes in transformers → settings, of several kinds each.
FAMILIES: dict[str, list[dict[str, Any]]] = {
    "Bert": [SIZES],
    "Roberta": [{**SIZES, "pad_token_id": 1, "type_vocab_size": 1}],
    "DistilBert": [
        {
            "vocab_size": len(VOCABULARY),
            "dim": 32,
            "n_layers": 3,
            "n_heads": 4,
            "hidden_dim": 48,
            "max_position_embeddings": 24,
            "activation": activation,
        }
        for activation in ("gelu", "relu")
    ],
    "Albert": [
        {**SIZES, "embedding_size": 16},
        {**SIZES, "embedding_size": 32, "num_hidden_groups": 2, "inner_group_num": 2},
    ],
    "MPNet": [{**SIZES, "pad_token_id": 1}],
    "Electra": [{**SIZES, "embedding_size": 16}, {**SIZES, "embedding_size": 32}],
    "ModernBert": [
        {**SIZES, "local_attention": 6, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2,
         "sep_token_id": 3},
        {**SIZES, "local_attention": 5, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2,
         "sep_token_id": 3, "norm_bias": True, "mlp_bias": True, "attention_bias": True,
         "classifier_pooling": "mean", "classifier_bias": True, "hidden_activation": "relu",
         "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ],
    "NomicBert": [SIZES],
    "Gte": [SIZES, {**SIZES, "type_vocab_size": 0}],
}  # fmt: skip
CASES = [(stem, number) for stem, kinds in FAMILIES.items() for number in range(len(kinds))]
CLASSES = {"Roberta": "Bert"}
TASKS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
LENGTHS = np.array([14, 6, 1])


def golden_ids(stem: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ids and types (B, S) whose states are in data/encoders_golden.npz."""
    generator = np.random.default_rng(3)
    shape = (LENGTHS.size, int(LENGTHS.max()))
    ids, types = generator.integers(2, len(VOCABULARY), shape), generator.integers(0, 2, shape)
    # MPNet and RoBERTa count positions past their padding token.
    ids[np.arange(shape[1]) >= LENGTHS[:, np.newaxis]] = 1 if stem in ("MPNet", "Roberta") else 0
    return ids, types


def theirs(stem: str, number: int = 0, task: str = "Model", **more: Any) -> Any:
    """Return a model of transformers' with random weights, larger than it makes them."""
    import torch
    import transformers

    torch.manual_seed(number)
    config = getattr(transformers, f"{stem}Config")(**FAMILIES[stem][number], **more)
    model = getattr(transformers, f"{stem}{task}")(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn_like(weight)
            weight.copy_(1 + 0.2 * noise if is_gain(name) else 0.2 * noise)
    return model


def is_gain(name: str) -> bool:
    """Return whether a parameter is what a norm multiplies by."""
    return re.search(r"(norm\d?|_ln)\.weight$", name.lower()) is not None


def save(model: Any, folder: Path) -> Path:
    """Save a model of transformers' in a folder, with a tokenizer, and return the folder."""
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """Write tokenizer.json: that of the tiny BERT, for pairs too."""
    made = tokenizer()
    special = [(text, VOCABULARY.index(text)) for text in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )
    made.save(str(folder / "tokenizer.json"))


def write_folder(
    folder: Path, config: dict[str, Any], shapes: dict[str, list[int]], **changes: Any
) -> Path:
    """Write a folder of a model whose weights are made from the names of its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {name: value for name, value in {**config, **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    save_file(
        {name: numbers(name, shape) for name, shape in shapes.items()}, folder / "model.safetensors"
    )
    write_tokenizer(folder)
    return folder


def numbers(name: str, shape: list[int]) -> NDArray[np.float32]:
    """Return random weights, the same for a name, of any part of a model, at every run."""
    values = 0.2 * np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    return (values + is_gain(name)).astype(np.float32)
