"""What a model writes after one prompt: tokens in, text out, until one of its ends."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Literal, TypeAlias

from .detokenizer import Detokenizer
from .stop_strings import StopStrings, strings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Reason: TypeAlias = Literal["stop", "length"]


class Continuation:
    """A text that grows by tokens.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The model's.
    prompt : sequence of int
        The tokens before it.
    ends : collection of int
        It ends with the first of these tokens, which is no part of the text.
    stop : str or iterable of str
        It ends before the first of these strings, across borders of tokens too. One that is written
        as a special token stands for that as well.
    max_new_tokens : int, optional
        It ends after so many tokens.
    keep_special : bool
        Write special tokens as others.

    Attributes
    ----------
    text : str
        What is certain of it so far.
    tokens : list of int
        Those that were added, the last of them included whatever it is.
    finish_reason : {None, "stop", "length"}
        None while it goes on; "stop" after a token of `ends` or a string of `stop`, else "length".
    stopped_by : str, int or None
        The string or token that ended it.

    Raises
    ------
    TypeError, ValueError
        As by `StopStrings`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Iterable[int] = (),
        *,
        ends: Collection[int] = (),
        stop: str | Iterable[str] = (),
        max_new_tokens: int | None = None,
        keep_special: bool = False,
    ) -> None:
        stops = strings(stop)
        self._stops = StopStrings(stops)
        self._ends: dict[int, str | int] = {int(token): int(token) for token in ends}
        if stops and not keep_special:
            added = tokenizer.get_added_tokens_decoder().items()
            special = {token.content: number for number, token in added if token.special}
            self._ends |= {special[each]: each for each in stops if each in special}
        self._detokenizer = Detokenizer(tokenizer, prompt, keep_special=keep_special)
        self._most = max_new_tokens
        self.text, self.tokens = "", list[int]()
        self.finish_reason: Reason | None = None
        self.stopped_by: str | int | None = None

    def add(self, token: int) -> str:
        """Return what one more token makes certain of the text, and note whether it ends with it.

        Raises
        ------
        ValueError
            If it has ended.
        """
        if self.finish_reason is not None:
            raise ValueError(f"the text has ended ({self.finish_reason})")
        self.tokens.append(int(token))
        if int(token) in self._ends:
            return self._finished("stop", self._ends[int(token)], self._rest())
        piece = self._stops.add(self._detokenizer.add(token))
        if self._stops.found is None and len(self.tokens) == self._most:
            piece += self._rest()
            if self._stops.found is None:
                return self._finished("length", None, piece)
        if self._stops.found is not None:
            return self._finished("stop", self._stops.found, piece)
        self.text += piece
        return piece

    def finish(self) -> str:
        """Return the rest of a text that ends here whatever it is, as one that is cancelled."""
        return "" if self.finish_reason is not None else self._finished("stop", None, self._rest())

    def _rest(self) -> str:
        rest = self._stops.add(self._detokenizer.finish())
        return rest + self._stops.finish()

    def _finished(self, reason: Reason, by: str | int | None, piece: str) -> str:
        self.finish_reason, self.stopped_by = reason, by
        self.text += piece
        return piece
