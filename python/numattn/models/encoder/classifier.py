"""An encoder that classifies texts or scores pairs of them: a cross-encoder is one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..arrays import Float32Array
from ..files.settings import Settings
from .encoder import Encoder
from .head import Head, Task
from .head_folder import HeadFolder
from .headed import Headed

PROBLEMS = ("single_label_classification", "multi_label_classification", "regression")


class Classified(NamedTuple):
    """What a text was classified as."""

    label: str
    probability: float


class SequenceClassifier(Headed):
    """An encoder with a head for whole texts, or pairs of texts.

    Made by `numattn.models.load` of a folder whose config.json names such a class. Any number of
    threads may call one model at once.

    Attributes
    ----------
    encoder : Encoder
        What the head stands on.
    labels : tuple of str
        The labels of the folder, L of them.
    """

    TASK: ClassVar[Task] = "sequence"

    def __init__(
        self, encoder: Encoder, head: Head, labels: tuple[str, ...], folder: HeadFolder
    ) -> None:
        super().__init__(encoder, head, labels, folder)
        settings = Settings.from_file(folder.model / "config.json")
        usual = PROBLEMS[0]
        self._problem: str = settings.one_of("problem_type", PROBLEMS, usual)

    def logits(
        self,
        texts: Iterable[str | tuple[str, str]],
        *,
        batch_tokens: int = 4096,
        num_threads: int | None = None,
    ) -> Float32Array:
        """Return the logits of texts, or of pairs of texts.

        Parameters
        ----------
        texts : iterable of str, or of pairs of str
            Gone through once. One of more tokens than the model has room for is cut, of a pair the
            longer text, with a UserWarning.
        batch_tokens : int
            Tokens computed at once, unless one text has more: bounds the memory.
        num_threads : int, optional
            Upper limit for this call.

        Returns
        -------
        float32 array (n, L)
            Bitwise the same whatever texts stand beside a text.

        Raises
        ------
        TypeError
            If texts is a string or has no order, or holds something else than texts and pairs.
        ValueError
            If batch_tokens is not positive, or a text holds a lone surrogate.
        FileNotFoundError
            If the folder has no tokenizer.
        """
        tokens = self._tokens(texts, "texts")
        result = np.empty((len(tokens.ids), len(self.labels)), dtype=np.float32)
        for part in self._parts(tokens, batch_tokens, num_threads):
            result[part.places] = part.logits
        return result

    def probabilities(self, texts: Iterable[str | tuple[str, str]], **options: Any) -> Float32Array:
        """Return the probability of each label (n, L) for texts or pairs, as `logits` takes them.

        They add up to 1, unless a text may have several labels (`problem_type` of the folder says
        so) or there is only one: then each is by itself. A regression has none: `logits` has its
        numbers.

        Raises
        ------
        ValueError
            If the model is one of regression; and as `logits`.
        """
        if self._problem == "regression":
            raise ValueError("a regression has no probabilities: logits() returns its numbers")
        logits = self.logits(texts, **options)
        if self._problem == PROBLEMS[1] or len(self.labels) == 1:
            return sigmoid(logits)
        return softmax(logits)

    def classify(self, texts: Iterable[str | tuple[str, str]], **options: Any) -> list[Classified]:
        """Return the most probable label of each text or pair, and its probability.

        Parameters and errors are those of `probabilities`.
        """
        rows = self.probabilities(texts, **options)
        best = rows.argmax(axis=1)
        return [
            Classified(self.labels[index], float(row[index]))
            for row, index in zip(rows, best.tolist(), strict=True)
        ]

    def score(self, pairs: Iterable[tuple[str, str]], **options: Any) -> Float32Array:
        """Return the scores of pairs of texts, as sentence-transformers' CrossEncoder predicts.

        Parameters
        ----------
        pairs : iterable of pairs of str
            A query and a passage, say.
        **options
            Those of `logits`.

        Returns
        -------
        float32 array (n,), or (n, L) where there are L labels
            Logits, of one label made numbers of 0 … 1 by a sigmoid, unless the folder says
            otherwise.

        Raises
        ------
        TypeError
            If there is something else than pairs; and as `logits`.
        """
        given = [*pairs]
        if any(not isinstance(pair, (tuple, list)) for pair in given):
            raise TypeError("pairs must be pairs of texts")
        logits = self.logits(given, **options)
        usual = "Sigmoid" if len(self.labels) == 1 else "Identity"
        if (self._folder.activation or usual) == "Sigmoid":
            logits = sigmoid(logits)
        return logits[:, 0] if len(self.labels) == 1 else logits


def softmax(logits: Float32Array) -> Float32Array:
    """Return probabilities that add up to 1 along the last axis."""
    weights: Float32Array = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def sigmoid(logits: Float32Array) -> Float32Array:
    """Return 1 / (1 + exp(−logits)), however large these are."""
    small = np.exp(-np.abs(logits))
    result: Float32Array = np.where(logits >= 0, 1 / (1 + small), small / (1 + small))
    return result
