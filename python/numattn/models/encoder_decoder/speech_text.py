"""The texts of a Whisper's tokenizer, and which of their tokens make a word.

Words are what OpenAI's code and transformers' pipeline make of tokens: what begins with a space, or
is a mark; marks then go to the word that they belong to.
"""

from __future__ import annotations

import string
from typing import Any, NamedTuple

from .text_tokens import JsonTokens, TextTokens

UNFINISHED = "\ufffd"  # what a character reads as of which tokens are missing
OPENING, CLOSING = "\"'“¡¿([{-", "\"'.。,，!！?？:：”)]}、"


class Span(NamedTuple):
    """A part of a text, and which of its tokens that is."""

    text: str
    begin: int
    end: int


class SpeechText(TextTokens):
    """The tokenizer of a folder, which is a tokenizer.json."""

    def plain(self, text: str) -> list[int]:
        """Return a text's ids, without those that the tokenizer adds."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def token(self, name: str) -> int | None:
        """Return the id of a token by its name, or None."""
        found: int | None = self._tokenizer.token_to_id(name)
        return found

    @property
    def _tokenizer(self) -> Any:
        codec = self.codec
        if not isinstance(codec, JsonTokens):
            raise FileNotFoundError(f"no tokenizer.json in {self.folder}")
        return codec.tokenizer

    def words(self, tokens: list[int], spaced: bool) -> list[Span]:
        """Return the words of a text's tokens; without spaces between words, its characters."""
        spans = self._characters(tokens)
        return with_marks(between_spaces(spans) if spaced else spans)

    def _characters(self, tokens: list[int]) -> list[Span]:
        """Return the tokens that end a character, each with those before it that begin it."""
        whole, spans, begin, size = self.decode(tokens), [], 0, 0
        for end in range(1, len(tokens) + 1):
            text = self.decode(tokens[begin:end])
            place = size + text.find(UNFINISHED)
            # What cannot be read in the whole text, either, is no character to wait for.
            if UNFINISHED not in text or place >= len(whole) or whole[place] == UNFINISHED:
                spans.append(Span(text, begin, end))
                begin, size = end, size + len(text)
        return spans


def between_spaces(spans: list[Span]) -> list[Span]:
    """Return parts joined to words, each of which begins with a space, or is a mark."""
    words: list[Span] = []
    for span in spans:
        mark = span.text.strip() in string.punctuation
        if words and not mark and not span.text.startswith(" "):
            words[-1] = joined(words[-1], span)
        else:
            words.append(span)
    return words


def with_marks(words: list[Span]) -> list[Span]:
    """Return words, each with the marks that open it and those that close it."""
    opened: list[Span] = []
    for word in reversed(words):
        if opened and word.text.startswith(" ") and word.text.strip() in OPENING:
            opened[-1] = joined(word, opened[-1])
        else:
            opened.append(word)
    closed: list[Span] = []
    for word in reversed(opened):
        if closed and not closed[-1].text.endswith(" ") and word.text in CLOSING:
            closed[-1] = joined(closed[-1], word)
        else:
            closed.append(word)
    return closed


def joined(first: Span, second: Span) -> Span:
    """Return two parts, one after the other, as one."""
    return Span(first.text + second.text, first.begin, second.end)
