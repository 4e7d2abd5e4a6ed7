"""An encoder that classifies each token of a text: names of people and places, parts of speech."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np

from .classifier import softmax
from .head import Task
from .headed import Headed
from .tokenized import encoded

OUTSIDE = "O"  # the label of what is nothing


class Tag(NamedTuple):
    """A part of a text, and what it is."""

    text: str
    label: str
    probability: float
    start: int
    end: int
    """It is text[start:end] of the whole."""


class TokenClassifier(Headed):
    """An encoder with a head for each token.

    Made by `numattn.models.load` of a folder whose config.json names such a class. Any number of
    threads may call one model at once.

    Attributes
    ----------
    encoder : Encoder
        What the head stands on.
    labels : tuple of str
        The labels of the folder.
    """

    TASK: ClassVar[Task] = "token"

    def tag(self, text: str, *, group: bool = True, num_threads: int | None = None) -> list[Tag]:
        """Return the parts of a text that have a label.

        Parameters
        ----------
        text : str
            A text. Of more tokens than the model has room for, it is cut, with a UserWarning.
        group : bool
            Join neighbouring tokens of one label, "B-" before it beginning another part; the
            probability is the mean of theirs, and what has the label "O" is left out. Otherwise
            every token has a part, and its label as the folder has it.
        num_threads : int, optional
            Upper limit for this call.

        Raises
        ------
        TypeError
            If text is no string.
        ValueError
            If it holds a lone surrogate.
        FileNotFoundError
            If the folder has no tokenizer.
        """
        tokens = self._tokens([text], "texts")
        (part,) = self._parts(tokens, 1, num_threads)
        (encoding,) = encoded(self.tokenizer, [text])
        rows = softmax(part.logits)
        best = rows.argmax(axis=1).tolist()
        tags = [
            Tag(text[start:end], self.labels[label], float(row[label]), start, end)
            for row, label, (start, end), special in zip(
                rows, best, encoding.offsets, encoding.special_tokens_mask, strict=True
            )
            if not special
        ]
        return [*grouped(text, tags)] if group else tags


def grouped(text: str, tags: list[Tag]) -> Iterator[Tag]:
    """Yield the parts that tokens make, without those of no label."""
    parts: list[tuple[str, list[Tag]]] = []
    for tag in tags:
        begins, label = tag.label.startswith("B-"), tag.label
        if label[:2] in ("B-", "I-"):
            label = label[2:]
        if parts and parts[-1][0] == label and not begins:
            parts[-1][1].append(tag)
        else:
            parts.append((label, [tag]))
    for label, members in parts:
        if label != OUTSIDE:
            start, end = members[0].start, members[-1].end
            mean = float(np.mean([each.probability for each in members]))
            yield Tag(text[start:end], label, mean, start, end)
