"""Tables of embeddings, which a model's parts may share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import Float32Array, Int64Array
from ..files.tensors import Tensors


def read_table(
    checkpoint: Tensors, name: str, shared: NDArray[Any], *, from_root: bool = False
) -> NDArray[Any]:
    """Return the file's table of that name, or the shared one if there is none or it is equal."""
    if not checkpoint.has(name, from_root=from_root):
        return shared
    own = checkpoint.take(name, shared.shape, from_root=from_root, dtype=shared.dtype)
    return shared if np.array_equal(own, shared) else own


def embedded(table: NDArray[Any], ids: Int64Array, scale: float) -> Float32Array:
    """Return the rows of a table for ids, times a scale, as float32 of their own."""
    x: Float32Array = table[ids].astype(np.float32)
    if scale != 1:
        x *= np.float32(scale)
    return x
