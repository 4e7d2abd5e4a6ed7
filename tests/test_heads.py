"""Models with a head: logits beside stored ones, labels, pairs, tags, answers, what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numattn.models import Bert, QuestionAnswerer, SequenceClassifier, TokenClassifier, load
from numattn.models.encoder.tagger import Tag, grouped
from numattn.models.ragged import Ragged
from test_encoders import AGREEMENT, MASK, described, golden, made
from tiny_bert import SENTENCES
from tiny_encoders import CASES, LENGTHS, TASKS, golden_ids, write_folder
from tolerance import assert_same_bits

__all__ = ["golden"]  # the fixture
TEXTS = [text for text in SENTENCES if text]
KINDS = dict(zip(TASKS, (SequenceClassifier, TokenClassifier, QuestionAnswerer), strict=True))
NONE = {("NomicBert", TASKS[2]), ("Gte", TASKS[2])}  # which transformers has not
FIRST = [(stem, 0, task) for stem, number in CASES if number == 0 for task in TASKS]
HEADS = [case for case in FIRST if case[::2] not in NONE]
HEADS += [(stem, number, TASKS[0]) for stem, number in CASES if number]


@pytest.fixture
def classifier(tmp_path: Path, golden: dict[str, Any]) -> SequenceClassifier:
    return made(golden, tmp_path, "Bert")


@pytest.fixture
def tagger(tmp_path: Path, golden: dict[str, Any]) -> TokenClassifier:
    return made(golden, tmp_path, "Bert", 0, TASKS[1])


@pytest.fixture
def answerer(tmp_path: Path, golden: dict[str, Any]) -> QuestionAnswerer:
    return made(golden, tmp_path, "Bert", 0, TASKS[2])


@pytest.mark.parametrize(("stem", "number", "task"), HEADS)
def test_logits(tmp_path: Path, golden: dict[str, Any], stem: str, number: int, task: str) -> None:
    model = made(golden, tmp_path, stem, number, task)
    assert type(model) is KINDS[task]
    ids, types = golden_ids(stem)
    sequences = Ragged.of_lengths(LENGTHS)
    own = sequences.packed(types) if model.encoder.config.type_vocab_size > 1 else None
    hidden = model.encoder.hidden_states(sequences.packed(ids), own, sequences, None)
    found = model._head(hidden, sequences, None)
    expected = golden[f"{stem}/{number}/{task}/logits"]
    if task != TASKS[0]:
        expected = expected[MASK]
    np.testing.assert_allclose(found, expected, rtol=0, atol=AGREEMENT)


def test_texts_alone_and_together(classifier: SequenceClassifier) -> None:
    given = [*TEXTS, (TEXTS[0], TEXTS[1]), (TEXTS[1], TEXTS[0])]
    together = classifier.logits(given)
    assert together.shape == (len(given), 2) and together.dtype == np.float32
    for one, row in zip(given, together, strict=True):
        assert_same_bits(classifier.logits([one], num_threads=1)[0], row)
    assert_same_bits(classifier.logits(given, batch_tokens=1), together)
    assert not np.array_equal(together[-1], together[-2])
    assert classifier.logits([]).shape == (0, 2)
    assert_same_bits(pickle.loads(pickle.dumps(classifier)).logits(given), together)


def test_types_of_a_pair_count(
    tmp_path: Path, golden: dict[str, Any], classifier: SequenceClassifier
) -> None:
    pair = (TEXTS[0], TEXTS[1])
    encoding = classifier.tokenizer.encode(*pair)
    assert 1 in encoding.type_ids
    expected = classifier._head(
        classifier.encoder([encoding.ids], token_type_ids=[encoding.type_ids])[0],
        Ragged.of_lengths([len(encoding.ids)]),
        None,
    )
    np.testing.assert_allclose(classifier.logits([pair]), expected, rtol=0, atol=1e-6)
    settings = '{"model_input_names": ["input_ids", "attention_mask"]}'
    (tmp_path / "tokenizer_config.json").write_text(settings, encoding="utf-8")
    assert not np.allclose(load(tmp_path).logits([pair]), expected, atol=1e-3)


def test_classes_and_probabilities(tmp_path: Path, golden: dict[str, Any]) -> None:
    labels = {"0": "bad", "1": "good"}
    model = made(golden, tmp_path / "a", "Bert", id2label=labels)
    assert model.labels == ("bad", "good")
    logits, rows = model.logits(TEXTS).astype(np.float64), model.probabilities(TEXTS)
    weights = np.exp(logits)
    np.testing.assert_allclose(rows, weights / weights.sum(1, keepdims=True), rtol=0, atol=1e-6)
    for each, row in zip(model.classify(TEXTS), rows, strict=True):
        assert each.label == model.labels[row.argmax()] and each.probability == row.max()
    several = {"problem_type": "multi_label_classification"}
    rows = made(golden, tmp_path / "b", "Bert", **several).probabilities(TEXTS)
    np.testing.assert_allclose(rows, 1 / (1 + np.exp(-logits)), rtol=0, atol=1e-6)
    numbers = made(golden, tmp_path / "c", "Bert", problem_type="regression")
    assert_same_bits(numbers.logits(TEXTS), model.logits(TEXTS))
    with pytest.raises(ValueError, match="a regression has no probabilities"):
        numbers.classify(TEXTS)


def one_label(golden: dict[str, Any], folder: Path, **config: Any) -> Any:
    parts = described(golden, "Bert")
    shapes = {**parts["shapes"], "classifier.weight": [1, 32], "classifier.bias": [1]}
    settings = {**parts["config"], "id2label": {"0": "LABEL_0"}, **config}
    return load(write_folder(folder, settings, shapes))


def test_scores_of_pairs(tmp_path: Path, golden: dict[str, Any]) -> None:
    pairs = [(TEXTS[1], text) for text in TEXTS if len(text) < 40]
    model = one_label(golden, tmp_path / "a")
    logits = model.logits(pairs)[:, 0].astype(np.float64)
    expected = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(model.score(pairs), expected, rtol=0, atol=1e-6)
    former = {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}
    raw = one_label(golden, tmp_path / "b", **former)
    assert_same_bits(raw.score(pairs), model.logits(pairs)[:, 0])
    named = {"sentence_transformers": {"activation_fn": "torch.nn.Softmax"}}
    with pytest.raises(ValueError, match="activation_fn 'torch.nn.Softmax' is not supported"):
        one_label(golden, tmp_path / "c", **named)
    with pytest.raises(TypeError, match="pairs must be pairs of texts"):
        model.score(["a text"])
    with pytest.raises(TypeError, match="pairs of texts, not 3 together"):
        model.score([("a", "b", "c")])


def test_a_text_that_is_cut(classifier: SequenceClassifier) -> None:
    with pytest.warns(UserWarning, match="1 of 2 texts have more than 24 tokens and were cut"):
        found = classifier.logits(["the cat " * 40, "a cat"])
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        ("a text", {}, TypeError, "texts must be a sequence"),
        ([3], {}, TypeError, "texts must be strings, not int"),
        (["\ud800"], {}, ValueError, "is not Unicode"),
        (["a"], {"batch_tokens": 0}, ValueError, "batch_tokens must be 1 or more, not 0"),
    ],
)
def test_bad_texts(
    classifier: SequenceClassifier, given: Any, options: Any, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        classifier.logits(given, **options)


def test_tags(tagger: TokenClassifier) -> None:
    text = "the cat sat , unbelievable"
    tags = tagger.tag(text, group=False)
    assert [tag.text for tag in tags] == ["the", "cat", "sat", ",", "un", "believ", "able"]
    assert all(text[tag.start : tag.end] == tag.text for tag in tags)
    assert {tag.label for tag in tags} <= {"LABEL_0", "LABEL_1"}
    assert all(0.5 <= tag.probability <= 1 for tag in tags)
    assert [*grouped(text, tags)] == tagger.tag(text)


def test_tokens_join_to_parts() -> None:
    text = "Ann Lee met Bob in Rome"
    labels = ["B-PER", "I-PER", "O", "B-PER", "B-PER", "LOC"]
    places = [(0, 3), (4, 7), (8, 11), (12, 15), (16, 18), (19, 23)]
    tags = [
        Tag(text[begin:end], label, probability, begin, end)
        for label, probability, (begin, end) in zip(
            labels, (0.5, 0.75, 0.9, 0.9, 0.6, 1.0), places, strict=True
        )
    ]
    assert [*grouped(text, tags)] == [
        ("Ann Lee", "PER", 0.625, 0, 7),
        ("Bob", "PER", 0.9, 12, 15),
        ("in", "PER", 0.6, 16, 18),
        ("Rome", "LOC", 1.0, 19, 23),
    ]


def test_an_answer_is_part_of_the_context(answerer: QuestionAnswerer) -> None:
    context = "it was unbelievable , and the dog ran on"
    found = answerer.answer("who ran", context)
    assert context[found.start : found.end] == found.text and 0 < found.probability <= 1
    short = answerer.answer("who ran", context, max_answer_tokens=1)
    assert " " not in short.text and short.probability <= found.probability


def test_a_long_context_is_read_in_parts(answerer: QuestionAnswerer) -> None:
    """The best answer of all is that of one of the parts, each read by itself."""
    question, context = "who ran", " ".join(TEXTS)
    found = answerer.answer(question, context, max_answer_tokens=3)
    parts = answerer._read_parts(question, context)
    assert len(parts) > 2 and all(len(part.ids) <= 24 for part in parts)
    covered = {place for part in parts for place, kind in zip(
        part.offsets, part.sequence_ids, strict=True) if kind == 1}  # fmt: skip
    assert min(covered)[0] == 0 and max(covered)[1] == len(context)
    alone = [
        answerer.answer(question, context[own[0][0] : own[-1][1]], max_answer_tokens=3).probability
        for part in parts
        for own in [[o for o, k in zip(part.offsets, part.sequence_ids, strict=True) if k == 1]]
    ]
    assert found.probability == pytest.approx(max(alone), abs=AGREEMENT)
    assert answerer.answer(question, context, max_answer_tokens=3, batch_tokens=1) == found


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("the cat " * 20, "a dog"), {}, "question has as many tokens as the model takes, 24"),
        (("who", ""), {}, "context has no token"),
        (("who", "a dog"), {"max_answer_tokens": 0}, "max_answer_tokens must be 1 or more, not 0"),
    ],
)
def test_questions_that_have_no_answer(
    answerer: QuestionAnswerer, arguments: Any, options: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        answerer.answer(*arguments, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id2label": {"0": "a", "2": "b"}}, "does not name labels from 0 on"),
        ({"id2label": {"0": "a"}}, r"classifier.weight in .* has shape \(2, 32\)"),
        ({"problem_type": "other"}, "problem_type 'other' is not supported"),
        ({"id2label": ["a"]}, "id2label must be an object"),
    ],
)
def test_a_bad_head(
    tmp_path: Path, golden: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        made(golden, tmp_path, "Bert", **changes)


def test_an_answer_has_a_beginning_and_an_end(tmp_path: Path, golden: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="3 labels; where an answer begins and ends has 2"):
        made(golden, tmp_path, "Bert", 0, TASKS[2], num_labels=3, id2label=None)


def test_which_class_a_folder_has(tmp_path: Path, golden: dict[str, Any]) -> None:
    folder = write_folder(tmp_path, **described(golden, "Bert"))
    assert type(Bert.from_folder(folder)) is Bert
    assert type(SequenceClassifier.from_folder(folder)) is SequenceClassifier
    with pytest.raises(ValueError, match="has no tensor qa_outputs.weight"):
        QuestionAnswerer.from_folder(folder)
    modules = '[{"path": "", "type": "sentence_transformers.models.Transformer"}%s]'
    path = tmp_path / "modules.json"
    path.write_text(
        modules % ', {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}',
        encoding="utf-8",
    )
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}", encoding="utf-8")
    assert type(load(tmp_path)) is Bert
    with pytest.raises(ValueError, match="other modules than one Transformer"):
        SequenceClassifier.from_folder(folder)
    path.write_text(modules % "", encoding="utf-8")
    kind = '{"model_type": "CrossEncoder", "activation_fn": "torch.nn.Identity"}'
    (tmp_path / "config_sentence_transformers.json").write_text(kind, encoding="utf-8")
    assert type(load(tmp_path)) is SequenceClassifier


def test_a_folder_without_a_tokenizer(tmp_path: Path, golden: dict[str, Any]) -> None:
    folder = write_folder(tmp_path, **described(golden, "Bert"))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="texts need a tokenizer"):
        load(folder).logits(["a text"])
