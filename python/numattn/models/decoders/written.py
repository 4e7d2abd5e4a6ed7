"""Texts that a model writes: all of several at once, or one piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..arrays import Int64Array
from .continuation import Continuation, Reason
from .generate import Stop, generation_of, stop_tokens
from .generation import Generation, LanguageModel
from .speculation import Draft
from .stop_strings import strings

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Written:
    """A text that a model has written."""

    text: str
    """Without what ended it."""
    tokens: list[int]
    """The new ones, with those that ended it."""
    finish_reason: Reason
    """"stop" after an end token or before a string of `stop`, "length" after max_new_tokens."""
    stopped_by: str | int | None
    """The string or token that ended it."""
    prompt_tokens: int
    """How many the prompt has."""


def continuations(
    tokenizer: Tokenizer,
    prompts: Sequence[Int64Array],
    max_new_tokens: int,
    vocab_size: int,
    ends: Stop,
    stop: str | Iterable[str],
    keep_special: bool,
) -> list[Continuation]:
    """Return a text for each prompt, with nothing written yet."""
    tokens, stops = stop_tokens(ends, vocab_size, "ends"), strings(stop)
    return [
        Continuation(
            tokenizer, prompt.tolist(), ends=tokens, stop=stops,
            max_new_tokens=max_new_tokens, keep_special=keep_special,
        )
        for prompt in prompts
    ]  # fmt: skip


def write_texts(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    ends: Stop = None,
    stop: str | Iterable[str] = (),
    keep_special: bool = False,
    draft: Draft | None = None,
    **options: Any,
) -> list[Written]:
    """Return what a model writes after each prompt, given as ids; see `Writer.generate_texts`."""
    generation = generation_of(model, prompts, max_new_tokens, draft, **options)
    try:
        texts = continuations(
            tokenizer, generation.prompts, max_new_tokens, model.vocab_size, ends, stop,
            keep_special,
        )  # fmt: skip
        while generation.active.any():
            for row, new in enumerate(generation.step()):
                add_all(generation, row, texts[row], new)
    finally:
        generation.finish()
    return [
        Written(
            text.text, text.tokens, text.finish_reason or "length", text.stopped_by, prompt.size
        )
        for text, prompt in zip(texts, generation.prompts, strict=True)
    ]


def add_all(generation: Generation, row: int, text: Continuation, new: Sequence[int]) -> str:
    """Add what is new to a text, end the generation where it ends, and return the piece."""
    piece = ""
    for place, token in enumerate(new):
        piece += text.add(token)
        if text.finish_reason is not None:
            generation.end(row, len(new) - 1 - place)
            break
    return piece


class TextStream(Iterator[str]):
    """The pieces of a text while a model writes it; see `Writer.stream`.

    Attributes
    ----------
    prompt_tokens : int
        How many tokens the prompt has.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        max_new_tokens: int,
        *,
        ends: Stop = None,
        stop: str | Iterable[str] = (),
        keep_special: bool = False,
        draft: Draft | None = None,
        **options: Any,
    ) -> None:
        self._generation = generation_of(model, [prompt], max_new_tokens, draft, **options)
        (self._text,) = continuations(
            tokenizer, self._generation.prompts, max_new_tokens, model.vocab_size, ends, stop,
            keep_special,
        )  # fmt: skip
        self.prompt_tokens = self._generation.prompts[0].size

    def __next__(self) -> str:
        """Return the next piece, which is never empty."""
        while self._generation.active.any():
            (new,) = self._generation.step()
            piece = add_all(self._generation, 0, self._text, new)
            if piece:
                return piece
        self.close()
        raise StopIteration

    def close(self) -> None:
        """Write no more. A PrefixCache keeps what has been written."""
        self._generation.active[:] = 0
        self._generation.finish()

    def __del__(self) -> None:
        if hasattr(self, "_generation"):
            self.close()

    @property
    def text(self) -> str:
        """Return all pieces so far."""
        return self._text.text

    @property
    def tokens(self) -> list[int]:
        """Return the new tokens so far."""
        return self._text.tokens

    @property
    def finish_reason(self) -> Reason | None:
        """Return why the text has ended, None while it goes on."""
        return self._text.finish_reason

    @property
    def stopped_by(self) -> str | int | None:
        """Return the string or token that ended the text."""
        return self._text.stopped_by
