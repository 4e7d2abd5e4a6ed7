"""Keys and values come to all: one exchange, and attention as in one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn import attention
from numattn._aligned import empty
from numattn._arguments import flag
from numattn._names import Array
from numattn.compat.mpi.agreement import communicator
from numattn.compat.mpi.shard import Shard
from numattn.compat.mpi.zigzag import chunks, joined


def gather_attention(
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
    """Attention of this process's queries to the keys of all, of which each gets a copy.

    As :func:`ring_attention`, and with its arguments, results and errors. There is one exchange
    instead of P − 1, and nothing to combine; but every process holds all keys and values, and for a
    moment one of them twice, and computes nothing while they come.

    Notes
    -----
    Where instruction sets are alike and a process has more than 8 queries in each chunk, the bits
    are those of one call for the whole text. As in Dubey et al., "The Llama 3 Herd of Models"
    (2024), section 3.3.2.
    """
    comm = communicator(comm)
    score: dict[str, Any] = {
        "is_causal": is_causal, "window": window, "scale": scale, "softcap": softcap,
        "alibi_slopes": alibi_slopes, "sinks": sinks,
    }  # fmt: skip
    shard = Shard.of(comm, q, k, v, score)
    keys, values = (joined(part, shard.lengths[1], comm) for part in (shard.k, shard.v))
    o = empty((*shard.q.shape[:-1], shard.v.shape[-1]), shard.q.dtype)
    lse = empty(shard.q.shape[:-1], np.float32)
    places = chunks(shard.lengths[0], shard.size, shard.rank)
    for rows, (begin, _) in zip(shard.groups, places, strict=False):  # one, without positions
        offset: dict[str, Any] = {"q_offset": begin} if len(shard.groups) > 1 else {}
        o[..., rows, :], lse[..., rows] = attention(
            shard.q[..., rows, :], keys, values, return_lse=True, num_threads=num_threads,
            **score, **offset,
        )  # fmt: skip
    return (o, lse) if flag("return_lse", return_lse) else o
