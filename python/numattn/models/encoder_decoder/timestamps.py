"""Times in a transcript: which tokens may be one, and what lies between them.

The tokens from `first` on are times in steps of 0.02 s from the beginning of a window. They come in
pairs, around what is said, and never fall. (Radford et al., "Robust Speech Recognition via
Large-Scale Weak Supervision", 2023, whose rules these are.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import Int64Array
from ..beams import log_softmax
from .token_rules import NEVER, Scores

SECONDS = 0.02  # of a step between times


@dataclass(frozen=True)
class TimestampRule:
    """What times let come next."""

    first: int
    """The token of time 0; the one before it says that there are no times."""
    end: int
    """The token that ends a text; below it are words."""
    prompt_size: int
    latest_start: int | None
    """The last step at which the first time may be."""

    def __call__(self, texts: Int64Array, scores: Scores) -> Scores:
        """Return scores (N, V) of what comes after texts (N, t)."""
        scores[:, self.first - 1] = NEVER
        for text, row in zip(texts[:, self.prompt_size :], scores, strict=True):
            self._pair(text, row)
        if texts.shape[1] == self.prompt_size:
            scores[:, : self.first] = NEVER
            if self.latest_start is not None:
                scores[:, self.first + self.latest_start + 1 :] = NEVER
        # Where a time is likelier than each word, it is one.
        likely = log_softmax(scores)
        times, words = likely[:, self.first :], likely[:, : self.first].max(axis=1)
        most = times.max(axis=1)
        some = np.isfinite(most)
        total = np.full(most.shape, NEVER)
        total[some] = most[some] + np.log(np.exp(times[some] - most[some, np.newaxis]).sum(axis=1))
        scores[total > words, : self.first] = NEVER
        return scores

    def _pair(self, text: Int64Array, row: Scores) -> None:
        """Forbid what would break a pair, or would be earlier than the last time."""
        is_time = text >= self.first
        last = bool(is_time[-1:].any())
        before = text.size < 2 or bool(is_time[-2])
        if last and before:
            row[self.first :] = NEVER
        elif last:
            row[: self.end] = NEVER
        if is_time.any():
            latest = int(text[is_time][-1]) + (0 if last and not before else 1)
            row[self.first : latest] = NEVER


@dataclass(frozen=True)
class Piece:
    """What is said between two times of a window, in steps."""

    start: float
    end: float
    tokens: list[int]
    first: int = 0
    """Which of the window's tokens is its first."""


def pieces_of(tokens: list[int], first: int, frames: int) -> tuple[list[Piece], int]:
    """Return what a window's tokens say when, and how many of its frames that is.

    A window of `frames` frames has half as many steps. What stands after the last whole pair of
    times is cut off in the middle, and left to the next window.
    """
    is_time = [token >= first for token in tokens]
    ends = [place for place in range(1, len(tokens)) if is_time[place - 1] and is_time[place]]
    whole = is_time[-2:] == [False, True]
    if not ends:
        times = [token for token in tokens if token >= first]
        end = float(frames // 2)
        if times and times[-1] != first:
            end = float(times[-1] - first)
        return [Piece(0.0, end, tokens)], frames
    if whole:
        ends.append(len(tokens))
    else:
        ends[-1] += 1
    pieces, start = [], 0
    for number, place in enumerate(ends):
        part = tokens[start:place]
        last = part[-1] if whole or number < len(ends) - 1 else part[-2]
        pieces.append(Piece(float(part[0] - first), float(last - first), part, start))
        start = place
    done = 2 * (tokens[start - 2] - first)
    return pieces, frames if whole or done <= 0 else done
