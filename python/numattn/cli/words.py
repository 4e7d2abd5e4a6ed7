"""The words of a sentence, and the tokens that each is made of.

A word is found by what a reader sees: however its accents are composed, and whatever invisible
signs stand in it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from tokenizers import Encoding

Span: TypeAlias = tuple[int, int]
"""Where something stands in a sentence: its first character, and the one after its last."""

# What joins two letters to one word, however many tokens that becomes: "didn't", "well-known", and
# Hebrew's geresh, gershayim and maqaf.
JOINERS = frozenset("'’-‐‑·׳״־")
# Soft hyphen, the two joiners of Persian and Indic scripts, word joiner, and its older form: they
# stand inside words and are not seen.
INVISIBLE = frozenset("\u00ad\u200c\u200d\u2060\ufeff")
# Scripts without spaces between words, by how the names of their characters begin.
UNSPACED = ("THAI", "LAO", "KHMER", "MYANMAR", "HIRAGANA", "KATAKANA")


@dataclass(frozen=True)
class Word:
    """A word of the sentence; or a sign or a special token, for which `is_word` is False."""

    text: str
    tokens: tuple[int, ...]
    """The indices of its tokens."""
    span: Span
    """Where it stands in the sentence; empty for a special token."""
    is_word: bool


class Found(NamedTuple):
    """Where a word stands, and what the one who asked for it should know; "" for nothing."""

    span: Span
    note: str


def word_spans(sentence: str) -> list[Span]:
    """Return where the words of a sentence stand, in order.

    An ideograph is a word of its own, as BERT's tokenizers have it. Combining marks belong to the
    letter before them.
    """
    spans: list[Span] = []
    for place, sign in enumerate(sentence):
        goes_on = bool(spans) and spans[-1][1] == place
        after_ideograph = goes_on and is_ideograph(sentence[spans[-1][0]])
        following = sentence[place + 1 : place + 2]
        if is_ideograph(sign):
            joins = False
        elif is_letter(sign):
            joins = goes_on and not after_ideograph
        elif is_carried(sign):
            joins = goes_on
            if not joins:
                continue
        else:
            joins = goes_on and not after_ideograph and sign in JOINERS and is_letter(following)
            if not joins:
                continue
        if joins:
            spans[-1] = (spans[-1][0], place + 1)
        else:
            spans.append((place, place + 1))
    return spans


def is_ideograph(sign: str) -> bool:
    """Return whether a character is one of Chinese writing."""
    return (
        "\u3400" <= sign <= "\u9fff" or "\uf900" <= sign <= "\ufaff" or sign >= "\U00020000"
    ) and sign.isalpha()


def is_letter(sign: str) -> bool:
    """Return whether a character can begin a word and is no ideograph."""
    return (sign.isalnum() or sign == "_") and not is_ideograph(sign)


def is_carried(sign: str) -> bool:
    """Return whether a character belongs to the one before it."""
    return unicodedata.category(sign)[0] == "M" or sign in INVISIBLE


def find_word(sentence: str, spans: Sequence[Span], wanted: str, nth: int = 1) -> Found:
    """Return the nth place that is spelled like `wanted`, or else is so but for upper case.

    `wanted` may be several words that follow one another ("New York"; two ideographs), and in a
    script without spaces a part of what stands between two spaces.

    Raises
    ------
    ValueError
        If there is none; the message lists the words.
    """
    places = places_like(sentence, spans, wanted)
    exact = [span for span in places if same_letters(sentence[slice(*span)], wanted)]
    others = [span for span in places if span not in exact]
    same = exact or others
    if not same:
        listed = listing(sentence, spans) or "none"
        raise ValueError(f"{wanted!r} is no word of the sentence; its words are: {listed}")
    if nth > len(same):
        besides = f" (and as {listing(sentence, others)})" if exact and others else ""
        raise ValueError(f"the sentence has {wanted!r} {len(same)} times{besides}, not {nth}")
    note = ""
    if not exact:
        note = f"{wanted!r} is not there as spelled; taken for {sentence[slice(*same[nth - 1])]!r}"
    elif others:
        note = f"{wanted!r} is taken as spelled; there is also {listing(sentence, others)}"
    return Found(same[nth - 1], note)


def listing(sentence: str, spans: Iterable[Span]) -> str:
    """Return what stands at some places, each text once."""
    return ", ".join(dict.fromkeys(sentence[slice(*span)] for span in spans))


def places_like(sentence: str, spans: Sequence[Span], wanted: str) -> list[Span]:
    """Return the places that are spelled like `wanted` but for upper case."""
    count = max(len(word_spans(wanted)), 1)
    runs = [
        (first[0], last[1])
        for first, last in zip(spans, spans[count - 1 :], strict=False)
        if same_letters(sentence[first[0] : last[1]], wanted, fold=True)
    ]
    if runs or not is_unspaced(wanted):
        return runs
    parts: list[Span] = []
    for start, end in spans:
        edges = [i for i in range(start, end) if not is_carried(sentence[i])] + [end]
        for index, first in enumerate(edges):
            if parts and first < parts[-1][1]:
                continue
            for last in edges[index + 1 :]:
                if same_letters(sentence[first:last], wanted, fold=True):
                    parts.append((first, last))
                    break
    return parts


def is_unspaced(text: str) -> bool:
    """Return whether a text is of a script that has no spaces between its words."""
    names = [unicodedata.name(sign, "") for sign in text if not is_carried(sign)]
    return bool(names) and all(name.startswith(UNSPACED) for name in names)


def same_letters(text: str, wanted: str, fold: bool = False) -> bool:
    """Return whether two texts look the same; with `fold`, but for upper case and spaces."""
    return visible(text, fold) == visible(wanted, fold)


def visible(text: str, fold: bool) -> str:
    """Return a text's visible characters, accents composed, spaces alike."""
    shown = "".join(sign for sign in " ".join(text.split()) if sign not in INVISIBLE)
    return unicodedata.normalize("NFC", shown.casefold() if fold else shown)


def with_places(spans: Iterable[Span], chosen: Collection[Span]) -> list[Span]:
    """Return the spans of words, with those chosen among them in place of what they are made of."""
    result = list(chosen)
    for start, end in spans:
        cuts = sorted(place for place in chosen if place[0] < end and start < place[1])
        for first, last in cuts:
            if start < first:
                result.append((start, first))
            start = max(start, last)
        if start < end:
            result.append((start, end))
    return sorted(result)


def split_words(sentence: str, spans: Sequence[Span], encoding: Encoding) -> list[Word]:
    """Return the words, signs and special tokens of a sentence, in order; each token is in one.

    A word that truncation left without a token is left out.
    """
    parts: list[Word] = []
    for index, (start, end) in enumerate(encoding.offsets):
        span = next((span for span in spans if span[0] < end and start < span[1]), None)
        if span is None or encoding.special_tokens_mask[index]:
            parts.append(Word(encoding.tokens[index], (index,), (start, end), False))
        elif parts and parts[-1].is_word and parts[-1].span == span:
            parts[-1] = Word(parts[-1].text, (*parts[-1].tokens, index), span, True)
        else:
            parts.append(Word(sentence[slice(*span)], (index,), span, True))
    return parts
