"""A sequence is bitwise what it is if it is alone, whatever stands beside it in a batch.

Rule 6 of the functions below (test_rules_bitwise.py), carried through whole models: how a sequence
is computed must follow from its own length, never from that of a padded batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from numattn.models import Bert, Seq2Seq
from numattn.models.encoder.pooling import POOLINGS
from numattn.models.ragged import Ragged
from numattn.models.vectors import of_length_one
from tiny_bert import CONFIG, tensors_of, write_folder
from tiny_marian import write_folder as write_translator
from tolerance import assert_same_bits

Ids = NDArray[np.int64]
DTYPES = ("float32", "bfloat16", "int8")

# Two panels of each projection, a head that fills no vector, and room for several blocks of rows.
WIDER = {
    "hidden_size": 96,
    "num_attention_heads": 4,
    "intermediate_size": 112,
    "num_hidden_layers": 1,
    "max_position_embeddings": 240,
}
# Up to 8 rows have a kernel of their own; around vectors, tiles and blocks of rows of the others.
LENGTHS = (3, 8, 1, 9, 0, 33, 8, 2, 16, 17, 97, 7, 193, 1, 64)


@pytest.fixture(scope="module", params=DTYPES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bert:
    folder = write_folder(tmp_path_factory.mktemp("wider"), WIDER, tensors_of({**CONFIG, **WIDER}))
    return Bert.from_folder(folder, dtype=request.param)


@pytest.fixture
def given(rng: np.random.Generator) -> list[Ids]:
    """Sequences of many lengths, one of them twice."""
    made = [rng.integers(0, CONFIG["vocab_size"], length) for length in LENGTHS]
    return [*made, made[1]]


def padded(lists: Sequence[Ids], rng: np.random.Generator) -> tuple[Ids, list[int]]:
    """Sequences as rows that end in padding of any ids, and their lengths."""
    lengths = [ids.size for ids in lists]
    rows = rng.integers(0, CONFIG["vocab_size"], (len(lists), max(lengths)))
    for row, ids in zip(rows, lists, strict=True):
        row[: ids.size] = ids
    return rows, lengths


# --- encoders -------------------------------------------------------------------------------------


def test_hidden_states(isa: str, model: Bert, given: list[Ids], rng: np.random.Generator) -> None:
    alone = [model(ids[np.newaxis], num_threads=1)[0] for ids in given]
    everyone = np.arange(len(given))
    companies = [everyone, everyone[::-1], rng.permutation(everyone), [0, 1, 2], [2, 12], [5, 5, 5]]
    for number, company in enumerate(companies):
        rows, lengths = padded([given[index] for index in company], rng)
        hidden = model(rows, lengths, num_threads=1 + number % 3)
        for row, index in enumerate(company):
            assert_same_bits(hidden[row, : lengths[row]], alone[index], f"{index} in {company}")
            assert not hidden[row, lengths[row] :].any()  # padding is 0


def test_short_ones_beside_a_long_one(isa: str, model: Bert, rng: np.random.Generator) -> None:
    """So many that a last bit that differs before a rounding to bfloat16 shows in one of them."""
    lists = [rng.integers(0, CONFIG["vocab_size"], 2 + number % 7) for number in range(120)]
    lists.append(rng.integers(0, CONFIG["vocab_size"], 30))
    rows, lengths = padded(lists, rng)
    hidden = model(rows, lengths)
    for row, ids in enumerate(lists):
        assert_same_bits(hidden[row, : ids.size], model(ids[np.newaxis])[0], f"row {row}")


def test_types_of_tokens(isa: str, model: Bert, given: list[Ids], rng: np.random.Generator) -> None:
    rows, lengths = padded(given, rng)
    types = rng.integers(0, 2, rows.shape)
    hidden = model(rows, lengths, token_type_ids=types)
    for row, length in enumerate(lengths):
        own = slice(row, row + 1), slice(length)
        assert_same_bits(hidden[own], model(rows[own], token_type_ids=types[own]))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_vectors(
    isa: str,
    model: Bert,
    given: list[Ids],
    rng: np.random.Generator,
    pooling: str,
    normalize: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model, "_pooling", POOLINGS[pooling])
    alone = [model.encode_tokens([ids], normalize=normalize)[0] for ids in given]
    for number, batch_tokens in enumerate((1, 20, 150, 4096)):
        order = rng.permutation(len(given))
        vectors = model.encode_tokens(
            [given[index] for index in order],
            batch_tokens=batch_tokens,
            normalize=normalize,
            num_threads=1 + number % 3,
        )
        assert_same_bits(vectors, np.stack([alone[index] for index in order]))


def test_copies_of_a_text_in_one_call(isa: str, model: Bert) -> None:
    """Of 5 tokens each, so that the last of them is beside a longer text."""
    text, other = "a cat sat", "it was unbelievable , and the dog ran on and on"
    vectors = model.encode([text] * 201 + [other], batch_tokens=1000)
    assert len(np.unique(vectors[:201], axis=0)) == 1
    assert_same_bits(vectors[:1], model.encode([text]))


def test_padding_tokens_inside_a_text_of_roberta(tmp_path: Path, rng: np.random.Generator) -> None:
    pad = 1
    model = Bert.from_folder(write_folder(tmp_path, {"model_type": "roberta", "pad_token_id": pad}))
    lists = [rng.integers(0, 4, length) for length in (5, 9, 1, 12, 7)]  # every fourth is padding
    rows, lengths = padded(lists, rng)
    rows[1, 9:] = pad
    hidden = model(rows, lengths)
    for row, ids in enumerate(lists):
        assert_same_bits(hidden[row, : ids.size], model(ids[np.newaxis])[0])


@pytest.mark.parametrize("width", [1, 3, 8, 127, 128, 129, 384, 1000])
def test_pooling_and_scaling(width: int, rng: np.random.Generator) -> None:
    """NumPy's sums go in pairs, and in which depends on shapes."""
    lengths = np.array([1, 2, 7, 8, 9, 31, 128, 129, 300, 1])
    places = Ragged.of_lengths(lengths)
    hidden = rng.standard_normal((places.count, width), np.float32)
    for pool in POOLINGS.values():
        together = pool(hidden, places)
        scaled = of_length_one(together.copy())
        for number, (begin, end) in enumerate(zip(places.starts, places.starts[1:], strict=False)):
            alone = pool(hidden[begin:end].copy(), Ragged.of_lengths([end - begin]))
            assert_same_bits(alone[0], together[number])
            assert_same_bits(of_length_one(alone)[0], scaled[number])


# --- the translator -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sentence_that_is_translated(
    isa: str, tmp_path: Path, rng: np.random.Generator, dtype: str
) -> None:
    model = Seq2Seq.from_folder(write_translator(tmp_path), dtype=dtype)
    sources = [[*rng.integers(1, 40, size).tolist(), 0] for size in (6, 1, 40, 7, 8, 2)]
    rows, lengths = padded([np.array(source) for source in sources], rng)
    words = rng.integers(1, 40, (len(sources), 3))
    together = model.encode(rows, lengths)
    outputs = [model.step(None, together), *(model.step(own, together) for own in words.T)]
    for row, source in enumerate(sources):
        alone = model.encode([source], [len(source)])
        own = [model.step(None, alone), *(model.step(word[[row]], alone) for word in words.T)]
        for got, expected in zip(outputs, own, strict=True):
            assert_same_bits(got[row], expected[0])
