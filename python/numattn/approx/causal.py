"""Causal sums within a block of tokens, of which no row reads a later one."""

from __future__ import annotations

import numpy as np

from numattn._names import Float32Array


def sum_of_seen(weights: Float32Array, values: Float32Array, first: int = 0) -> Float32Array:
    """Σ_j weights_ij · v_j, where row i sees the tokens j <= first + i of the block.

    A product with a weight of 0 hides what is finite. Values that are not are left out of it, and
    added to the rows that see them.

    Parameters
    ----------
    weights : (..., rows, tokens), 0 for what a row does not see
    values : (..., tokens, Dv)
    """
    finite = np.isfinite(values)
    if finite.all():
        return weights @ values
    o: Float32Array = weights @ np.where(finite, values, 0)
    rest = np.where(finite, 0, values)
    others = tuple(axis for axis in range(values.ndim) if axis != values.ndim - 2)
    for token in np.flatnonzero(~finite.all(axis=others)):
        seen = slice(max(token - first, 0), None)
        o[..., seen, :] += weights[..., seen, token, np.newaxis] * rest[..., token, np.newaxis, :]
    return o
