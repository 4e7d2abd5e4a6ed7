"""What counts as texts, how they are tokenised, and encoders that go to other processes."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import tracemalloc
from collections import UserDict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import naive_bert
from numattn.models import Bert
from numattn.models.encoder import tokenized
from tiny_bert import CONFIG, SENTENCES, tensors_of, write_folder

TEXTS = ["the cat sat", "a dog", "", "it was tired ."]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bert:
    return Bert.from_folder(write_folder(tmp_path_factory.mktemp("tiny")))


class Column:
    """A column of a table, as pandas has it: neither a sequence nor an iterator."""

    ndim = 1

    def __iter__(self) -> Iterator[str]:
        return iter(TEXTS)


class Table(Column):
    """A table, which iterates over the names of its columns."""

    ndim = 2


@pytest.mark.parametrize(
    "made",
    [
        tuple,
        deque,
        np.array,
        lambda texts: np.array(texts, dtype=object),
        iter,
        lambda texts: (text for text in texts),
        lambda texts: map(str.lower, texts),
        lambda texts: dict(enumerate(texts)).values(),
        lambda texts: Column(),
    ],
)
def test_iterables_of_texts(tiny: Bert, made: Callable[[list[str]], Any]) -> None:
    np.testing.assert_array_equal(tiny.encode(made(TEXTS)), tiny.encode(TEXTS))
    assert tiny.tokenize(made(TEXTS)).lengths.tolist() == tiny.tokenize(TEXTS).lengths.tolist()


def test_a_file_of_texts(tmp_path: Path, tiny: Bert) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    with open(path, encoding="utf-8") as file:
        np.testing.assert_array_equal(tiny.encode(file), tiny.encode(TEXTS))
    with open(path, "rb") as file, pytest.raises(TypeError, match="must be strings, not bytes"):
        tiny.encode(file)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a text", "texts must be .* of strings; put a single one into a list"),
        (b"a text", "texts must be .* of strings; put a single one into a list"),
        ({"q": "a", "d": "b"}, "texts must be .* of strings, not a dict"),
        (UserDict(q="a"), "texts must be .* of strings, not a UserDict"),
        ({"a", "b"}, "texts must be .* of strings, not a set"),
        (frozenset("ab"), "texts must be .* of strings, not a frozenset"),
        (Table(), "texts must be .* of strings, not a Table of 2 dimensions"),
        (np.array([["a", "b"]]), "texts must be .* of strings, not a ndarray of 2 dimensions"),
        (np.array("a"), "texts must be .* of strings, not a ndarray of 0 dimensions"),
        (7, "texts must be .* of strings, not a int"),
        (None, "texts must be .* of strings, not a NoneType"),
        (["a", float("nan")], "texts must be strings, not float"),
        (["a", ["b"]], "texts must be strings, not list"),
    ],
)
def test_what_are_no_texts(tiny: Bert, given: Any, message: str) -> None:
    for method in (tiny.encode, tiny.tokenize):
        with pytest.raises(TypeError, match=message):
            method(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["2024", "7592"], "sequence of integers, not '2024'"),
        ([[2.0, 5.9, 3.0]], r"sequence of integers, not \[2.0, 5.9, 3.0\]"),
        ([2, 5, 3], "put a single one into a list"),
        ({0: [2, 3]}, "not a dict"),
        ([{2, 3}], "sequence of integers, not {2, 3}"),
        ("23", "put a single one into a list"),
    ],
)
def test_what_are_no_lists_of_tokens(tiny: Bert, given: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        tiny.encode_tokens(given)


def test_lists_of_tokens(tiny: Bert) -> None:
    lists = [tokens.tolist() for tokens in tiny.tokenize(TEXTS).ids]
    expected = tiny.encode(TEXTS)
    for given in (lists, iter(lists), (np.array(tokens, np.uint8) for tokens in lists)):
        np.testing.assert_array_equal(tiny.encode_tokens(given), expected)
    with pytest.raises(ValueError, match=r"must be in 0 … 21, not 2 … 99"):
        tiny.encode_tokens([[2, 99, 3]])


def test_tokens_tell_which_texts_were_cut(tiny: Bert) -> None:
    tokens = tiny.tokenize(["dog", "cat " * 22, "cat " * 23, "cat " * 90])
    assert tokens.truncated.tolist() == [False, False, True, True]
    assert tokens.lengths.tolist() == [3, 24, 24, 24]
    assert tokens.num_truncated == 2
    assert [ids.dtype.name for ids in tokens.ids] == ["int32"] * 4
    ids, truncated = tokens
    assert ids is tokens.ids and truncated is tokens.truncated
    nothing = tiny.tokenize([])
    assert nothing.lengths.tolist() == [] and nothing.num_truncated == 0


def test_texts_are_tokenised_in_pieces(tiny: Bert, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenized, "PIECE_TEXTS", 3)
    monkeypatch.setattr(tokenized, "PIECE_CHARACTERS", 60)
    texts = SENTENCES * 3 + ["cat " * 30]
    sizes = [len(piece) for piece in tokenized.pieces(texts)]
    assert sum(sizes) == len(texts) and max(sizes) == 3 and min(sizes) == 1
    whole = [tiny.tokenizer.encode(text).ids for text in texts]
    assert [ids.tolist() for ids in tiny.tokenize(texts).ids] == whole


def test_tokens_of_many_texts_take_little_memory(tiny: Bert) -> None:
    """The library's own results hold kilobytes a text, and these are gone piece by piece."""
    count = 20 * tokenized.PIECE_TEXTS
    tiny.tokenize(["the cat sat on the mat"])
    tracemalloc.start()
    tokens = tiny.tokenize("the cat sat on the mat" for _ in range(count))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(tokens.ids) == count
    array = 112 + 8 * tokens.ids[0].itemsize  # NumPy's object and its 8 ids
    assert kept < count * (
        array + 8 + 1 + 64
    )  # a pointer, a flag, and what the allocator rounds up


