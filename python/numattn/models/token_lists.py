"""Sequences of token ids as callers give them: lists, arrays, tensors, or generators of these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .arrays import Int64Array
from .ids import check_ids
from .texts import in_order

TokenLists: TypeAlias = Iterable[Iterable[int] | NDArray[Any]]


def token_lists(name: str, given: TokenLists, vocab_size: int) -> list[Int64Array]:
    """Return each sequence of ids as an int64 array (n,); the iterable is gone through once.

    Parameters
    ----------
    name : str
        What messages call the sequences, in the plural: "prompts".
    given : iterable of iterables of int
        The sequences.
    vocab_size : int
        Ids are 0 … vocab_size − 1.

    Raises
    ------
    TypeError
        If it is something else, or holds something else than integers.
    ValueError
        If an id is out of range.
    """
    if isinstance(given, Iterable) and getattr(given, "ndim", 1) == 2:  # rows of an array
        given = [*given]
    lists = []
    each: Any
    for number, each in enumerate(in_order(name, given, "sequences of token ids")):
        one = f"{name.removesuffix('s')} {number}"
        if isinstance(each, SupportsIndex) and getattr(each, "ndim", 0) == 0:
            raise TypeError(
                f"{one} is a number, {each}: {name} must be sequences of token ids; put a single "
                "one into a list"
            )
        lists.append(token_list(one, each, vocab_size))
    return lists


def token_list(name: str, given: Any, vocab_size: int) -> Int64Array:
    """Return a sequence of ids as an int64 array (n,), or raise."""
    ids = None
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes, Mapping, Set)):
        whole = isinstance(given, Sequence) or hasattr(given, "__array__")
        try:
            ids = np.asarray(given if whole else [*given])
        except ValueError:  # it holds sequences, and of several lengths
            ids = None
    if ids is None or ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise TypeError(f"{name} must be a sequence of integers, not {given!r}")
    return check_ids(f"the tokens of {name}", ids, vocab_size, ndim=1)


def padded(lists: Sequence[Int64Array], fill: int) -> tuple[Int64Array, Int64Array]:
    """Return sequences as ids (B, S), filled up on the right, and their lengths (B,)."""
    lengths = np.array([each.size for each in lists], dtype=np.int64)
    ids = np.full((lengths.size, int(lengths.max(initial=0))), fill, dtype=np.int64)
    for row, each in enumerate(lists):
        ids[row, : each.size] = each
    return ids, lengths
