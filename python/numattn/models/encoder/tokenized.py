"""Texts as a tokenizer leaves them: token ids, and which texts were cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arrays import Int64Array

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

# What the library makes of a text takes kilobytes, so it is asked for a few texts at a time: enough
# to keep its threads busy, and no more characters than this unless one text has them. `encode`
# computes the first of them before the next are read.
PIECE_TEXTS = 256
PIECE_CHARACTERS = 1 << 18
# Of a text that has many more characters than can count, the part that counts is enough: what
# comes this many tokens away from it does not change it.
LONG_TEXT = 1 << 16
MARGIN = 64
SPACE = re.compile(r"(?<=\S)\s")


class Tokenized(NamedTuple):
    """Token ids of n texts."""

    ids: list[NDArray[np.int32]]
    """For each text, the ids that count, special tokens included."""
    truncated: NDArray[np.bool_]
    """(n,): whether the text has more tokens than count."""

    @property
    def lengths(self) -> Int64Array:
        """Return how many ids each text has (n,)."""
        return np.array([len(ids) for ids in self.ids], dtype=np.int64)

    @property
    def num_truncated(self) -> int:
        """Return how many texts were cut."""
        return int(np.count_nonzero(self.truncated))


def tokenized(tokenizer: Tokenizer, texts: Iterable[str]) -> Tokenized:
    """Return what a tokenizer makes of texts. It may pad them; padding does not count."""
    ids: list[NDArray[np.int32]] = []
    truncated: list[NDArray[np.bool_]] = [np.empty(0, dtype=bool)]
    for piece in pieces(texts):
        tokens = tokenized_piece(tokenizer, piece)
        ids += tokens.ids
        truncated.append(tokens.truncated)
    return Tokenized(ids, np.concatenate(truncated))


def tokenized_piece(tokenizer: Tokenizer, piece: list[str]) -> Tokenized:
    """Return what a tokenizer makes of a few texts, with the interpreter's lock mostly let go."""
    encodings = encoded(tokenizer, [shortened(tokenizer, text) for text in piece])
    ids = []
    for encoding in encodings:
        own = np.array(encoding.ids, dtype=np.int32)
        if tokenizer.padding is not None:
            own = own[np.array(encoding.attention_mask, dtype=bool)]
        ids.append(own)
    return Tokenized(ids, np.array([bool(each.overflowing) for each in encodings], dtype=bool))


def encoded(
    tokenizer: Tokenizer, texts: Sequence[str | tuple[str, str]], special: bool = True
) -> list[Encoding]:
    """Return the library's own results for texts, or pairs of them.

    Its function for a single text would hold the interpreter's lock all the while.
    """
    try:
        return tokenizer.encode_batch([*texts], add_special_tokens=special)
    except Exception as error:
        if type(error) is not Exception:  # the library's own is of no narrower class
            raise
        raise ValueError(f"the tokenizer fails on a text: {error}") from None


def shortened(tokenizer: Tokenizer, text: str) -> str:
    """Return a text, or as much of it as all tokens that count are made of.

    That is its beginning, or its end where the tokenizer cuts on the left. The place is one where
    white space begins after something else. There tokens end, and the white space stays with what
    follows, since a tokenizer may make it part of that; and MARGIN tokens more than count are
    kept, so that whatever it makes of the place is cut off. Of a text without white space nothing
    is left out.
    """
    truncation = tokenizer.truncation
    size = LONG_TEXT
    if truncation is None:
        return text
    from_left = truncation["direction"] == "left"
    wanted = truncation["max_length"] + MARGIN
    while size < len(text):
        part = end_of(text, size) if from_left else beginning_of(text, size)
        if part is not None:
            (encoding,) = encoded(tokenizer, [part], special=False)
            if len(encoding.ids) + sum(len(more.ids) for more in encoding.overflowing) >= wanted:
                return part
        size *= 2
    return text


def beginning_of(text: str, size: int) -> str | None:
    """Return as much of a text's first characters as ends where white space begins.

    At most `size` of them, and at least half as many; None if there is no such place.
    """
    spaces = [match.start() for match in SPACE.finditer(text, size // 2, size)]
    return text[: spaces[-1]] if spaces else None


def end_of(text: str, size: int) -> str | None:
    """Return as much of a text's last characters as begins with white space, likewise."""
    first = len(text) - size
    space = SPACE.search(text, first, first + size // 2)
    return None if space is None else text[space.start() :]


def pieces(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield texts in lists, each of few texts and few characters."""
    piece: list[str] = []
    size = 0
    for text in texts:
        if piece and (len(piece) == PIECE_TEXTS or size + len(text) > PIECE_CHARACTERS):
            yield piece
            piece, size = [], 0
        piece.append(text)
        size += len(text)
    if piece:
        yield piece
