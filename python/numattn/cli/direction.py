"""The direction in which words are read, and their order on a line of both directions."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

# Invisible; a text that begins with it runs from left to right.
LEFT_TO_RIGHT = "\u200e"


def first_strong(text: str) -> str:
    """Return the direction of a text's first letter, "L" or "R"; "" if it has none."""
    for sign in text:
        kind = unicodedata.bidirectional(sign)
        if kind == "L":
            return "L"
        if kind in ("R", "AL"):
            return "R"
    return ""


def direction(text: str) -> str:
    """Return the direction of a word: that of its first letter, or of its digits."""
    digits = any(unicodedata.bidirectional(sign) in ("EN", "AN") for sign in text)
    return first_strong(text) or ("L" if digits else "")


def needs_shaping(sign: str) -> bool:
    """Return whether a letter is not simply drawn to the right of the one before it."""
    return first_strong(sign) == "R" or unicodedata.category(sign) == "Mc"


def visual_order(texts: Sequence[str], base: str) -> list[int]:
    """Return the indices of texts as they stand from left to right on one line.

    The line runs in the direction `base`; texts of the other direction, and what stands between two
    of them, keep their own (Unicode's rules N1, N2 and L2 for two levels).
    """
    directions = [direction(text) for text in texts]
    order: list[int] = []
    while len(order) < len(texts):
        start = len(order)
        against = directions[start] not in ("", base)
        # Such a run is turned with the line, if that is, and once more by itself.
        end = run_end(directions, start, base) if against else start + 1
        order.extend(reversed(range(start, end)))
    return order if base == "L" else order[::-1]


def run_end(directions: Sequence[str], start: int, base: str) -> int:
    """Return the index after the last text of a run against the direction `base`."""
    end = start + 1
    for index in range(start, len(directions)):
        if directions[index] == base:
            break
        if directions[index]:
            end = index + 1
    return end
