"""Hidden states of a text's tokens → one vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ..arrays import Float32Array

Pooling: TypeAlias = Callable[[Float32Array], Float32Array]


def mean_of_tokens(hidden: Float32Array) -> Float32Array:
    """Return the mean over the tokens: (S, E) → (E,)."""
    mean: Float32Array = hidden.mean(axis=0)
    return mean


def first_token(hidden: Float32Array) -> Float32Array:
    """Return the state of the first token, [CLS]: (S, E) → (E,)."""
    first: Float32Array = hidden[0]
    return first


# By the names that sentence-transformers has for them.
POOLINGS: dict[str, Pooling] = {"mean": mean_of_tokens, "cls": first_token}