@pytest.mark.parametrize("text", ["cat sat , " * 20_000, "un believable\t" * 9000, "x" * 150_000])
def test_a_long_text_is_read_no_further_than_it_counts(tiny: Bert, text: str) -> None:
    beginning = tokenized.shortened(tiny.tokenizer, text)
    assert (len(beginning) <= tokenized.LONG_TEXT) == (" " in text)
    whole = tiny.tokenizer.encode(text)
    tokens = tiny.tokenize([text])
    assert tokens.ids[0].tolist() == whole.ids
    assert tokens.truncated.tolist() == [bool(whole.overflowing)]


def test_a_long_text_of_few_tokens(tmp_path: Path, tiny: Bert) -> None:
    """Spaces are no tokens: those that count stand further on."""
    text = (" " * 30_000).join(SENTENCES[:4])
    assert tiny.tokenize([text]).ids[0].tolist() == tiny.tokenizer.encode(text).ids
    folder = write_folder(tmp_path, tokenizer_config={"truncation_side": "left"})
    left, text = Bert.from_folder(folder), "dog " * 30_000 + "cat"
    assert left.tokenize([text]).ids[0].tolist() == left.tokenizer.encode(text).ids


def test_a_tokenizer_that_was_told_to_pad(tmp_path: Path, tiny: Bert) -> None:
    model = Bert.from_folder(write_folder(tmp_path))
    model.tokenizer.enable_padding(length=20)
    np.testing.assert_array_equal(model.encode(SENTENCES), tiny.encode(SENTENCES))


def test_padding_tokens_inside_a_text_of_roberta(tmp_path: Path) -> None:
    """Positions count the tokens that are none, from the row after theirs on (RoBERTa)."""
    tensors, pad = tensors_of(CONFIG), 1
    model = Bert.from_folder(
        write_folder(tmp_path, {"model_type": "roberta", "pad_token_id": pad}, tensors)
    )
    table = "embeddings.position_embeddings.weight"
    rows = {
        (2, 5, pad, 6, 3): [2, 3, 1, 4, 5],
        (pad, pad, 7): [1, 1, 2],
        (5, 6, 7): [2, 3, 4],
    }
    for ids, places in rows.items():
        # The oracle takes one row after the other.
        own = np.concatenate([np.zeros((pad + 1, 32), np.float32), tensors[table][places]])
        expected, _ = naive_bert.run(
            {**tensors, table: own}, model.config, np.array(ids), rounded=False
        )
        np.testing.assert_allclose(model([list(ids)])[0], expected, atol=1e-4)
    # Padding after a shorter text is none inside it.
    lists = [list(ids) for ids in rows]
    longest = max(map(len, lists))
    filled = [ids + [pad] * (longest - len(ids)) for ids in lists]
    together = model(filled, [len(ids) for ids in lists])
    for row, ids in enumerate(lists):
        np.testing.assert_allclose(together[row, : len(ids)], model([ids])[0], atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_copies_and_pickles(tmp_path: Path, dtype: str) -> None:
    settings = {"prompts": {"query": "the dog "}, "default_prompt_name": "query"}
    folder = write_folder(tmp_path, config_sentence_transformers=settings)
    model = Bert.from_folder(folder, dtype=dtype)
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(model, protocol=5, buffer_callback=buffers.append)
    others = [
        pickle.loads(pickle.dumps(model)),
        pickle.loads(data, buffers=buffers),
        copy.copy(model),
        copy.deepcopy(model),
    ]
    expected = model.encode(SENTENCES)
    for other in others:
        assert other.dtype == model.dtype and other.prompt == "the dog "
        np.testing.assert_array_equal(other.encode(SENTENCES), expected)


@pytest.mark.slow
def test_a_model_that_goes_to_other_processes(tiny: Bert) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        halves = pool.map(tiny.encode, [SENTENCES[:3], SENTENCES[3:]])
    expected = [tiny.encode(SENTENCES[:3]), tiny.encode(SENTENCES[3:])]
    for half, own in zip(halves, expected, strict=True):
        np.testing.assert_array_equal(half, own)
