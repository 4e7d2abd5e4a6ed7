"""Attention over a text whose tokens lie on many processes, by mpi4py.

    >>> import numattn.compat.mpi as nm
    >>> q, k, v = (nm.split(x) for x in whole)               # doctest: +SKIP
    >>> o = nm.ring_attention(q, k, v, is_causal=True)       # doctest: +SKIP

Each process has two chunks of the text, one from either end, so that causal attention is the same
work for all (zigzag.py). Keys and values go round (ring.py) or come to all (gather.py).
"""

from __future__ import annotations

from numattn.compat.mpi.gather import gather_attention
from numattn.compat.mpi.ring import ring_attention
from numattn.compat.mpi.zigzag import join, positions, split

__all__ = ["gather_attention", "join", "positions", "ring_attention", "split"]
