"""What clients give to be read: a text, several, token ids, or several lists of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import invalid
from .fields import shown

MOST_TEXTS = 2048  # as OpenAI's own service has it


def texts_or_ids(name: str, value: Any) -> list[str] | list[list[int]]:
    """Return texts, or lists of token ids, of which a client gave one or several.

    Raises
    ------
    ApiError
        It is something else, empty, or too many.
    """
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(type(each) is int for each in value):
            return [value]
        if len(value) > MOST_TEXTS:
            raise invalid(f"{name} must have at most {MOST_TEXTS} entries, not {len(value)}", name)
        if all(isinstance(each, str) for each in value):
            return value
        if all(is_ids(each) for each in value):
            return value
    raise invalid(
        f"{name} must be a string, a list of strings, a list of token ids or a list of such lists, "
        f"none of them empty, not {shown(value)}",
        name,
    )


def is_ids(value: Any) -> bool:
    """Return whether a value is a list of one whole number or more."""
    return isinstance(value, list) and len(value) > 0 and all(type(each) is int for each in value)


def checked_ids(name: str, ids: list[int], vocab_size: int) -> NDArray[np.int64]:
    """Return ids as an array, or raise ApiError."""
    wrong = next((each for each in ids if not 0 <= each < vocab_size), None)
    if wrong is not None:
        raise invalid(f"{name} holds the token {wrong}; they are 0 … {vocab_size - 1}", name)
    return np.array(ids, dtype=np.int64)


def checked_texts(name: str, texts: list[str]) -> None:
    """Raise ApiError for a text with a lone surrogate, which is no Unicode."""
    for number, text in enumerate(texts):
        if not text.isascii():
            try:
                text.encode("utf-8")
            except UnicodeEncodeError:
                raise invalid(f"text {number} of {name} is not Unicode", name) from None
