"""The words of a sentence as `numattn attend` finds them, in any script."""

from __future__ import annotations

import pytest

from numattn.cli.words import find_word, split_words, with_places, word_spans
from numattn.models import Bert


def words_of(sentence: str) -> list[str]:
    return [sentence[slice(*span)] for span in word_spans(sentence)]


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("It wasn't un-believable, 東京 dog's", "It|wasn't|un-believable|東|京|dog's"),
        ("", ""),
        ("… 'a' -b- c--d", "a|b|c|d"),
        ("snake_case 3rd 10", "snake_case|3rd|10"),
        ("cafe\u0301 noir, na\u0131\u0308ve", "cafe\u0301|noir|na\u0131\u0308ve"),
        ("यह हिन्दी भाषा है।", "यह|हिन्दी|भाषा|है"),
        ("שָׁלוֹם עֲלֵיכֶם, צה״ל בית־ספר", "שָׁלוֹם|עֲלֵיכֶם|צה״ל|בית־ספר"),
        ("ภาษาไทย ดีมาก", "ภาษาไทย|ดีมาก"),
        ("من می\u200cخواهم", "من|می\u200cخواهم"),
        ("co\u00adoperate", "co\u00adoperate"),
        ("\u0301a", "a"),  # a mark without a letter before it
        ("タワー東京タ", "タワー|東|京|タ"),
        (
            "葛\U000e0100飾 \U00020000",
            "葛\U000e0100|飾|\U00020000",
        ),  # a form of the first is chosen
    ],
)
def test_words(sentence: str, words: str) -> None:
    assert words_of(sentence) == (words.split("|") if words else [])


def test_words_and_their_tokens(bert: Bert) -> None:
    sentence = "It wasn't un-believable, 東京 dog's"
    encoding = bert.tokenizer.encode(sentence)
    parts = split_words(sentence, word_spans(sentence), encoding)
    words = [part.text for part in parts if part.is_word]
    assert words == ["It", "wasn't", "un-believable", "東", "京", "dog's"]
    assert [part.text for part in parts if not part.is_word] == ["[CLS]", ",", "[SEP]"]
    together = [index for part in parts for index in part.tokens]
    assert together == list(range(len(encoding.tokens)))
    for part in parts:
        if part.is_word:
            assert sentence[slice(*part.span)] == part.text


def places(sentence: str, wanted: str) -> list[tuple[int, int]]:
    """Return where each of the equal words stands."""
    found = []
    while True:
        try:
            span = find_word(sentence, word_spans(sentence), wanted, len(found) + 1).span
        except ValueError:
            return found
        found.append(span)


def test_a_word_is_found_as_it_is_spelled_or_else_without_case() -> None:
    sentence = "The cat, the dog"
    assert places(sentence, "the") == [(9, 12)]
    assert places(sentence, "The") == [(0, 3)]
    assert places(sentence, "THE") == [(0, 3), (9, 12)]
    with pytest.raises(ValueError, match="its words are: The, cat, the, dog"):
        find_word(sentence, word_spans(sentence), ",")
    with pytest.raises(ValueError, match=r"has 'the' 1 times \(and as The\), not 2"):
        find_word(sentence, word_spans(sentence), "the", 2)


@pytest.mark.parametrize(
    ("sentence", "wanted", "found"),
    [
        ("un caf\u00e9 noir", "cafe\u0301", [(3, 7)]),
        ("un cafe\u0301 noir", "caf\u00e9", [(3, 8)]),
        ("un cafe\u0301 noir", "cafe", []),
        # Two marks on one letter, in either order.
        ("a\u0323\u0302 b", "a\u0302\u0323", [(0, 3)]),
        ("co\u00adoperate", "cooperate", [(0, 10)]),
        ("cooperate", "co\u00adoperate", [(0, 9)]),
        ("می\u200cخواهم", "میخواهم", [(0, 8)]),
        ("STRASSE straße", "Straße", [(0, 7), (8, 14)]),
        ("New York is not New, York", "new  york", [(0, 8)]),
        ("去北京和北京", "北京", [(1, 3), (4, 6)]),
        ("ภาษาไทย", "ไทย", [(4, 7)]),
        ("ภาษาไทย", "ภาษาไทย", [(0, 7)]),
        ("กี กี่", "กี", [(0, 2)]),  # not a part of what a mark makes another letter
        ("東京タワー", "タワ", [(2, 4)]),
        ("catalogue", "cat", []),
        ("catalogue", "", []),
    ],
)
def test_a_word_is_what_a_reader_sees(
    sentence: str, wanted: str, found: list[tuple[int, int]]
) -> None:
    assert places(sentence, wanted) == found


def test_what_is_chosen_stands_in_place_of_what_it_is_made_of() -> None:
    assert with_places([(0, 1), (1, 2), (3, 5)], [(0, 2)]) == [(0, 2), (3, 5)]
    assert with_places([(0, 7)], [(2, 4)]) == [(0, 2), (2, 4), (4, 7)]
    assert with_places([(0, 7)], [(4, 7), (0, 2)]) == [(0, 2), (2, 4), (4, 7)]
    assert with_places([(0, 3), (4, 6), (7, 8)], [(4, 8)]) == [(0, 3), (4, 8)]
