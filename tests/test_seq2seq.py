"""numattn.models.translator on a tiny random model, against its formulas in float64."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies

import numattn as na
from numattn.models import Seq2Seq
from numattn.models.translator.sentences import Sentences, language_of
from tiny_marian import (
    VOCABULARY,
    Oracle,
    tensors,
    write_folder,
)

MODEL = "tiny.intgemm.alphas.bin"
# Of ‖outputs‖: float32 sums of 16 to 24 products in each of some 20 products and norms in a row.
AGREEMENT = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Seq2Seq:
    return Seq2Seq.from_folder(folder)


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle(tensors())


def sentences(rng: np.random.Generator, sizes: list[int]) -> list[list[int]]:
    return [[*rng.integers(1, VOCABULARY, size).tolist(), 0] for size in sizes]


def test_steps_agree_with_the_formulas(
    model: Seq2Seq, oracle: Oracle, rng: np.random.Generator
) -> None:
    """A ragged batch, each row against the sentence alone."""
    sources, steps = sentences(rng, [6, 1, 9]), 7
    target = rng.integers(1, VOCABULARY, (3, steps))
    ids = np.zeros((3, 10), dtype=np.int64)
    for row, source in enumerate(sources):
        ids[row, : len(source)] = source
    state = model.encode(ids, [len(source) for source in sources])
    outputs = [model.step(None, state)]
    outputs += [model.step(target[:, step], state) for step in range(steps)]
    table, bias = oracle.given["Wemb"], oracle.given["decoder_ff_logit_out_b"]
    for row, source in enumerate(sources):
        expected = oracle.logits(source, target[row].tolist())
        got = np.stack([output[row] for output in outputs]) @ table.T + bias
        assert np.linalg.norm(got - expected) <= AGREEMENT * np.linalg.norm(expected)


def test_translations_are_the_likeliest_words(
    model: Seq2Seq, oracle: Oracle, rng: np.random.Generator
) -> None:
    sources = sentences(rng, [5, 1, 3, 0, 8, 2, 2, 6, 4])
    expected = [oracle.translate(source) for source in sources]
    assert {text[-1] == 0 for text in expected} == {True, False}  # ended, and grown too long
    assert model.translate_tokens(sources) == expected
    assert [model.translate_tokens([source])[0] for source in sources] == expected
    assert model.translate_tokens([]) == []


def test_keys_and_values_of_the_source_are_computed_once(
    model: Seq2Seq, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `MultiHeadAttention.project_context`, whose result every step reads."""
    calls: list[tuple[int, ...]] = []
    project = na.MultiHeadAttention.project_context

    def counting(self: Any, context: Any, **options: Any) -> Any:
        calls.append(context.shape)
        return project(self, context, **options)

    monkeypatch.setattr(na.MultiHeadAttention, "project_context", counting)
    state = model.encode(sentences(rng, [8]), [9])
    assert calls == [(1, 9, 16)] * 2
    for source in state.sources:
        assert source.k.shape == source.v.shape == (1, 9, 2, 8)
    for word in (None, 5, 7):
        before = model.step(None if word is None else np.array([word]), state)
    assert state.position == 3 and len(calls) == 2
    for source in state.sources:
        source.v[:] = 0  # what is read there counts
    state.position = 2
    assert not np.array_equal(model.step(np.array([7]), state), before)


def test_a_shortlist_leaves_its_words_only(
    tmp_path: Path, oracle: Oracle, rng: np.random.Generator
) -> None:
    lists = [rng.integers(0, VOCABULARY, rng.integers(0, 4)).tolist() for _ in range(VOCABULARY)]
    model = Seq2Seq.from_folder(write_folder(tmp_path, lists=lists))
    assert model.shortlist is not None
    for source in sentences(rng, [5, 2, 9]):
        words = model.shortlist.words_for(np.array(source))
        listed = {0, 1, 2, 3, *source, *(word for each in source for word in lists[each])}
        assert listed <= set(words.tolist()) and words.size % 8 == 0
        extra = sorted(set(words.tolist()) - listed)
        assert extra == sorted(set(range(VOCABULARY)) - listed)[: len(extra)] and len(extra) < 8
        assert model.translate_tokens([source])[0] == oracle.translate(source, words)


