"""The labels of a classifier, and what it says of an image in their terms."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..arrays import Float32Array
from ..files.settings import MOST, Settings, shown

PROBLEMS = ("single_label_classification", "multi_label_classification")


class Guess(NamedTuple):
    """A label, and how probable the model finds it."""

    label: str
    probability: float


def read_labels(settings: Settings) -> list[str]:
    """Return the labels of a config.json, by their numbers.

    Without id2label there are num_labels of them, or 2, which have names of numbers.

    Raises
    ------
    ValueError
        If id2label is no object of "0", "1" … to names.
    """
    given = settings.get("id2label")
    if given is None:
        return [f"LABEL_{number}" for number in range(settings.size("num_labels", 2))]
    if not isinstance(given, dict) or not 0 < len(given) <= MOST:
        raise ValueError(f"{settings.path}: id2label {shown(given)} is no object of labels")
    labels = [given.get(str(number)) for number in range(len(given))]
    if not all(isinstance(label, str) for label in labels):
        raise ValueError(
            f'{settings.path}: id2label must have a label for each of "0" … "{len(given) - 1}"'
        )
    return [str(label) for label in labels]


def probabilities(logits: Float32Array, each_alone: bool) -> Float32Array:
    """Return the softmax of logits (N, L) over L, or each one's own sigmoid."""
    if each_alone:
        # Of the two ways to write it, the one that does not overflow.
        small = np.exp(-np.abs(logits))
        return np.where(logits >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Float32Array = powers / powers.sum(axis=1, keepdims=True)
    return result


def best(chances: Float32Array, labels: list[str], top: int) -> list[list[Guess]]:
    """Return for each row of probabilities (N, L) the `top` most probable labels, best first.

    Raises
    ------
    ValueError
        If top is less than 1.
    """
    if top < 1:
        raise ValueError(f"top must be 1 or more, not {top}")
    order = np.argsort(-chances, axis=1, kind="stable")[:, :top]
    return [
        [Guess(labels[number], float(row[number])) for number in numbers]
        for row, numbers in zip(chances, order.tolist(), strict=True)
    ]


def read_problem(settings: Settings) -> bool:
    """Return whether labels do not exclude one another."""
    return settings.one_of("problem_type", PROBLEMS, PROBLEMS[0]) == PROBLEMS[1]
