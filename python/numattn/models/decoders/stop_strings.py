"""Strings at which a text ends, found in pieces that come one by one."""

from __future__ import annotations

from collections.abc import Iterable

from ..texts import in_order


class StopStrings:
    """Lets a text through up to the first of some strings.

    Parameters
    ----------
    stops : str or iterable of str
        The strings.

    Attributes
    ----------
    found : str or None
        The first that has been found whole; of several that end at one place, the longest.

    Raises
    ------
    TypeError
        If they are no strings.
    ValueError
        If one is empty.

    Examples
    --------
    >>> stops = StopStrings(["\\n\\n", "END"])
    >>> [stops.add(piece) for piece in ("ab", "E", "Nd", "\\n", "x\\n", "\\ny")]
    ['ab', '', 'ENd', '', '\\nx', '']
    >>> stops.found
    '\\n\\n'
    """

    def __init__(self, stops: str | Iterable[str] = ()) -> None:
        self._stops = sorted(set(strings(stops)), key=len, reverse=True)
        self._held = ""
        self.found: str | None = None

    def add(self, piece: str) -> str:
        """Return what one more piece makes certain of the text; nothing after a string is found."""
        if self.found is not None:
            return ""
        text = self._held + piece
        # The first that is complete, letter by letter, so that it does not depend on the pieces.
        ends = [(text.find(stop) + len(stop), stop) for stop in self._stops if stop in text]
        if ends:
            end, self.found = min(ends, key=lambda each: each[0])
            self._held = ""
            return text[: end - len(self.found)]
        end = len(text) - self._begun(text)
        self._held = text[end:]
        return text[:end]

    def finish(self) -> str:
        """Return what was held back: there is no more piece."""
        rest, self._held = self._held, ""
        return rest

    def _begun(self, text: str) -> int:
        """Return how many of a text's last characters may begin one of the strings."""
        longest = len(self._stops[0]) - 1 if self._stops else 0
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stops):
                return size
        return 0


def strings(stops: str | Iterable[str]) -> list[str]:
    """Return one or several strings as a list, or raise as `StopStrings`."""
    given = [stops] if isinstance(stops, str) else [*in_order("stop", stops, "strings")]
    for each in given:
        if not isinstance(each, str):
            raise TypeError(f"stop must be strings, not {each!r}")
        if not each:
            raise ValueError("a string of stop is empty")
    return given
