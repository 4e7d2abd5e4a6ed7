"""Hidden states of each sequence's tokens → one vector for each.

Of a sequence no more is read than is its own, and its sums are made in its own order: the vector is
the same whatever sequences stand beside it. (So it is with np.add.reduceat, which goes down column
by column and takes many times as long.)
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from ..arrays import Float32Array
from ..ragged import Ragged

Pooling: TypeAlias = Callable[[Float32Array, Ragged], Float32Array]
"""Hidden states (T, E) of N sequences, of one token or more each, → (N, E)."""


def mean_of_tokens(hidden: Float32Array, sequences: Ragged) -> Float32Array:
    """Return the mean over the tokens of each sequence."""
    lengths = sequences.lengths
    means = np.empty((lengths.size, hidden.shape[1]), dtype=np.float32)
    for mean, (begin, end) in zip(means, pairwise(sequences.starts.tolist()), strict=True):
        np.add.reduce(hidden[begin:end], axis=0, out=mean)
    means /= lengths[:, np.newaxis].astype(np.float32)
    return means


def first_token(hidden: Float32Array, sequences: Ragged) -> Float32Array:
    """Return the state of the first token of each sequence, [CLS]."""
    return hidden[sequences.starts[:-1]]


def last_token(hidden: Float32Array, sequences: Ragged) -> Float32Array:
    """Return the state of the last token of each sequence, which in a decoder has seen all."""
    return hidden[sequences.starts[1:] - 1]


# By the names that sentence-transformers has for them.
POOLINGS: dict[str, Pooling] = {"mean": mean_of_tokens, "cls": first_token, "lasttoken": last_token}
