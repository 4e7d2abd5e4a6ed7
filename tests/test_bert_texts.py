"""Texts → vectors: pooling, truncation, and batches that leave no trace in the result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from numattn.models import Bert
from numattn.models.encoder.batches import batches, longest_first
from numattn.models.vectors import Rows
from tiny_bert import SENTENCES, write_folder

# What the project promises for embeddings.
AGREEMENT = 1e-5


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bert:
    return Bert.from_folder(write_folder(tmp_path_factory.mktemp("tiny")))


def test_encode_is_the_mean_over_the_tokens(tiny: Bert) -> None:
    for text, vector in zip(SENTENCES, tiny.encode(SENTENCES, normalize=False), strict=True):
        hidden = tiny([tiny.tokenizer.encode(text).ids])[0]
        np.testing.assert_allclose(vector, hidden.mean(axis=0), rtol=0, atol=AGREEMENT)


def test_encode_with_cls_pooling(tmp_path: Path) -> None:
    for number, settings in enumerate(
        [
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
            {"pooling_mode": "cls"},
        ]
    ):
        folder = write_folder(tmp_path / str(number), **{"1_Pooling__config": settings})
        model = Bert.from_folder(folder)
        hidden = model([model.tokenizer.encode("a dog").ids])[0, 0]
        vector = model.encode(["a dog"], normalize=False)[0]
        np.testing.assert_allclose(vector, hidden, rtol=0, atol=AGREEMENT)


def test_vectors_have_length_one(tiny: Bert) -> None:
    lengths = np.linalg.norm(tiny.encode(SENTENCES), axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=0, atol=1e-6)


def test_order_and_batches_do_not_matter(tiny: Bert, rng: np.random.Generator) -> None:
    expected = tiny.encode(SENTENCES)
    np.testing.assert_array_equal(expected[0], expected[-1])
    for batch_tokens in (1, 20, 64, 4096):
        order = rng.permutation(len(SENTENCES))
        vectors = tiny.encode([SENTENCES[i] for i in order], batch_tokens=batch_tokens)
        np.testing.assert_array_equal(vectors, expected[order])


def test_progress_counts_every_text(tiny: Bert) -> None:
    counts: list[int] = []
    tiny.encode(SENTENCES, batch_tokens=20, progress=counts.append)
    assert len(counts) > 1
    assert sum(counts) == len(SENTENCES)


def test_long_texts_are_cut_and_said_to_be(tiny: Bert) -> None:
    assert tiny.max_tokens == 24
    long, cut = "cat " * 40, "cat " * 22
    with pytest.warns(UserWarning, match="1 of 2 texts have more than 24 tokens and were cut"):
        vectors = tiny.encode([long, "dog"])
    np.testing.assert_array_equal(vectors[:1], tiny.encode([cut]))


def test_max_seq_length_of_the_folder(tmp_path: Path) -> None:
    for number, (wanted, tokens) in enumerate([(10, 10), (99, 24), (None, 24)]):
        files = {"sentence_bert_config": {"max_seq_length": wanted}}
        model = Bert.from_folder(write_folder(tmp_path / str(number), **files))
        assert model.max_tokens == tokens
        assert len(model.tokenize(["cat " * 50]).ids[0]) == tokens


def test_lower_case_of_the_folder(tmp_path: Path) -> None:
    files = {"sentence_bert_config": {"do_lower_case": True}}
    folder = write_folder(tmp_path, **files)
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    lowercase = '"lowercase": true'
    assert lowercase in text
    (folder / "tokenizer.json").write_text(text.replace(lowercase, '"lowercase": false'))
    model = Bert.from_folder(folder)
    capital, small = model.tokenize(["A CAT", "a cat"]).ids
    assert capital.tolist() == small.tolist()


def test_a_text_without_tokens_is_zero(tiny: Bert) -> None:
    vectors = tiny.encode_tokens([[], [5, 6]])
    assert not vectors[0].any()
    assert np.linalg.norm(vectors[1]) > 0.99


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("a text", TypeError, "put a single one into a list"),
        (["a", None], TypeError, "texts must be strings, not NoneType"),
        (["a", "caf\udce9"], ValueError, r"the text 'caf\\udce9' is not Unicode"),
    ],
)
def test_encode_of_what_are_no_texts(
    tiny: Bert, texts: list, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tiny.encode(texts)


def test_encode_with_no_room(tiny: Bert) -> None:
    for texts in (["a"], []):
        with pytest.raises(ValueError, match="batch_tokens must be 1 or more, not 0"):
            tiny.encode(texts, batch_tokens=0)


def test_a_list_of_more_tokens_than_there_are_positions(tiny: Bert) -> None:
    with pytest.raises(ValueError, match="has 25 tokens; the model has positions for 24"):
        tiny.encode_tokens([[2, 3], [5] * 25])


def test_tokens_that_the_model_does_not_know(tmp_path: Path) -> None:
    model = Bert.from_folder(write_folder(tmp_path))
    model.tokenizer.add_tokens(["newcomer"])
    with pytest.raises(ValueError, match=r"token ids must be in 0 … 21, not 2 … 22"):
        model.encode(["a newcomer"])


def test_batches(rng: np.random.Generator) -> None:
    for most in (1, 50, 256, 5000):
        given = [rng.integers(0, 9, length) for length in rng.integers(0, 200, 300)]
        made = list(batches(given, most))
        assert [tokens for batch in made for tokens in batch] == given  # the arrays themselves
        totals = [sum(tokens.size for tokens in batch) for batch in made]
        for batch, total, following in zip(made, totals, [*made[1:], None], strict=True):
            assert len(batch) == 1 or total <= most
            assert following is None or total + following[0].size > most
    assert list(batches([], 10)) == []


def test_the_longest_of_a_batch_come_first(rng: np.random.Generator) -> None:
    batch = [rng.integers(0, 9, length) for length in (3, 0, 7, 3, 1)]
    order, ids, sequences = longest_first(batch)
    assert order.tolist() == [2, 0, 3, 4]
    assert ids.tolist() == [token for index in order for token in batch[index]]
    assert sequences.starts.tolist() == [0, 7, 10, 13, 14]
    order, ids, sequences = longest_first([ids[:0]])
    assert (order.size, ids.size, sequences.starts.tolist()) == (0, 0, [0])


@pytest.mark.parametrize("expected", [0, 3, 7, 30])
def test_rows_that_come_batch_by_batch(expected: int, rng: np.random.Generator) -> None:
    rows, made = Rows(expected, 5), []
    for count in (1, 2, 0, 4, 9):
        places = rng.permutation(count)[: count // 2 + 1]
        made.append(np.zeros((count, 5), np.float32))
        made[-1][places] = rng.standard_normal((places.size, 5), np.float32)
        rows.add(count, places, made[-1][places])
    np.testing.assert_array_equal(rows.whole(), np.concatenate(made))
