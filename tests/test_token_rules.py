"""What must not come next in a text, by rules small enough to follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from numattn.models.encoder_decoder.timestamps import TimestampRule, pieces_of
from numattn.models.encoder_decoder.token_rules import TokenRules

SIZE = 8


def allowed(rules: TokenRules, text: list[int], *, prompt: int = 1, most: int = 9) -> list[int]:
    """Return the tokens that may come after a text."""
    scores = rules.of(prompt, most)(np.array([text]), np.zeros((1, SIZE)))
    return np.flatnonzero(np.isfinite(scores[0])).tolist()


def but(*tokens: int) -> list[int]:
    return [token for token in range(SIZE) if token not in tokens]


@pytest.mark.parametrize(
    ("rules", "text", "expected"),
    [
        (TokenRules(), [0, 1], but()),
        (TokenRules(suppressed=(3, 4)), [0, 1], but(3, 4)),
        (TokenRules(suppressed_first=(3,)), [0], but(3)),
        (TokenRules(suppressed_first=(3,)), [0, 1], but()),
        (TokenRules(suppressed_first=(3,), forced_first=5), [0], [5]),
        (TokenRules(suppressed_first=(3,), forced_first=5), [0, 5], but(3)),
        (TokenRules(suppressed_first=(3,), forced_first=5), [0, 5, 1], but()),
        (TokenRules(ends=(6, 7), min_length=3), [0, 1], but(6, 7)),
        (TokenRules(ends=(6, 7), min_length=3), [0, 1, 2], but()),
        (TokenRules(ends=(6,), min_new_tokens=2), [0, 1], but(6)),
        (TokenRules(ends=(6,), min_new_tokens=2), [0, 1, 2], but()),
        (TokenRules(forced_last=(6, 7)), [0, *range(8)], [6, 7]),
        (TokenRules(forced_last=(6, 7)), [0, *range(7)], but()),
        (TokenRules(bad_words=((2,), (3, 4))), [0, 1], but(2)),
        (TokenRules(bad_words=((2,), (3, 4))), [0, 3], but(2, 4)),
        (TokenRules(bad_words=((5, 6, 7, 1),)), [0, 1], but()),
        (TokenRules(no_repeat_ngram_size=1), [0, 1, 3], but(0, 1, 3)),
        (TokenRules(no_repeat_ngram_size=3), [1, 2, 3, 1, 2, 4, 1, 2], but(3, 4)),
        (TokenRules(no_repeat_ngram_size=3), [1, 2], but()),
    ],
)
def test_what_may_come(rules: TokenRules, text: list[int], expected: list[int]) -> None:
    assert allowed(rules, text) == expected


def test_scores() -> None:
    def scores(rules: TokenRules) -> NDArray[Any]:
        given = np.array([[2.0, -1.0, 0.5, *[0.0] * (SIZE - 3)]])
        return rules.of(1, 9)(np.array([[0, 1, 1]]), given)[0]

    assert scores(TokenRules(repetition_penalty=2.0))[:3].tolist() == [1.0, -2.0, 0.5]
    left = scores(TokenRules(suppressed=(0,), renormalize=True))
    assert np.exp(left).sum() == pytest.approx(1.0)
    assert left[2] - left[1] == pytest.approx(1.5)
    forced = TokenRules(forced_first=3).of(1, 9)(np.array([[0]]), np.ones((1, SIZE)))
    assert forced[0, 3] == 0


# --- Times: words 0 … 3, the end 4, no times 5, times 6 … 11. ---


def times(text: list[int], scores: list[float] | None = None, latest: int | None = 2) -> list[int]:
    """Return the tokens that may come after a text."""
    rule = TimestampRule(first=6, end=4, prompt_size=1, latest_start=latest)
    given = np.array([[9.0] * 6 + [0.0] * 6 if scores is None else scores])
    return np.flatnonzero(np.isfinite(rule(np.array([[0, *text]]), given)[0])).tolist()


def test_which_times_may_come() -> None:
    assert times([]) == [6, 7, 8]  # a time is first, and not a late one
    assert times([], latest=None) == [6, 7, 8, 9, 10, 11]
    assert times([7]) == [0, 1, 2, 3, 4]  # then a word
    assert times([7, 1]) == [0, 1, 2, 3, 4, 8, 9, 10, 11]  # later times alone
    assert times([7, 1, 9]) == [4, 9, 10, 11]  # the next one begins, or the text ends
    assert times([7, 1, 9, 9]) == [0, 1, 2, 3, 4]
    # All times together are likelier than the likeliest word.
    assert times([7, 1], [0.5] + [-9.0] * 5 + [0.0] * 6) == [8, 9, 10, 11]


@pytest.mark.parametrize(
    ("tokens", "pieces", "done"),
    [
        ([6, 1, 8, 8, 2, 9], [(0, 2), (2, 3)], 10),  # a single time ends the window
        ([6, 1, 8, 8, 2], [(0, 2)], 4),  # cut in the middle: on from the last pair
        ([6, 1, 8], [(0, 2)], 10),
        ([6, 1], [(0, 5)], 10),
        ([], [(0, 5)], 10),
        ([6, 1, 7, 8, 2, 9, 9, 3], [(0, 1), (2, 3)], 6),
    ],
)
def test_pieces_of_a_window(tokens: list[int], pieces: list[tuple[int, int]], done: int) -> None:
    found, frames = pieces_of(tokens, 6, 10)
    assert [(piece.start, piece.end) for piece in found] == pieces
    assert frames == done
