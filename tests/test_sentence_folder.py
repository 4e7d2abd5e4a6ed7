"""Folders as sentence-transformers and transformers write them, now and before: what each says of
how texts become vectors, and what is refused by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, processors

from numattn.models import Bert
from tiny_bert import write_folder

NOW = "sentence_transformers.sentence_transformer.modules."
BEFORE = "sentence_transformers.models."
TEXTS = ["The CAT sat on the mat .", "dog", "it was unbelievable , and the dog ran on and on"]


def modules(*parts: tuple[str, str], library: str = BEFORE) -> list[dict[str, Any]]:
    return [
        {"idx": number, "name": str(number), "path": path, "type": library + kind}
        for number, (kind, path) in enumerate(parts)
    ]


TWO = modules(("Transformer", ""), ("Pooling", "1_Pooling"))
CLS = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True}
MEAN = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}


def load(folder: Path, **files: Any) -> Bert:
    return Bert.from_folder(write_folder(folder, **files))


def pooled(model: Bert, text: str, kind: str) -> np.ndarray:
    """Return the vector that a kind of pooling makes."""
    hidden = model(model.tokenize([text]).ids[0][np.newaxis])[0]
    vector = {"cls": hidden[0], "lasttoken": hidden[-1]}.get(kind, hidden.mean(axis=0))
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("mean", {}),
        ("cls", {"1_Pooling__config": CLS}),
        ("cls", {"modules": TWO, "1_Pooling__config": CLS}),
        ("lasttoken", {"modules": TWO, "1_Pooling__config": {"pooling_mode_lasttoken": True}}),
        ("mean", {"modules": TWO, "1_Pooling__config": MEAN}),
        ("mean", {"modules": TWO, "1_Pooling__config": {"embedding_dimension": 32}}),
        ("mean", {"modules": TWO, "1_Pooling__config": {"pooling_mode_cls_token": False}}),
        ("cls", {"modules": TWO, "1_Pooling__config": {"pooling_mode": "cls"}}),
        ("cls", {"modules": TWO, "1_Pooling__config": {"pooling_mode": ["cls"]}}),
        ("mean", {"modules": TWO, "1_Pooling__config": {**CLS, "pooling_mode": "mean"}}),
        (
            "cls",
            {
                "modules": modules(("Transformer", ""), ("Pooling", "2_Pooling")),
                "2_Pooling__config": CLS,
                "1_Pooling__config": MEAN,
            },
        ),
        (
            "cls",
            {
                "modules": [
                    {
                        "path": "",
                        "type": "sentence_transformers.base.modules.transformer.Transformer",
                    },
                    {"path": "pool", "type": NOW + "pooling.Pooling"},
                    {
                        "path": "norm",
                        "type": "sentence_transformers.base.modules.normalize.Normalize",
                    },
                ],
                "pool__config": {"pooling_mode": "cls", "embedding_dimension": 32},
            },
        ),
    ],
)
def test_pooling(tmp_path: Path, kind: str, files: dict) -> None:
    model = load(tmp_path, **files)
    for text in TEXTS:
        np.testing.assert_allclose(model.encode([text])[0], pooled(model, text, kind), atol=1e-6)
    other = "cls" if kind == "mean" else "mean"
    assert np.abs(model.encode(TEXTS[:1])[0] - pooled(model, TEXTS[0], other)).max() > 1e-2


def test_the_transformer_in_a_folder_of_its_own(tmp_path: Path) -> None:
    """As the first versions of sentence-transformers wrote it."""
    write_folder(tmp_path / "0_BERT", sentence_bert_config={"max_seq_length": 7})
    for name, content in {
        "modules.json": modules(("Transformer", "0_BERT"), ("Pooling", "1_Pooling")),
        "1_Pooling/config.json": CLS,
        "config_sentence_transformers.json": {"default_prompt_name": None, "prompts": {}},
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    model = Bert.from_folder(tmp_path)
    assert model.max_tokens == 7
    text = "a cat and a dog"
    np.testing.assert_allclose(model.encode([text])[0], pooled(model, text, "cls"), atol=1e-6)


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, 24),
        ({"tokenizer_config": {"model_max_length": 9}}, 9),
        ({"tokenizer_config": {"model_max_length": 1e30}}, 24),
        ({"tokenizer_config": {"model_max_length": None, "max_len": 8}}, 8),
        ({"sentence_bert_config": {"max_seq_length": 10}}, 10),
        ({"sentence_bert_config": {"max_seq_length": None}}, 24),
        ({"sentence_bert_config": {}, "sentence_roberta_config": {"max_seq_length": 10}}, 10),
        ({"sentence_roberta_config": {"max_seq_length": 10}}, 10),
        ({"sentence_distilbert_config": {"max_seq_length": 10}}, 10),
        ({"sentence_camembert_config": {"max_seq_length": 10}}, 10),
        ({"sentence_albert_config": {"max_seq_length": 10}}, 10),
        ({"sentence_xlm-roberta_config": {"max_seq_length": 10}}, 10),
        ({"sentence_xlnet_config": {"max_seq_length": 10}}, 10),
        (
            {
                "sentence_bert_config": {"max_seq_length": 11},
                "tokenizer_config": {"model_max_length": 9},
            },
            11,
        ),
        (
            {
                "sentence_bert_config": {"processor_kwargs": {"model_max_length": 8}},
                "tokenizer_config": {"model_max_length": 9},
            },
            8,
        ),
        (
            {
                "sentence_bert_config": {
                    "transformer_task": "feature-extraction",
                    "modality_config": {
                        "text": {"method": "forward", "method_output_name": "last_hidden_state"}
                    },
                    "module_output_name": "token_embeddings",
                    "processing_kwargs": {"text": {"max_length": 6, "truncation": True}},
                }
            },
            6,
        ),
    ],
)
def test_how_many_tokens_count(tmp_path: Path, files: dict, limit: int) -> None:
    model = load(tmp_path, **files)
    assert model.max_tokens == limit
    assert model.tokenize(["cat " * 50]).lengths.tolist() == [limit]


@pytest.mark.parametrize(
    ("tokenizer_json", "settings", "kept"),
    [
        ("left", {}, "left"),
        ("left", {"truncation_side": "right"}, "right"),
        ("right", {"truncation_side": "left"}, "left"),
        (None, {}, "right"),
    ],
)
def test_which_end_is_cut(
    tmp_path: Path, tokenizer_json: str | None, settings: dict, kept: str
) -> None:
    folder = write_folder(tmp_path, tokenizer_config={"model_max_length": 6, **settings})
    path = str(folder / "tokenizer.json")
    saved = Tokenizer.from_file(path)
    if tokenizer_json is None:
        saved.no_truncation()
    else:
        saved.enable_truncation(3, direction=tokenizer_json)
    saved.save(path)
    whole = "dog " * 10 + "cat " * 10
    expected = "cat " * 4 if kept == "left" else "dog " * 4
    model = Bert.from_folder(folder)
    assert model.tokenize([whole]).ids[0].tolist() == model.tokenize([expected]).ids[0].tolist()


@pytest.mark.parametrize(
    ("in_tokenizer_json", "files", "lower"),
    [
        (False, {}, False),
        (True, {}, True),
        (False, {"sentence_bert_config": {"do_lower_case": True}}, True),
        (False, {"tokenizer_config": {"do_lower_case": True}}, True),
        (True, {"tokenizer_config": {"do_lower_case": False}}, False),
        (True, {"tokenizer_config": {"do_lower_case": None}}, True),
        (
            False,
            {"tokenizer_config": {"do_lower_case": True, "tokenizer_class": "BertTokenizerFast"}},
            True,
        ),
        # A class that has no such setting keeps what tokenizer.json says.
        (
            False,
            {
                "tokenizer_config": {
                    "do_lower_case": True,
                    "tokenizer_class": "PreTrainedTokenizerFast",
                }
            },
            False,
        ),
    ],
)
def test_lower_case(tmp_path: Path, in_tokenizer_json: bool, files: dict, lower: bool) -> None:
    path = write_folder(tmp_path, **files) / "tokenizer.json"
    text, modern = path.read_text(), '"lowercase": true'
    assert modern in text
    if not in_tokenizer_json:
        path.write_text(text.replace(modern, '"lowercase": false'))
    capital, small = Bert.from_folder(tmp_path).tokenize(["The CAT", "the cat"]).ids
    assert (capital.tolist() == small.tolist()) == lower


@pytest.mark.parametrize(
    ("settings", "prompt"),
    [
        ({"prompts": {"query": "the dog "}, "default_prompt_name": "query"}, "the dog "),
        ({"prompts": {"query": "the dog "}, "default_prompt_name": None}, ""),
        ({"prompts": {"query": "the dog "}}, ""),
        ({"default_prompt_name": "document"}, ""),
    ],
)
def test_a_default_prompt(tmp_path: Path, settings: dict, prompt: str) -> None:
    plain = load(tmp_path / "plain")
    model = load(tmp_path / "prompted", config_sentence_transformers=settings)
    assert model.prompt == prompt
    np.testing.assert_array_equal(
        model.encode(TEXTS), plain.encode([prompt + text for text in TEXTS])
    )


def refused(**files: Any) -> dict[str, Any]:
    return {"modules": TWO, "1_Pooling__config": MEAN, **files}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"modules": modules(("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2"))},
            "module 'Dense'",
        ),
        (
            {"modules": [{"path": "", "type": "custom.Transformer"}]},
            r"module 'Transformer' \('custom.Transformer'\)",
        ),
        ({"modules": modules(("Transformer", ""))}, r"modules \['Transformer'\]; supported"),
        ({"modules": [*TWO, *TWO]}, "several modules 'Transformer'"),
        ({"modules": modules(("Transformer", "../x"), ("Pooling", "1"))}, "path '../x' is none in"),
        ({"modules": modules(("Transformer", "/x"), ("Pooling", "1"))}, "path '/x' is none in the"),
        ({"1_Pooling__config": {"pooling_mode": ["cls", "mean"]}}, r"pooling \['cls', 'mean'\]"),
        ({"1_Pooling__config": {"pooling_mode": "weightedmean"}}, "pooling 'weightedmean'"),
        ({"1_Pooling__config": {"pooling_mode_max_tokens": True}}, "pooling 'max'"),
        (
            {"1_Pooling__config": {"pooling_mode_least": True}},
            "pooling_mode_least is not supported",
        ),
        (
            {
                "1_Pooling__config": {**MEAN, "include_prompt": False},
                "config_sentence_transformers": {
                    "prompts": {"query": "the "},
                    "default_prompt_name": "query",
                },
            },
            "include_prompt false with a default prompt is not supported",
        ),
        ({"config_sentence_transformers": {"default_prompt_name": "q"}}, "default_prompt_name 'q'"),
        (
            {"config_sentence_transformers": {"model_type": "SparseEncoder"}},
            "model_type 'SparseEncoder' is not supported",
        ),
        (
            {"sentence_bert_config": {"transformer_task": "fill-mask"}},
            "transformer_task 'fill-mask'",
        ),
        ({"sentence_bert_config": {"layers": 3}}, "layers 3 is not supported"),
        ({"sentence_bert_config": {"tokenizer_name_or_path": "x"}}, "tokenizer_name_or_path 'x'"),
        (
            {"sentence_bert_config": {"modality_config": {"image": {}}}},
            "modality_config {'image': {}} is not supported",
        ),
        (
            {"sentence_bert_config": {"processing_kwargs": {"text": {"truncation": False}}}},
            "truncation False is not supported",
        ),
        ({"sentence_bert_config": {"max_seq_length": 2}}, "the tokenizer adds 2 itself"),
        (
            {"tokenizer_config": {"model_max_length": 9.5}},
            "model_max_length must be a whole number",
        ),
        ({"tokenizer_config": {"truncation_side": "middle"}}, "truncation_side 'middle'"),
        ({"tokenizer_config": {"do_lower_case": "yes"}}, "do_lower_case must be true or false"),
        ({"adapter_config": {"peft_type": "LORA"}}, "adapter_config.json belongs to an adapter"),
    ],
)
def test_what_is_refused(tmp_path: Path, files: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(tmp_path, **refused(**files))


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, True),
        ({"tokenizer_class": "BertTokenizer"}, False),
        ({"tokenizer_class": "RobertaTokenizerFast"}, False),
        ({"tokenizer_class": "X", "model_input_names": ["input_ids", "attention_mask"]}, False),
        ({}, False),
    ],
)
def test_types_of_tokens(tmp_path: Path, settings: dict, refused: bool) -> None:
    """Some classes of transformers take them from tokenizer.json, others have one type alone."""
    plain = load(tmp_path / "plain")
    path = write_folder(tmp_path / "typed", tokenizer_config=settings) / "tokenizer.json"
    saved = Tokenizer.from_file(str(path))
    saved.post_processor = processors.TemplateProcessing(
        single="[CLS] $A:1 [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    saved.save(str(path))
    if refused:
        with pytest.raises(ValueError, match=r"tokenizer.json gives tokens types other than 0"):
            Bert.from_folder(tmp_path / "typed")
    else:
        model = Bert.from_folder(tmp_path / "typed")
        np.testing.assert_array_equal(model.encode(TEXTS), plain.encode(TEXTS))


def test_a_tokenizer_that_cannot_read_a_text(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    path = folder / "tokenizer.json"
    Tokenizer(models.WordPiece({"a": 0}, unk_token="[UNK]")).save(str(path))
    with pytest.raises(ValueError, match=r"the tokenizer fails on a text: .*\[UNK\]"):
        Bert.from_folder(folder).encode(["b"])


def test_a_pooling_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no config.json in .*1_Pooling"):
        load(tmp_path, modules=TWO)


def test_two_encoders_in_one_file(tmp_path: Path) -> None:
    from tiny_bert import CONFIG, tensors_of

    tensors = {
        f"{side}.{name}": value
        for seed, side in enumerate(("left", "right"))
        for name, value in tensors_of(CONFIG, seed).items()
    }
    with pytest.raises(ValueError, match=r"several models: .* left\.emb.*, right\.emb"):
        Bert.from_folder(write_folder(tmp_path, tensors=tensors))
