"""What stands before a window's text: a prompt, or what was said before.

    [<previous> what was said, its last tokens] <start> <language> <task> …    with conditioning
    [prompt] <start> <language> <task> …                                       without

As transformers' `generate` for Whisper has it, a prompt is either what was said before the first
window, or stands in <previous>'s place in all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from .timestamps import Piece

PromptCondition: TypeAlias = Literal["first-segment", "all-segments"]
# From this temperature on, what a window says is no context for the next.
HOT = 0.5


class SpokenBefore:
    """What goes before the windows of some sound, one after the other.

    Parameters
    ----------
    prompt : list of int
        Tokens, with <previous> at their head; or none.
    previous : int or None
        The token that says that what was said before follows.
    first_time : int
        The token of time 0.
    most : int
        Tokens of what was said before, at most.
    conditioned : bool
        Whether what was said goes before what follows.
    everywhere : bool
        Whether the prompt goes before every window then.
    """

    def __init__(
        self, prompt: list[int], previous: int | None, first_time: int, most: int,
        *, conditioned: bool, everywhere: bool,
    ) -> None:  # fmt: skip
        self._prompt, self._most, self._first_time = prompt, most, first_time
        self._conditioned = self._warm = conditioned
        self._head = [] if previous is None else [previous]
        self._said: list[int] = []
        if everywhere:
            self._head = prompt or self._head
        elif prompt:
            self._said = prompt[1:] if prompt[:1] == self._head else prompt

    def tokens(self) -> list[int]:
        """Return what goes before the next window."""
        if self._warm and self._said:
            return self._head + self._said[-self._most :]
        return self._prompt

    def add(self, pieces: Iterable[Piece], temperature: float) -> None:
        """Go on by what a window says, written at a temperature."""
        for piece in pieces:
            # Of two times at the end the second is where the next piece begins.
            double = len(piece.tokens) > 2 and piece.tokens[-2] >= self._first_time
            self._said += piece.tokens[:-1] if double else piece.tokens
        self._warm = self._conditioned and temperature < HOT
