"""Heads of numattn.models' encoders beside transformers' and sentence-transformers' own."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numattn.models import QuestionAnswerer, SequenceClassifier, TokenClassifier, load
from numattn.models.load import CLASSES
from tiny_bert import SENTENCES
from tiny_encoders import CASES, save, theirs

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
# Logits have components of the order 1.
AGREEMENT = 1e-5
TEXTS = [text for text in SENTENCES if text] + ["a"]
PAIRS = [*itertools.pairwise(TEXTS)]


def logits(model: Any, encoding: Any) -> Any:
    arguments = {"input_ids": torch.tensor([encoding.ids])}
    kinds = getattr(model.config, "type_vocab_size", 0)
    if kinds > 1:
        arguments["token_type_ids"] = torch.tensor([encoding.type_ids])
    with torch.no_grad():
        return model(**arguments)


def made(stem: str, number: int, task: str, folder: Path, **more: Any) -> tuple[Any, Any]:
    if not hasattr(transformers, f"{stem}{task}"):
        pytest.skip(f"transformers has no {stem}{task}")
    model = theirs(stem, number, task, **more)
    return model, load(save(model, folder))


@pytest.mark.parametrize(("stem", "number"), CASES)
@pytest.mark.parametrize("given", [TEXTS, PAIRS])
def test_logits_of_texts(tmp_path: Path, stem: str, number: int, given: list[Any]) -> None:
    model, ours = made(stem, number, "ForSequenceClassification", tmp_path, num_labels=3)
    assert isinstance(ours, SequenceClassifier)
    expected = [logits(model, ours.tokenizer.encode(*pair(each))).logits[0] for each in given]
    found = ours.logits(given)
    np.testing.assert_allclose(found, torch.stack(expected).numpy(), rtol=0, atol=AGREEMENT)
    probable = torch.stack(expected).softmax(-1).numpy()
    np.testing.assert_allclose(ours.probabilities(given), probable, rtol=0, atol=AGREEMENT)


def pair(given: Any) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else given


@pytest.mark.parametrize(("stem", "number"), CASES)
def test_logits_of_tokens(tmp_path: Path, stem: str, number: int) -> None:
    labels = {0: "O", 1: "B-PER", 2: "I-PER"}
    model, ours = made(stem, number, "ForTokenClassification", tmp_path, id2label=labels)
    assert isinstance(ours, TokenClassifier)
    for text in TEXTS:
        expected = logits(model, ours.tokenizer.encode(text)).logits[0].softmax(-1).numpy()[1:-1]
        tags = ours.tag(text, group=False)
        assert [tag.label for tag in tags] == [labels[i] for i in expected.argmax(-1).tolist()]
        found = [tag.probability for tag in tags]
        np.testing.assert_allclose(found, expected.max(-1), rtol=0, atol=AGREEMENT)
        assert all(text[tag.start : tag.end] == tag.text for tag in tags)


@pytest.mark.parametrize(("stem", "number"), CASES)
def test_answers(tmp_path: Path, stem: str, number: int) -> None:
    model, ours = made(stem, number, "ForQuestionAnswering", tmp_path)
    assert isinstance(ours, QuestionAnswerer)
    question, context = "who ran", "it was unbelievable , and the dog ran on"
    encoding = ours.tokenizer.encode(question, context)
    given = logits(model, encoding)
    places = [i for i, number in enumerate(encoding.sequence_ids) if number == 1]
    first, last = (
        each[0, places].softmax(-1).numpy() for each in (given.start_logits, given.end_logits)
    )
    spans = [(i, j) for i in range(len(places)) for j in range(i, min(i + 4, len(places)))]
    best = max(spans, key=lambda span: first[span[0]] * last[span[1]])
    found = ours.answer(question, context, max_answer_tokens=4)
    start, end = encoding.offsets[places[best[0]]][0], encoding.offsets[places[best[1]]][1]
    assert found[0] == context[start:end] and found[2:] == (start, end)
    assert found.probability == pytest.approx(first[best[0]] * last[best[1]], abs=AGREEMENT)


@pytest.mark.parametrize("activation", [None, "torch.nn.modules.linear.Identity"])
@pytest.mark.parametrize("labels", [1, 3])
def test_a_cross_encoder(tmp_path: Path, labels: int, activation: str | None) -> None:
    library = pytest.importorskip("sentence_transformers")
    save(theirs("Bert", 0, "ForSequenceClassification", num_labels=labels), tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    if activation is not None:
        settings["sentence_transformers"] = {"activation_fn": activation}
        (tmp_path / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    model = library.CrossEncoder(str(tmp_path), device="cpu")
    expected = model.predict(PAIRS)
    found = load(tmp_path).score(PAIRS)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=AGREEMENT)
    model.save_pretrained(str(tmp_path / "saved"))
    again = load(tmp_path / "saved").score(PAIRS)
    np.testing.assert_allclose(again, expected, rtol=0, atol=AGREEMENT)


def test_every_encoder_has_a_head_here() -> None:
    from numattn.models.encoder.head import HEADS

    encoders = {family for family, place in CLASSES.items() if place.startswith("encoder.")}
    assert set(HEADS) == encoders
