"""Sequences that come one by one → batches of so many tokens, each computed at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..arrays import Int64Array
from ..ragged import Ragged

Tokens: TypeAlias = NDArray[np.integer[Any]]


def batches(sequences: Iterable[Tokens], most_tokens: int) -> Iterator[list[Tokens]]:
    """Yield sequences in their order, as many together as have at most `most_tokens` tokens.

    A sequence of more tokens than that is alone. As nothing is padded, it does not matter which
    lengths come together.

    Examples
    --------
    >>> given = [np.zeros(length, np.int64) for length in (5, 90, 6, 0, 5)]
    >>> [[tokens.size for tokens in batch] for batch in batches(given, 100)]
    [[5, 90], [6, 0, 5]]
    """
    batch: list[Tokens] = []
    held = 0
    for tokens in sequences:
        if batch and held + tokens.size > most_tokens:
            yield batch
            batch, held = [], 0
        batch.append(tokens)
        held += tokens.size
    if batch:
        yield batch


def longest_first(batch: Sequence[Tokens]) -> tuple[NDArray[np.intp], Int64Array, Ragged]:
    """Return the tokens of a batch one after the other, the longest sequence first.

    Then none of those that take longest is left for the end, when other threads have nothing to do.

    Returns
    -------
    order : int array (N,)
        Which sequences of the batch these are; those of no token are not among them.
    ids : int array (T,)
        Their tokens.
    sequences : Ragged
        Where each stands in `ids`.
    """
    lengths = np.array([tokens.size for tokens in batch], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]
    chosen = [batch[index] for index in order.tolist()]
    ids = np.concatenate([np.empty(0, np.int64), *chosen], dtype=np.int64, casting="unsafe")
    return order, ids, Ragged.of_lengths(lengths[order])