def test_a_sentence_s_words_do_not_depend_on_its_neighbours(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    lists = [[int(word)] for word in rng.integers(0, VOCABULARY, VOCABULARY)]
    model = Seq2Seq.from_folder(write_folder(tmp_path, lists=lists, first=1))
    given = sentences(rng, [4, 1, 7, 2, 0, 6, 8, 3, 5, 3])
    alone = [model.translate_tokens([each])[0] for each in given]
    assert model.translate_tokens(given) == alone
    assert model.translate_tokens([given[0], given[2]]) == [alone[0], alone[2]]
    # A shortlist for all would say something else: or else this shows nothing.
    assert model.shortlist is not None
    every = model.shortlist.words_for(np.concatenate(given))
    joint = [Oracle(tensors()).translate(each, every) for each in given]
    assert joint != alone


def test_nothing_translates_to_nothing(model: Seq2Seq, rng: np.random.Generator) -> None:
    (other,) = sentences(rng, [3])
    (translated,) = model.translate_tokens([other])
    assert model.translate_tokens([[], other, []]) == [[], translated, []]
    assert model.translate_tokens([[], []]) == [[], []]
    texts = ["", "  ", "\n\t\n"]
    assert model.translate(texts) == texts


@pytest.mark.filterwarnings("ignore:a translation was cut")
def test_iterables_are_gone_through_once(model: Seq2Seq, rng: np.random.Generator) -> None:
    given = sentences(rng, [3, 5])
    expected = model.translate_tokens(given)
    assert model.translate_tokens(each for each in given) == expected
    assert model.translate_tokens(iter(each) for each in given) == expected
    assert model.translate_tokens(map(np.array, given)) == expected
    texts = ["a cab", "be", "a bad dab"]
    translated = model.translate(texts)
    assert len(set(translated)) > 1
    for once in (iter(texts), (text for text in texts), np.array(texts), tuple(texts)):
        assert model.translate(once) == translated


@pytest.mark.filterwarnings("ignore:a translation was cut")
def test_text_in_and_text_out(model: Seq2Seq, oracle: Oracle) -> None:
    ids = model.tokenizer.encode("a cab").ids
    words = oracle.translate([*ids, 0])
    expected = model.tokenizer.decode([word for word in words if word != 0])
    assert model.translate(["a cab", "a cab"]) == [expected, expected]
    assert model.translate([]) == []


@pytest.mark.filterwarnings("ignore:a translation was cut")
def test_a_text_is_translated_sentence_by_sentence(model: Seq2Seq) -> None:
    """And what stands between sentences stays."""
    parts = ["A cab.", "Be bad!", "Dad had a bed?", "1.", "a cab"]
    said = dict(zip(parts, model.translate(parts), strict=True))
    assert len(set(said.values())) > 2
    text = "  {}  {}\r\n\n\t{} {}\u2028{} \n"
    assert model.translate([text.format(*parts)]) == [text.format(*(said[each] for each in parts))]


@given(strategies.text(), strategies.sampled_from(["en", "pt", "ja", "zz"]))
def test_nothing_of_a_text_is_lost(text: str, language: str) -> None:
    split = Sentences.of(text, language)
    assert split.replaced(split.sentences) == text
    assert all(not gap.strip() for gap in split.gaps)
    assert all(each and each == each.strip() for each in split.sentences)
    assert not any(len(each.splitlines()) > 1 for each in split.sentences)


def test_sentences_end_by_the_rules_of_their_language() -> None:
    english = Sentences.of("Mr. Smith came, e.g. by car. He left at 3 p.m. on Monday! Why?", "en")
    assert english.sentences == [
        "Mr. Smith came, e.g. by car.", "He left at 3 p.m. on Monday!", "Why?"
    ]  # fmt: skip
    portuguese = Sentences.of("O Sr. João chegou. A Sra. Maria, não.", "pt")
    assert portuguese.sentences == ["O Sr. João chegou.", "A Sra. Maria, não."]
    assert portuguese.gaps == ["", " ", ""]


def test_the_library_that_finds_sentences_is_not_installed(
    model: Seq2Seq, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencex", None)
    with pytest.raises(ImportError, match=r"needs sentencex: pip install 'numattn\[models\]'"):
        model.translate(["a cab"])
    assert model.translate_tokens([[3, 0]])  # words need none


def test_the_language_of_a_model(folder: Path, model: Seq2Seq) -> None:
    assert language_of("model.pten.intgemm.alphas.bin") == "pt"
    assert language_of("model.enpt.intgemm.alphas.bin") == "en"
    assert language_of("tiny.bin") == model.language == "en"
    assert Seq2Seq.from_folder(folder, language="de").language == "de"


def test_a_translation_that_may_lack_something_is_said(
    model: Seq2Seq, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(text: str) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.translate([text])
        return [str(each.message) for each in caught]

    monkeypatch.setattr(model, "translate_tokens", lambda ids, **_: [[5, 0] for _ in ids])
    assert said("a " * 49) == []  # 98 words, for " " and "a" are two, and the end
    assert said("a " * 50) == [
        "a sentence has 101 words, and the model knows those of 100: parts of "
        f"'{'a ' * 19}a…' may be missing"
    ]
    monkeypatch.setattr(model, "translate_tokens", lambda ids, **_: [[5] * 7 for _ in ids])
    assert said("A b! A c") == [
        "a translation was cut after 7 words without an end: parts of 'A b!' may be missing",
        "a translation was cut after 7 words without an end: parts of 'A c' may be missing",
    ]


def test_weights_in_bfloat16(folder: Path, model: Seq2Seq, rng: np.random.Generator) -> None:
    """Each of some 20 products rounds its inputs by 2^-9 on average: √20·2^-9 = 0.9%."""
    half = Seq2Seq.from_folder(folder, dtype="bfloat16")
    ids = np.array(sentences(rng, [7]))
    single, rounded = (each.step(None, each.encode(ids, [8])) for each in (model, half))
    assert 1e-4 < np.linalg.norm(rounded - single) / np.linalg.norm(single) < 0.1


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "lengths", "error", "message"),
    [
        ([[0, 40]], [2], ValueError, "token_ids must be in 0 … 39, not 0 … 40"),
        ([[-1, 0]], [2], ValueError, "token_ids must be in 0 … 39, not -1 … 0"),
        ([1, 2], [2], ValueError, r"token_ids must be \(B, S\), not \(2,\)"),
        ([[], []], [0, 0], ValueError, r"token_ids must be \(B, S\) with S of 1 or more"),
        ([[1.0]], [1], TypeError, "token_ids must be integers, not float64"),
        ([[1, 2]], [3], ValueError, r"lengths must be in 0 … 2, not \[3\]"),
        ([[1, 2]], [1, 1], ValueError, r"lengths must be \(1,\), not \(2,\)"),
    ],
)
def test_bad_tokens(
    model: Seq2Seq, ids: Any, lengths: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        model.encode(ids, lengths)


@pytest.mark.parametrize(
    ("previous", "error", "message"),
    [
        ([0, 40], ValueError, "previous must be in 0 … 39, not 0 … 40"),
        ([-1, 3], ValueError, "previous must be in 0 … 39, not -1 … 3"),
        ([1], ValueError, r"previous must be \(2,\), not \(1,\)"),
        ([1.0, 2.0], TypeError, "previous must be integers, not float64"),
    ],
)
def test_a_bad_word_leaves_the_state_alone(
    model: Seq2Seq, previous: Any, error: type[Exception], message: str
) -> None:
    state, other = (model.encode([[1, 2], [3, 0]], [2, 1]) for _ in range(2))
    for each in (state, other):
        model.step(None, each)
    with pytest.raises(error, match=message):
        model.step(previous, state)
    words = np.array([5, 6])
    np.testing.assert_array_equal(model.step(words, state), model.step(words, other))


def test_bad_sentences(model: Seq2Seq) -> None:
    with pytest.raises(ValueError, match="tokens of sentence 1 must be in 0 … 39, not 2 … 40"):
        model.translate_tokens([[1, 0], [2, 40]])
    for sentence in ([1.5, 0.0], "ab", ["a"], [[1], [2, 3]], {1: 2}, None, [True]):
        with pytest.raises(TypeError, match="sentence 1 must be a sequence of integers, not "):
            model.translate_tokens([[1], sentence])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="sentence 0 is a number, 3: .*put a single one into a li"):
        model.translate_tokens([3, 4, 0])  # type: ignore[list-item]
    for whole in ("ab", {1: [2]}, {(1, 2)}, None, 5):
        with pytest.raises(TypeError, match="sentences must be a sequence or another iterable"):
            model.translate_tokens(whole)  # type: ignore[arg-type]


def test_bad_texts(model: Seq2Seq) -> None:
    with pytest.raises(TypeError, match="put a single one into a list"):
        model.translate("a cab")
    for texts in ({"a": 1}, {"a"}, 5, None, np.array([["a"]])):
        with pytest.raises(TypeError, match="texts must be a sequence or another iterable of str"):
            model.translate(texts)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="texts must be strings, not int"):
        model.translate([1])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="is not Unicode"):
        model.translate(["a\udc80"])
