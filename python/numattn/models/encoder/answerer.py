"""An encoder that finds the answer to a question in a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from ..texts import check_text
from .classifier import softmax
from .encoder import Encoder
from .head import Head, Task
from .head_folder import HeadFolder
from .headed import Headed, Tokens
from .tokenized import encoded

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

OVERLAP = 128  # tokens that neighbouring parts of a long text share, at most half of them


class Answer(NamedTuple):
    """A part of a context."""

    text: str
    probability: float
    start: int
    end: int
    """It is context[start:end]."""


class QuestionAnswerer(Headed):
    """An encoder with a head that finds where an answer begins and ends.

    Made by `numattn.models.load` of a folder whose config.json names such a class. Any number of
    threads may call one model at once.

    Attributes
    ----------
    encoder : Encoder
        What the head stands on.
    """

    TASK: ClassVar[Task] = "span"

    def __init__(
        self, encoder: Encoder, head: Head, labels: tuple[str, ...], folder: HeadFolder
    ) -> None:
        super().__init__(encoder, head, labels, folder)
        self._parting: Tokenizer | None = None

    def answer(
        self,
        question: str,
        context: str,
        *,
        max_answer_tokens: int = 15,
        batch_tokens: int = 4096,
        num_threads: int | None = None,
    ) -> Answer:
        """Return the most probable answer to a question in a context.

        A context of more tokens than the model has room for is read in parts that overlap. In each,
        the probability of an answer is that of its first token among all tokens of the part, times
        that of its last; the greatest one counts.

        Parameters
        ----------
        question, context : str
            The texts.
        max_answer_tokens : int
            Of an answer.
        batch_tokens : int
            Tokens computed at once: bounds the memory.
        num_threads : int, optional
            Upper limit for this call.

        Raises
        ------
        TypeError
            If a text is no string.
        ValueError
            If the question leaves no room for the context, the context has no token, a number is
            not positive, or a text holds a lone surrogate.
        FileNotFoundError
            If the folder has no tokenizer.
        """
        if max_answer_tokens < 1:
            raise ValueError(f"max_answer_tokens must be 1 or more, not {max_answer_tokens}")
        encodings = self._read_parts(check_text(question), check_text(context))
        best = Answer("", -1.0, 0, 0)
        tokens = Tokens.of(encodings)
        for part in self._parts(tokens, batch_tokens, num_threads):
            for place, begin, end in zip(
                part.places.tolist(), part.starts[:-1], part.starts[1:], strict=True
            ):
                encoding = encodings[place]
                found = best_span(part.logits[begin:end], encoding, max_answer_tokens)
                if found is not None and found[0] > best.probability:
                    start, stop = encoding.offsets[found[1]][0], encoding.offsets[found[2]][1]
                    best = Answer(context[start:stop], found[0], start, stop)
        if best.probability < 0:
            raise ValueError("context has no token")
        return best

    def _read_parts(self, question: str, context: str) -> list[Encoding]:
        """Return the question with each part of the context."""
        if self._parting is None:
            from tokenizers import Tokenizer

            self._parting = Tokenizer.from_str(self.tokenizer.to_str())
            self._parting.no_truncation()
        own, limit = self._parting, self.encoder.max_tokens
        asked, read = encoded(own, [question, context], special=False)
        room = limit - len(asked.ids) - own.num_special_tokens_to_add(True)
        if room < 1:
            raise ValueError(f"question has as many tokens as the model takes, {limit}")
        read.truncate(room, stride=min(OVERLAP, room // 2))
        return [own.post_process(asked, part) for part in (read, *read.overflowing)]


def best_span(
    logits: np.ndarray[tuple[int, ...], np.dtype[np.float32]], encoding: Encoding, most: int
) -> tuple[float, int, int] | None:
    """Return the probability, first and last token of the best answer in a part; None if none."""
    of_context = np.array([each == 1 for each in encoding.sequence_ids])
    places = np.flatnonzero(of_context)
    if places.size == 0:
        return None
    first, last = softmax(np.ascontiguousarray(logits[places].T))
    # Row i: answers that begin with token i, by their length.
    padded = np.concatenate([last, np.full(most - 1, -1, np.float32)])
    pairs = first[:, np.newaxis] * np.lib.stride_tricks.sliding_window_view(padded, most)
    row, length = divmod(int(pairs.argmax()), most)
    return float(pairs[row, length]), int(places[row]), int(places[row + length])
