"""Hold the formulas of bench/cluster.py to the processes of one machine.

    mpirun -n 2 python -m mpi4py bench/cluster_measure.py [TOKENS]

All constants are measured while every process is at work, so that what they share (cores, memory)
is in them; network is the machine's memory. Medians of rounds in which everything has its turn.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from mpi4py import MPI

import numattn as na
import numattn.compat.mpi as nm
from cluster import Layer, Node, gather_seconds, ring_seconds
from numattn.compat.mpi.ring import State

COMM = MPI.COMM_WORLD
SIZE, RANK = COMM.Get_size(), COMM.Get_rank()
ROUNDS = 7


def clock(work: Callable[[], Any]) -> float:
    """Return the seconds that the last of the processes takes, all beginning together."""
    COMM.Barrier()
    start = time.perf_counter()
    work()
    return float(COMM.allreduce(time.perf_counter() - start, MPI.MAX))


def main() -> None:
    """Print what was measured beside what is predicted from it."""
    tokens = int(sys.argv[1]) if len(sys.argv) > 1 else 4096
    layer = Layer(tokens, query_heads=8, key_heads=2, width=128)
    na.set_num_threads(1)
    rng = np.random.default_rng(0)
    q, k, v = (
        rng.standard_normal((1, heads, tokens, layer.width), np.float32) for heads in (8, 2, 2)
    )
    mine = [nm.split(x) for x in (q, k, v)]
    o, lse = na.attention(*mine, return_lse=True)
    block = np.stack(mine[1:])
    arriving, short = np.empty_like(block), np.zeros(1)
    far = RANK + 1 - 2 * (RANK % 2) if SIZE % 2 == 0 else RANK

    def combine() -> None:
        state = State()
        state.add(o, lse)
        state.add(other, lse)

    works: dict[str, Callable[[], Any]] = {
        "attention": lambda: na.attention(*mine),
        "combine": combine,
        "copy": lambda: [x.reshape(2, tokens, 128)[:, ::-1].copy() for x in (k, v)],
        "send": lambda: COMM.Sendrecv(block, far, recvbuf=arriving, source=far),
        "short": lambda: COMM.Sendrecv(short, far, recvbuf=np.empty_like(short), source=far),
        "ring": lambda: nm.ring_attention(*mine, is_causal=True),
        "gathered": lambda: nm.gather_attention(*mine, is_causal=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(ROUNDS + 1):
        for name, work in works.items():
            other = o.copy()
            took = clock(work)
            if number:  # the first brings caches and memory up
                seconds[name].append(took)
    median = {name: statistics.median(each) for name, each in seconds.items()}
    node = Node(
        flops=2 * layer.flops / SIZE**2 / median["attention"],
        combine=median["combine"] / o.size,
        copy=(k.nbytes + v.nbytes) / median["copy"],
        bandwidth=block.nbytes / median["send"],
        latency=median["short"],
    )
    if RANK:
        return
    print(
        f"{SIZE} processes, {tokens} tokens: {node.flops / 1e9:.1f} GFLOP/s each, combine "
        f"{node.combine * 1e9:.1f} ns, copy {node.copy / 1e9:.1f} GB/s, send "
        f"{node.bandwidth / 1e9:.1f} GB/s after {node.latency * 1e6:.0f} µs"
    )
    for name, formula in (("ring", ring_seconds), ("gathered", gather_seconds)):
        predicted = sum(formula(layer, node, SIZE).values())
        low, high = min(seconds[name]), max(seconds[name])
        print(
            f"  {name}: predicted {predicted:.2f} s, measured {median[name]:.2f} s "
            f"({low:.2f} to {high:.2f}), ratio {median[name] / predicted:.2f}"
        )


if __name__ == "__main__":
    main()
