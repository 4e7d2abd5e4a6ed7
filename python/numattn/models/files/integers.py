"""A weight that a file holds as integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arrays import Float32Array, Int64Array


class Integers(NamedTuple):
    """A weight (N, K) as `Linear.from_integers` takes it."""

    integers: NDArray[np.int8] | NDArray[np.uint8]
    scale: Float32Array
    minimum: Float32Array | None

    def rows(self, chosen: slice | Int64Array) -> Integers:
        """Return some of the rows."""
        least = None if self.minimum is None else self.minimum[chosen]
        return Integers(self.integers[chosen], self.scale[chosen], least)


def joined(parts: Sequence[Integers]) -> Integers | None:
    """Return weights one below the other; None if they have not the same form."""
    forms = {(part.integers.dtype, part.scale.shape[1], part.minimum is None) for part in parts}
    if len(forms) > 1:
        return None
    integers, scale, minimum = zip(*parts, strict=True)
    least = None if minimum[0] is None else np.concatenate(minimum)
    return Integers(np.concatenate(integers), np.concatenate(scale), least)
