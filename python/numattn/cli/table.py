"""A table of similarities for a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

# Of cosines, the narrowest.
COLUMN = 7


def similarity_table(texts: Sequence[str], similarity: NDArray[Any], width: int) -> str:
    """Return one row per text: its number, the text, and its similarity to each text.

    Texts are shortened to what `width` columns leave for them, but not below 20 columns.
    """
    numbers = range(1, len(texts) + 1)
    margin = len(str(len(texts)))
    shown = [" ".join(text.split()) or "(empty)" for text in texts]
    longest = max(columns(text) for text in shown)
    cells = [[f"{value:.3f}" for value in row] for row in similarity]
    column = max(COLUMN, *(len(cell) + 1 for row in cells for cell in row))
    label = min(longest, max(20, width - margin - 2 - column * len(texts)))
    lines = [" " * (margin + 2 + label) + "".join(f"{number:{column}}" for number in numbers)]
    for number, text, row in zip(numbers, shown, cells, strict=True):
        values = "".join(f"{value:>{column}}" for value in row)
        lines.append(f"{number:{margin}}  {fit(text, label)}{values}")
    return "\n".join(lines)


def columns(text: str) -> int:
    """Return the columns that a terminal gives to a text."""
    return sum(
        0 if unicodedata.combining(sign) else 1 + (unicodedata.east_asian_width(sign) in "WF")
        for sign in text
    )


def fit(text: str, width: int) -> str:
    """Return the text in exactly `width` columns, shortened or filled with spaces."""
    if columns(text) > width:
        while columns(text) > width - 1:
            text = text[:-1]
        text += "…"
    return text + " " * (width - columns(text))
