"""The words of a sentence, and the tokens that each is made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Encoding

# An ideograph is a word of its own, as BERT's tokenizers have it. "didn't" and "well-known" are one
# word, however many tokens they become.
IDEOGRAPH = r"\u3400-\u9fff\uf900-\ufaff"
LETTER = rf"[^\W{IDEOGRAPH}]"
WORD = re.compile(rf"{LETTER}+(?:['’-]{LETTER}+)*|[{IDEOGRAPH}]")


@dataclass(frozen=True)
class Word:
    """A word of the sentence; or a sign or a special token, for which `is_word` is False."""

    text: str
    tokens: tuple[int, ...]
    """The indices of its tokens."""
    span: tuple[int, int]
    """Where it stands in the sentence; empty for a special token."""
    is_word: bool


def split_words(sentence: str, encoding: Encoding) -> list[Word]:
    """Return the words, signs and special tokens of a sentence, in order; each token is in one.

    A word that truncation left without a token is left out.
    """
    spans = [match.span() for match in WORD.finditer(sentence)]
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


def find_word(parts: Sequence[Word], wanted: str, nth: int = 1) -> Word:
    """Return the nth word that is spelled like `wanted`, or else is so but for upper case.

    Raises
    ------
    ValueError
        If there is none; the message lists the words.
    """
    words = [part for part in parts if part.is_word]
    same = [word for word in words if word.text == wanted]
    same = same or [word for word in words if word.text.casefold() == wanted.casefold()]
    if not same:
        listed = ", ".join(dict.fromkeys(word.text for word in words)) or "none"
        raise ValueError(f"{wanted!r} is no word of the sentence; its words are: {listed}")
    if nth > len(same):
        raise ValueError(f"the sentence has {wanted!r} {len(same)} times, not {nth}")
    return same[nth - 1]
