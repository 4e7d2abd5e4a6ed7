"""Token ids → text, as they come: only whole characters, and spaces as in the whole text.

A token may be a part of a character's UTF-8, and whether a space stands before a word may depend on
whether it is the first. So some tokens are decoded together with those before them, and what that
adds to the text of those alone is what is new. It is held back while it may end within a character,
which decoders show as U+FFFD.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNFINISHED = "\ufffd"
# So many pieces of text are decoded again with the next; of a prompt, so many tokens. One would be
# enough if none were without text, as special tokens are.
CONTEXT = 6
# A character has at most four bytes, and a token at least one: what more have not finished, no
# token will.
MOST_HELD = 4


class Detokenizer:
    """Turns tokens into text one by one; the pieces make up the text.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        Whose tokens they are.
    before : iterable of int
        The tokens before the first one, whose text is not returned.
    keep_special : bool
        Whether special tokens are written, as others are.

    Examples
    --------
    >>> from tokenizers import Tokenizer, decoders, models  # doctest: +SKIP
    >>> tokenizer = Tokenizer(models.BPE({"Ã": 0, "©": 1, "a": 2}, []))  # doctest: +SKIP
    >>> tokenizer.decoder = decoders.ByteLevel()  # doctest: +SKIP
    >>> detokenizer = Detokenizer(tokenizer)  # doctest: +SKIP
    >>> [detokenizer.add(token) for token in (2, 0, 1)]  # "é" has two bytes  # doctest: +SKIP
    ['a', '', 'é']
    """

    def __init__(
        self, tokenizer: Tokenizer, before: Iterable[int] = (), *, keep_special: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._skip = not keep_special
        context = [int(token) for token in [*before][-CONTEXT - MOST_HELD :]]
        end = self._end_of_characters(context)
        start = self._start_of_character(context[:end])
        self._known: deque[list[int]] = deque([context[start:end]], maxlen=CONTEXT)
        self._held = context[end:]
        self._begun = False

    def _end_of_characters(self, tokens: list[int]) -> int:
        """Return how many of some tokens make whole characters, or all of them if it is unclear."""
        for end in range(len(tokens), max(len(tokens) - MOST_HELD, -1), -1):
            if not self._decode(tokens[:end]).endswith(UNFINISHED):
                return end
        return len(tokens)

    def _start_of_character(self, tokens: list[int]) -> int:
        """Return from which of some tokens on they begin with a character, if they do."""
        for start in range(min(MOST_HELD, len(tokens))):
            if not self._decode(tokens[start:]).startswith(UNFINISHED):
                return start
        return 0

    def add(self, token: int) -> str:
        """Return what one more token makes certain of the text; often its own, sometimes ""."""
        self._begun = True
        self._held.append(int(token))
        before, after = self._texts()
        if after.endswith(UNFINISHED) and len(self._held) < MOST_HELD:
            return ""
        return self._settled(before, after)

    def finish(self) -> str:
        """Return what was held back: there is no more token."""
        return self._settled(*self._texts()) if self._begun else ""

    def _texts(self) -> tuple[str, str]:
        """Return the text of what is settled lately, and the same with what is held."""
        known = [token for piece in self._known for token in piece]
        return self._decode(known), self._decode(known + self._held)

    def _settled(self, before: str, after: str) -> str:
        """Return what `after` says more than `before`, and hold nothing back any more."""
        # Pieces are forgotten whole: half a character would spoil what stands after it.
        if after.startswith(before):
            self._known.append(self._held)
        else:  # what was thought to be no character has become one
            before = before.rstrip(UNFINISHED)
            self._known[-1] = self._known[-1] + self._held
        self._held = []
        return after[len(before) :]

    def _decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=self._skip)
