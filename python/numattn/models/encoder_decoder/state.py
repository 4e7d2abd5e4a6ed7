"""Where a decoder stands in the texts of some sources."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from numattn import ProjectedContext
from numattn.cache import KVCache

from ..arrays import Int64Array


@dataclass
class DecoderState:
    """What goes from one step of the decoder to the next, for the texts of B sources."""

    sources: list[ProjectedContext]
    """Keys and values of the sources for each layer: computed once, read at each step."""
    lengths: Int64Array
    """(B,): of how many tokens, or frames, each source is."""
    cache: KVCache
    """Keys and values of the N texts: N / B, one after the other, of each source."""

    @property
    def position(self) -> int:
        """Return how many tokens each text has."""
        return int(self.cache.lengths[0])

    def fork(self, rows: ArrayLike) -> None:
        """Make text i continue what was text rows[i], of the same source.

        There may be another number of them than before, the same for each source.
        """
        self.cache.fork(rows)

    def restart(self) -> None:
        """Forget the texts; one of each source begins anew."""
        self.cache.truncate(0)
        if self.cache.batch != self.lengths.size:
            self.cache.fork(np.arange(self.lengths.size))
