"""Texts of more tokens than a model reads: which they are, and how much of each is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .streams import note

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Encoding

    from numattn.models import Bert

# Of these that are longer, each is named; the others are counted.
NAMED = 5


class Cuts:
    """Tokenises texts that come in pieces, and keeps what is left out of them; `noun` names one."""

    def __init__(self, model: Bert, noun: str) -> None:
        self._model = model
        self._noun = noun
        self._named: list[tuple[int, int]] = []
        self._seen = self._texts = self._tokens = 0

    def tokenize(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the token ids of the texts that come next."""
        tokens = self._model.tokenize(texts)
        for number, (text, cut) in enumerate(zip(texts, tokens.truncated, strict=True), start=1):
            if cut:
                # A batch of one: the function for a single text would keep other threads waiting.
                (encoding,) = self._model.tokenizer.encode_batch([self._model.prompt + text])
                self._add(self._seen + number, tokens_left_out(encoding))
        self._seen += len(texts)
        return tokens.ids

    def _add(self, number: int, tokens: int) -> None:
        self._texts += 1
        self._tokens += tokens
        if len(self._named) < NAMED:
            self._named.append((number, tokens))

    def report(self, program: str) -> None:
        """Say on stderr what was left out."""
        if not self._texts:
            return
        named = [f"{tokens} of {self._noun} {number}" for number, tokens in self._named]
        others = self._texts - len(named)
        if others:
            tokens = self._tokens - sum(tokens for _, tokens in self._named)
            named.append(f"{tokens} of {others} other{'s' if others > 1 else ''}")
        note(
            program,
            f"the model reads {self._model.max_tokens} tokens of a text; left out: "
            f"{', '.join(named)}",
        )


def tokens_left_out(encoding: Encoding) -> int:
    """Return how many tokens of a text, not counting special ones, truncation has taken."""
    return sum(part.special_tokens_mask.count(0) for part in encoding.overflowing)
