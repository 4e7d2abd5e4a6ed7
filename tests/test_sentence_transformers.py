"""Folders of many layouts, vector by vector against sentence-transformers itself."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from numattn.models import Bert
from test_sentence_folder import BEFORE, CLS, MEAN, modules
from tiny_bert import CONFIG, tensors_of, write_folder

sentence_transformers = pytest.importorskip("sentence_transformers")

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.slow,
]

TEXTS = [
    "The CAT sat on the mat .",
    "dog",
    "A cat and a DOG , and the dog ran on and on " * 3,
    "it was unbelievable",
    "",
]
TOKENIZER = {
    "tokenizer_class": "BertTokenizer",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "mask_token": "[MASK]",
    "do_lower_case": True,
}

POOLINGS: list[dict[str, Any]] = [
    {"1_Pooling__config": MEAN},
    {"1_Pooling__config": CLS},
    {"1_Pooling__config": {"embedding_dimension": 32, "pooling_mode": "cls"}},
    {"1_Pooling__config": {"embedding_dimension": 32, "pooling_mode": ["mean"]}},
    {
        "modules": modules(("Transformer", ""), ("Pooling", "2_Pooling")),
        "2_Pooling__config": CLS,
        "1_Pooling__config": MEAN,
    },
]
LIMITS: list[dict[str, Any]] = [
    {},
    {"sentence_bert_config": {"max_seq_length": 9, "do_lower_case": False}},
    {"sentence_xlnet_config": {"max_seq_length": 9}},
    {"tokenizer_config": {"model_max_length": 10}},
    {
        "sentence_bert_config": {"max_seq_length": 9},
        "tokenizer_config": {"model_max_length": 12},
    },
    {"sentence_bert_config": {"processing_kwargs": {"text": {"max_length": 8}}}},
    {"sentence_bert_config": {"processor_kwargs": {"model_max_length": 7}}},
]
SIDES: list[dict[str, Any]] = [{}, {"tokenizer_config": {"truncation_side": "left"}}]
CASES: list[dict[str, Any]] = [
    {},
    {"tokenizer_config": {"do_lower_case": False}},
    {
        "tokenizer_config": {"do_lower_case": False},
        "sentence_bert_config": {"do_lower_case": True},
    },
]
PROMPTS: list[dict[str, Any]] = [
    {},
    {
        "config_sentence_transformers": {
            "prompts": {"query": "the dog : ", "document": ""},
            "default_prompt_name": "query",
        }
    },
]


def merged(*parts: dict[str, Any]) -> dict[str, Any]:
    """Return the files of several choices; what is said in one file stands together in it."""
    whole: dict[str, Any] = {
        "modules": modules(("Transformer", ""), ("Pooling", "1_Pooling"), library=BEFORE),
        "tokenizer_config": TOKENIZER,
    }
    for name, content in itertools.chain.from_iterable(part.items() for part in parts):
        joined = isinstance(content, dict) and not name.endswith("__config")
        whole[name] = {**whole.get(name, {}), **content} if joined else content
    return whole


def layouts() -> list[dict[str, Any]]:
    """Return choices in turn, each of one axis with changing others."""
    axes = (POOLINGS, LIMITS, SIDES, CASES, PROMPTS)
    # Lengths without a common factor pair values of the long axes anew each time round; limits come
    # round twice, so that each meets both sides.
    return [
        merged(*(axis[number % len(axis)] for axis in axes)) for number in range(2 * len(LIMITS))
    ]


@pytest.mark.parametrize("files", layouts(), ids=lambda files: json.dumps(files)[-60:])
def test_vectors(tmp_path: Path, files: dict[str, Any]) -> None:
    folder = write_folder(tmp_path, **files)
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    expected = theirs.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(Bert.from_folder(folder).encode(TEXTS), expected, atol=2e-5)


def write_roberta(folder: Path, **files: Any) -> Path:
    """Write a folder whose tokenizer takes bytes, as RoBERTa's does."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocabulary = {word: number for number, word in enumerate([*specials, *alphabet])}
    config = {
        **CONFIG,
        "model_type": "roberta",
        "vocab_size": len(vocabulary),
        "max_position_embeddings": 66,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    write_folder(folder, config, tensors_of(config), **files)
    made = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    made.add_special_tokens(specials)
    made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"tokenizer_config": {"add_prefix_space": True, "model_max_length": 20}},
        {"tokenizer_config": {"truncation_side": "left", "model_max_length": 30}},
        {"sentence_roberta_config": {"max_seq_length": 25, "do_lower_case": True}},
    ],
)
def test_vectors_of_roberta(tmp_path: Path, files: dict[str, Any]) -> None:
    whole = merged({"1_Pooling__config": MEAN}, files)
    whole["tokenizer_config"] = {
        "tokenizer_class": "RobertaTokenizer",
        "add_prefix_space": False,
        "model_max_length": 64,
        **files.get("tokenizer_config", {}),
    }
    folder = write_roberta(tmp_path, **whole)
    texts = ["The CAT sat", "a <pad> b", "<pad>dog", "on and on " * 5]
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    expected = theirs.encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(Bert.from_folder(folder).encode(texts), expected, atol=2e-5)
