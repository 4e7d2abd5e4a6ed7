"""What is said in some sound, and when."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A word, with the space and the marks that stand by it."""

    text: str
    start: float
    """Seconds."""
    end: float


@dataclass(frozen=True)
class Segment:
    """What is said from one time to another."""

    start: float
    """Seconds."""
    end: float
    text: str
    tokens: list[int]
    words: list[Word] | None = None
    """Where words are asked for."""


@dataclass(frozen=True)
class Transcript:
    """What is said in some sound."""

    text: str
    segments: list[Segment]
    language: str | None
    """The code of what is spoken, or what it is taken for; None in a model of one language."""
