"""A process's own queries, keys and values, and which of them meet which others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from numattn import attention
from numattn._arguments import as_array
from numattn._names import Array
from numattn.compat.mpi.agreement import agreed
from numattn.compat.mpi.zigzag import chunks, tokens_of


@dataclass(frozen=True)
class Meeting:
    """Some of a process's queries with some of the keys of one."""

    rows: slice
    """Of the process's own queries."""
    keys: slice
    """Of the keys that the other has."""
    own: bool
    """Whether these keys are those of the very queries: once for each query."""
    score: dict[str, Any]


@dataclass(frozen=True)
class Shard:
    """Arguments that fit those of the other processes."""

    q: Array
    k: Array
    v: Array
    score: dict[str, Any]
    lengths: tuple[int, int]
    """Queries and keys of all processes together."""
    size: int
    rank: int

    @classmethod
    def of(
        cls, comm: Any, q: ArrayLike, k: ArrayLike, v: ArrayLike, score: dict[str, Any]
    ) -> Shard:
        """Read the arguments, and see that all processes have given the like.

        Raises
        ------
        TypeError, ValueError
            In every process.
        """

        def read() -> tuple[tuple[Array, Array, Array], tuple[object, ...], tuple[int, ...]]:
            arrays = as_array("q", q), as_array("k", k), as_array("v", v)
            return arrays, _checked(*arrays, score), (arrays[0].shape[-2], arrays[1].shape[-2])

        arrays, (queries, keys) = agreed(comm, read, tokens_of)
        if queries != keys and _has_positions(score):
            raise ValueError(
                "is_causal, window and alibi_slopes need as many queries as keys, not "
                f"{queries} and {keys}"
            )
        return cls(*arrays, score, (queries, keys), comm.Get_size(), comm.Get_rank())

    @property
    def groups(self) -> list[slice]:
        """The process's queries, in as many parts as meet keys of their own."""
        rows = self.q.shape[-2]
        if not _has_positions(self.score):
            return [slice(0, rows)]
        begin, end = chunks(self.lengths[0], self.size, self.rank)[0]
        return [slice(0, end - begin), slice(end - begin, rows)]

    def meetings(self, other: int) -> Iterator[tuple[int, Meeting]]:
        """Yield which of `groups` meets which keys of a process, where one may see the other."""
        tokens = tokens_of(self.lengths[1], self.size, other)
        if not _has_positions(self.score):
            own = other == self.rank
            yield 0, Meeting(slice(0, self.q.shape[-2]), slice(0, tokens), own, self.score)
            return
        mine = chunks(self.lengths[0], self.size, self.rank)
        theirs = chunks(self.lengths[1], self.size, other)
        cuts = [slice(0, theirs[0][1] - theirs[0][0]), slice(theirs[0][1] - theirs[0][0], tokens)]
        for number, (rows, queries) in enumerate(zip(self.groups, mine, strict=True)):
            for cut, keys in zip(cuts, theirs, strict=True):
                if _visible(queries, keys, self.score):
                    offset = queries[0] - keys[0]
                    score = {**self.score, "q_offset": offset}
                    yield number, Meeting(rows, cut, queries == keys, score)


def _checked(q: Array, k: Array, v: Array, score: dict[str, Any]) -> tuple[object, ...]:
    """Refuse what attention refuses, in its words; return what must be alike in all processes."""
    if min(q.ndim, k.ndim, v.ndim) < 3 or k.shape[-2] != v.shape[-2]:
        raise ValueError(
            "q, k and v must be of shape (B, H, S, D), k and v of as many tokens: "
            f"q {q.shape}, k {k.shape}, v {v.shape}"
        )
    if np.ndim(score["scale"]) > 0:
        raise ValueError("scale must be one number where tokens lie on several processes")
    attention(*(x[..., :0, :] for x in (q, k, v)), **score)
    shapes = [(x.dtype.name, x.shape[:-2], x.shape[-1]) for x in (q, k, v)]
    settings = [
        None if value is None else str(np.asarray(value).tolist())  # so that NaN is NaN
        for value in (score["alibi_slopes"], score["sinks"])
    ]
    flags = score["is_causal"], window_of(score), score["scale"], score["softcap"]
    return (*shapes, *flags, *settings)


def window_of(score: dict[str, Any]) -> tuple[int, int]:
    """Return how many keys before and after its own place a query sees, −1 for all."""
    if score["window"] is None:
        return -1, -1
    left, right = (-1 if side is None else int(side) for side in score["window"])
    return left, right


def _has_positions(score: dict[str, Any]) -> bool:
    """Whether it matters where a query and a key stand."""
    bounded = score["is_causal"] or window_of(score) != (-1, -1)
    return bounded or score["alibi_slopes"] is not None


def _visible(queries: tuple[int, int], keys: tuple[int, int], score: dict[str, Any]) -> bool:
    """Whether any of a chunk's queries sees any of a chunk's keys."""
    if queries[0] == queries[1] or keys[0] == keys[1]:
        return False
    left, right = window_of(score)
    if score["is_causal"]:
        right = 0
    before = left < 0 or keys[1] - 1 >= queries[0] - left
    after = right < 0 or keys[0] <= queries[1] - 1 + right
    return before and after
