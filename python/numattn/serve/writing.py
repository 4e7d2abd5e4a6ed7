"""A text of a request while it is written: tokens become pieces of text, up to a stop string."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from .sequence import Choose, Finish, Sequence


class Piece(NamedTuple):
    """What is new of a text."""

    text: str
    finish: Finish | None
    error: BaseException | None


class Detokenizer(Protocol):
    """What makes text of tokens one by one."""

    def add(self, token: int) -> str:
        """Return what one more token makes certain."""

    def finish(self) -> str:
        """Return what was held back."""


class Writing(Sequence):
    """A text, and the pieces of it for which a client waits.

    Parameters
    ----------
    prompt, new_tokens, choose, ends
        As for `Sequence`.
    detokenizer : Detokenizer
    stops : iterable of str
        The text ends before the first of these.

    Attributes
    ----------
    pieces : asyncio.Queue of Piece
        The event loop's; the last has a `finish` or an `error`.
    """

    def __init__(
        self,
        prompt: Iterable[int],
        new_tokens: int,
        choose: Choose,
        ends: frozenset[int],
        detokenizer: Detokenizer,
        stops: Iterable[str] = (),
    ) -> None:
        super().__init__(prompt, new_tokens, choose, ends, self._watched)
        self.pieces: asyncio.Queue[Piece] = asyncio.Queue()
        self._detokenizer = detokenizer
        self._text = StopText(stops)

    def _watched(self, token: int) -> bool:
        self._text.add(self._detokenizer.add(token))
        return self._text.ended

    def piece(self, error: BaseException | None) -> Piece:
        """Return what is new and certain of the text. The thread of the engine asks."""
        if error is not None:
            return Piece("", None, error)
        if self.finish is not None and not self._text.ended:
            self._text.add(self._detokenizer.finish())
            if self._text.ended:  # by what was held back
                self.finish = "stop"
        return Piece(self._text.take(last=self.finish is not None), self.finish, None)


class StopText:
    """Text that comes in pieces, up to the first of some stop strings.

    What may be the beginning of one is held back.

    Examples
    --------
    >>> text = StopText(["END"])
    >>> text.add("one E")
    >>> text.take()
    'one '
    >>> text.add("N and two END three")
    >>> text.take(), text.ended
    ('EN and two ', True)
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = [*stops]
        self._text = ""
        self.ended = False

    def add(self, text: str) -> None:
        """Put text behind what there is."""
        if self.ended:
            return
        self._text += text
        places = [self._text.find(stop) for stop in self._stops]
        found = [place for place in places if place >= 0]
        if found:
            self._text, self.ended = self._text[: min(found)], True

    def take(self, last: bool = False) -> str:
        """Return what is certain; with `last`, all there is."""
        held = 0 if last or self.ended else max(map(self._held, self._stops), default=0)
        cut = len(self._text) - held
        text, self._text = self._text[:cut], self._text[cut:]
        return text

    def _held(self, stop: str) -> int:
        """Return how many characters at the end may begin a stop string."""
        for size in range(min(len(stop) - 1, len(self._text)), 0, -1):
            if self._text.endswith(stop[:size]):
                return size
        return 0
