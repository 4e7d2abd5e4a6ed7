"""Texts as callers give them: any iterable of strings, taken once and in its order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import TypeVar

T = TypeVar("T")


def in_order(name: str, values: Iterable[T], what: str) -> Iterator[T]:
    """Return an iterator over values that have an order; raise TypeError for what has none.

    A list, a one-dimensional array, a series of a table, a file and a generator have one. A string,
    a mapping (whose keys would be taken), a set and a table (whose column names would be taken)
    are no sequence of anything that is meant.

    Raises
    ------
    TypeError
        The message names the argument, what it should hold and the type that it has.
    """
    wanted = f"{name} must be a sequence or another iterable of {what}"
    if isinstance(values, (str, bytes, bytearray)):
        raise TypeError(f"{wanted}; put a single one into a list")
    if isinstance(values, (Mapping, Set)) or not isinstance(values, Iterable):
        raise TypeError(f"{wanted}, not a {type(values).__name__}")
    dimensions = getattr(values, "ndim", 1)
    if dimensions != 1:
        raise TypeError(f"{wanted}, not a {type(values).__name__} of {dimensions} dimensions")
    return iter(values)


def each_text(texts: Iterable[str], name: str = "texts") -> Iterator[str]:
    """Return an iterator over texts, each of which is checked when its turn comes.

    Raises
    ------
    TypeError
        At once, if texts is a string or has no order; then, if one is no string.
    ValueError
        If a text is not Unicode.
    """
    return map(check_text, in_order(name, texts, "strings"))


def check_text(text: str) -> str:
    """Return a text; raise TypeError for what is no string, ValueError for what is not Unicode.

    A string may hold half of a surrogate pair, as an argument of the command line does whose bytes
    are not UTF-8; the tokenizer would refuse it without saying why.
    """
    if not isinstance(text, str):
        raise TypeError(f"texts must be strings, not {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"the text {text!r} is not Unicode: {error.reason}") from None
    return str(text)
