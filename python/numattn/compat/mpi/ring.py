"""Keys and values go round: each process passes on what it has used, and has no more than that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn import attention
from numattn._aligned import empty
from numattn._arguments import flag
from numattn._names import Array
from numattn.compat.mpi.agreement import as_numbers, communicator
from numattn.compat.mpi.shard import Shard
from numattn.compat.mpi.zigzag import tokens_of


def ring_attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    comm: Any = None,
    is_causal: bool = False,
    window: Sequence[int | None] | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    alibi_slopes: ArrayLike | None = None,
    sinks: ArrayLike | None = None,
    return_lse: bool = False,
    num_threads: int | None = None,
) -> Array | tuple[Array, NDArray[np.float32]]:
    """Attention of this process's queries to the keys of all, which go round.

    Every process calls it, with its own tokens (:func:`split`). While one part of keys and values
    is computed with, the next is on its way: a process holds two parts of P at most.

    Parameters
    ----------
    q : array of shape (B, Hq, Sq / P, D)
        As for :func:`numattn.attention`, grouped heads included.
    k, v : arrays of shape (B, Hkv, Sk / P, D) and (B, Hkv, Sk / P, Dv)
    comm : mpi4py.MPI.Comm, optional
        ``MPI.COMM_WORLD`` by default.
    is_causal, window, scale, softcap, alibi_slopes, sinks
        As for :func:`numattn.attention`, over the whole text and alike in every process. With the
        first two and the slopes there are as many queries as keys.
    return_lse : bool
        Also return the log-sum-exp of each row's logits.
    num_threads : int, optional
        Upper limit of this process's threads.

    Returns
    -------
    o : array of shape (B, Hq, Sq / P, Dv)
        In q's dtype.
    lse : float32 array of shape (B, Hq, Sq / P)
        With ``return_lse=True``.

    Raises
    ------
    ImportError
        mpi4py is not installed, and no ``comm`` is given.
    TypeError, ValueError
        Arguments of one process are refused, or do not fit those of another: in every process.

    Notes
    -----
    Liu et al., "Ring Attention with Blockwise Transformers for Near-Infinite Context" (2023); the
    order of tokens is that of zigzag.py. What was computed with each part is combined as by
    :func:`numattn.merge_states`, in float32: the result is that of one call but for rounding. With
    16-bit dtypes each part has been rounded to them once.
    """
    comm = communicator(comm)
    score: dict[str, Any] = {
        "is_causal": is_causal, "window": window, "scale": scale, "softcap": softcap,
        "alibi_slopes": alibi_slopes, "sinks": sinks,
    }  # fmt: skip
    shard = Shard.of(comm, q, k, v, score)
    states = [State() for _ in shard.groups]
    parts = np.ascontiguousarray(shard.k), np.ascontiguousarray(shard.v)
    for step in range(shard.size):
        other = (shard.rank - step) % shard.size
        arriving, requests = passed_on(shard, comm, parts, step)
        for group, met in shard.meetings(other):
            keys, values = (part[..., met.keys, :] for part in parts)
            own = met.score if met.own else {**met.score, "sinks": None}  # one part's alone
            o, lse = attention(
                shard.q[..., met.rows, :], keys, values, return_lse=True,
                num_threads=num_threads, **own,
            )  # fmt: skip
            states[group].add(o, lse)
            for request in requests:
                request.Test()  # MPI may send and receive in its own calls alone
        for request in requests:
            request.Wait()
        parts = arriving
    return combined(shard, states, flag("return_lse", return_lse))


def passed_on(
    shard: Shard, comm: Any, parts: tuple[Array, Array], step: int
) -> tuple[tuple[Array, Array], list[Any]]:
    """Begin to send keys and values to the next process and to receive those of the one before."""
    if step == shard.size - 1:
        return parts, []
    after, before = (shard.rank + 1) % shard.size, (shard.rank - 1) % shard.size
    tokens = tokens_of(shard.lengths[1], shard.size, (before - step) % shard.size)
    keys, values = (empty((*part.shape[:-2], tokens, part.shape[-1]), part.dtype) for part in parts)
    arriving = keys, values
    requests = [
        comm.Irecv(as_numbers(part), source=before, tag=tag) for tag, part in enumerate(arriving)
    ]
    requests += [
        comm.Isend(as_numbers(part), dest=after, tag=tag) for tag, part in enumerate(parts)
    ]
    return arriving, requests


class State:
    """What some queries have of the keys that they have met.

    As :func:`numattn.merge_states` combines it, but in place: several times as fast, since no
    memory is new.
    """

    def __init__(self) -> None:
        self.o: Array | None = None
        self.lse: Array | None = None

    def add(self, o: Array, lse: Array) -> None:
        """Take in the attention to keys that were not met before; both arrays are the state's."""
        o = o.astype(np.float32, copy=False)
        if self.o is None or self.lse is None:
            self.o, self.lse = o, lse
            return
        whole = np.logaddexp(self.lse, lse)
        for part, sums in ((self.o, self.lse), (o, lse)):
            with np.errstate(invalid="ignore"):  # −inf − −inf, replaced at once
                share = np.where(np.isneginf(sums), np.float32(0), np.exp(sums - whole))
            np.multiply(part, share[..., None], out=part)
        np.add(self.o, o, out=self.o)
        self.lse = whole


def combined(
    shard: Shard, states: list[State], with_lse: bool
) -> Array | tuple[Array, NDArray[np.float32]]:
    """Return the result of all groups of queries, in the order of the queries."""
    rows = shard.q.shape[:-1]
    o = empty((*rows, shard.v.shape[-1]), shard.q.dtype)
    lse = empty(rows, np.float32)
    for group, state in zip(shard.groups, states, strict=True):
        if state.o is not None and state.lse is not None:  # else a chunk without a token
            o[..., group, :], lse[..., group] = state.o, state.lse
    return (o, lse) if with_lse else o
