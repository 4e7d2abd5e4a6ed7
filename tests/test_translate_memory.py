"""What `Seq2Seq.translate` keeps: the translations, and of what it works on one text at a time."""

from __future__ import annotations

import sys
import tracemalloc
import warnings
from collections.abc import Callable

import pytest

from numattn.models import Seq2Seq
from tiny_marian import write_folder

SLOT = 9  # bytes of a list for one of its entries: it has an eighth more of them than it needs
FIXED = 4096  # whatever the number of texts


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Seq2Seq:
    model = Seq2Seq.from_folder(write_folder(tmp_path_factory.mktemp("marian")))
    traced(lambda: model.translate(["a b."]))  # what is allocated once for all
    return model


def traced(work: Callable[[], list[str]]) -> tuple[list[str], int, int]:
    """Return what a call returns, and the bytes that are kept after it and at most during it.

    Of three calls the least: what other tests have left in the process may allocate beside it.
    """
    runs = [traced_once(work) for _ in range(3)]
    assert all(result == runs[0][0] for result, _, _ in runs)
    return runs[0][0], min(kept for _, kept, _ in runs), min(most for _, _, most in runs)


def traced_once(work: Callable[[], list[str]]) -> tuple[list[str], int, int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a tiny model's translations end at their limit
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            result = work()
            kept, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    return result, kept - before, most - before


def sizes(texts: list[str]) -> int:
    return sum(map(sys.getsizeof, texts))


def test_many_texts_take_what_their_translations_do(
    tiny: Seq2Seq, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither sentences nor words of a text that is done are kept, nor those of texts to come."""
    monkeypatch.setattr(tiny, "_translated", lambda sentence, num_threads: (sentence[::-1], None))
    count = 5000
    texts = [f"The cat {index} sat. It ran." for index in range(count)]
    result, kept, most = traced(lambda: tiny.translate(texts))
    assert len(result) == count
    assert kept <= sizes(result) + count * SLOT + FIXED
    # The list of the texts themselves, and that of the results once more while it grows.
    assert most <= sizes(result) + 3 * count * SLOT + FIXED


@pytest.mark.parametrize("sentence", ["The cat sat. ", "We went to the market for some fish. "])
def test_a_text_of_many_sentences(
    tiny: Seq2Seq, monkeypatch: pytest.MonkeyPatch, sentence: str
) -> None:
    """Each is there twice, as the splitter's and as ours, beside its translation."""
    monkeypatch.setattr(tiny, "_translated", lambda sentence, num_threads: (sentence[::-1], None))
    _, few_kept, few_most = traced(lambda: tiny.translate([sentence * 1000]))
    result, kept, most = traced(lambda: tiny.translate([sentence * 3000]))
    assert result == [(sentence[-2::-1] + " ") * 3000]
    assert kept - few_kept <= 2000 * len(sentence) + 64
    each = 3 * sys.getsizeof(sentence) + 2 * len(sentence) + 6 * SLOT
    assert (most - few_most) / 2000 <= each


@pytest.mark.slow
def test_texts_through_the_model(tiny: Seq2Seq) -> None:
    _, _, few = traced(lambda: tiny.translate(["a b."] * 20))
    result, kept, many = traced(lambda: tiny.translate(["a b."] * 60))
    assert kept <= sizes(result) + 60 * SLOT + FIXED
    assert many - few <= sizes(result[20:]) + 40 * 3 * SLOT + 512


@pytest.mark.slow
def test_a_long_sentence(tiny: Seq2Seq) -> None:
    """In step with its words: nothing is kept of each step, and nothing is of the size S × S."""
    sentence = "abcdefghij "
    _, kept, short = traced(lambda: tiny.translate([sentence * 8]))
    result, _, long = traced(lambda: tiny.translate([sentence * 24]))
    assert kept < 8192
    assert 1.5 * short < long <= 3 * short
    assert len(result[0]) > 0
