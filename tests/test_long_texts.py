"""Of a long text a part is tokenised, whichever side is cut, and its tokens are those of all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from numattn.models import Bert
from numattn.models.encoder import tokenized
from tiny_bert import write_folder

WORDS = (
    "the cat sat on a mat, unbelievable! über Straße naïve ΟΔΟΣ 東京 3.14 don't x-y_z <mask> [SEP] "
    "foo bar"
).split()
# The library does not take all of them for white space.
SPACES = (" ", "  ", "\n", "\t ", "\r\n", " \u00a0", "\u3000", " \u200b")


def written(rng: np.random.Generator, count: int) -> str:
    """Return a text of so many words; a third of what stands between them is odd."""
    parts = []
    for word in rng.choice(WORDS, count):
        parts += [word, rng.choice(SPACES) if rng.random() < 0.3 else " "]
    return "".join(parts)


def trained(tokenizer: Tokenizer, trainer: Any, first: str, last: str) -> Tokenizer:
    """Return a tokenizer that has seen WORDS and puts two tokens around a text."""
    text = written(np.random.default_rng(0), 300)
    tokenizer.train_from_iterator([text], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)],
    )
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])  # takes the space before it
    return tokenizer


def wordpiece() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    return trained(made, trainer, "[CLS]", "[SEP]")


def byte_level(prefix: bool) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    return trained(made, trainer, "<s>", "</s>")


def unigram(split: bool, prepend: str) -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace(split=split, prepend_scheme=prepend)
    trainer = trainers.UnigramTrainer(
        vocab_size=150,
        special_tokens=["<s>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    return trained(made, trainer, "<s>", "</s>")


TOKENIZERS = {
    "wordpiece": wordpiece,
    "bytes": lambda: byte_level(False),
    "bytes, prefixed": lambda: byte_level(True),
    "unigram": lambda: unigram(True, "always"),
    "unigram, first": lambda: unigram(True, "first"),
    "unigram, whole": lambda: unigram(False, "always"),
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Iterator[Tokenizer]:
    yield TOKENIZERS[request.param]()


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_tokens_are_those_of_the_whole_text(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, tokenizer: Tokenizer, side: str
) -> None:
    monkeypatch.setattr(tokenized, "LONG_TEXT", 256)
    for size in (8, 16, 33):
        tokenizer.enable_truncation(size, direction=side)
        for _ in range(40):
            text = written(rng, int(rng.integers(300, 600)))
            part = tokenized.shortened(tokenizer, text)
            assert len(part) < len(text)
            assert part in text
            got, whole = tokenizer.encode(part), tokenizer.encode(text)
            assert got.ids == whole.ids
            assert bool(got.overflowing) and bool(whole.overflowing)


@pytest.fixture(scope="module", params=["left", "right"])
def cutting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bert:
    folder = tmp_path_factory.mktemp("cutting")
    return Bert.from_folder(
        write_folder(folder, tokenizer_config={"truncation_side": request.param})
    )


@pytest.mark.parametrize(
    "text", ["cat sat , " * 20_000 + "dog", "un believable\t" * 9000, "dog\u3000ran on\n" * 200_000]
)
def test_a_long_text_is_read_no_further_than_it_counts(cutting: Bert, text: str) -> None:
    assert len(tokenized.shortened(cutting.tokenizer, text)) <= tokenized.LONG_TEXT
    whole = cutting.tokenizer.encode(text)
    tokens = cutting.tokenize([text])
    assert tokens.ids[0].tolist() == whole.ids
    assert tokens.truncated.tolist() == [True]


def test_of_a_text_without_white_space_nothing_is_left_out(cutting: Bert) -> None:
    text = "cat" * 50_000
    assert tokenized.shortened(cutting.tokenizer, text) == text


def test_tokens_that_stand_far_apart(cutting: Bert) -> None:
    """White space is no token: those that count are found over more than one doubling."""
    for gap in (30_000, 70_000):
        text = (" " * gap).join(["the cat", "sat on", "the mat .", *["dog"] * 30])
        whole = cutting.tokenizer.encode(text)
        assert cutting.tokenize([text]).ids[0].tolist() == whole.ids


def test_a_text_as_long_as_a_part(cutting: Bert) -> None:
    for size in range(tokenized.LONG_TEXT - 2, tokenized.LONG_TEXT + 3):
        text = ("cat dog sat " * (size // 12 + 1))[:size]
        assert cutting.tokenize([text]).ids[0].tolist() == cutting.tokenizer.encode(text).ids


def test_what_counts_is_the_end(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, tokenizer_config={"truncation_side": "left"})
    model = Bert.from_folder(folder)
    end = "the cat sat on the mat"
    long, short = (model.tokenize(["dog " * count + end]).ids for count in (100_000, 40))
    np.testing.assert_array_equal(model.encode_tokens(long), model.encode_tokens(short))
    assert model.tokenizer.decode(long[0].tolist()).endswith(end)
