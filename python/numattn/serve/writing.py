"""A text of a request while it is written: tokens become pieces of text, up to a stop string."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from numattn.models.decoders.detokenizer import Detokenizer
from numattn.models.decoders.stop_strings import StopStrings

from .sequence import Choose, Finish, Sequence


class Piece(NamedTuple):
    """What is new of a text."""

    text: str
    finish: Finish | None
    error: BaseException | None


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
        self._stops = StopStrings(stops)
        self._new = ""

    def _watched(self, token: int) -> bool:
        self._new += self._stops.add(self._detokenizer.add(token))
        return self._stops.found is not None

    def piece(self, error: BaseException | None) -> Piece:
        """Return what is new and certain of the text. The thread of the engine asks."""
        if error is not None:
            return Piece("", None, error)
        if self.finish is not None and self._stops.found is None:
            self._new += self._stops.add(self._detokenizer.finish()) + self._stops.finish()
            if self._stops.found is not None:  # in what was held back
                self.finish = "stop"
        new, self._new = self._new, ""
        return Piece(new, self.finish, None)
