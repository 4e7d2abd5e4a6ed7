"""Terms of scores and values by the distance of a query from a key, in float64.

With δ = position − key and row(δ) = distance_rows[clip(δ − first_distance, 0, N − 1)]:

    s = scale·((q + content_bias)·k + (q + position_bias)·query_table[row] + k·key_table[row])
    o = Σ_j weight_j·(v_j + value_table[row])

What is None is left out. Shaw et al., Self-Attention with Relative Position Representations, 2018:
rows by the clipped distance. Dai et al., Transformer-XL, 2019: query_table holds projected
encodings, the biases are u and v. He et al., DeBERTa, 2021: query_table and key_table hold
projected embeddings.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import BoolArray, Float64Array


class Relative(Protocol):
    """What `numattn.position.Relative` has, or any other object.

    Tables are (Hq or 1, T, D or Dv), biases (Hq or 1, D).
    """

    @property
    def query_table(self) -> Any: ...
    @property
    def key_table(self) -> Any: ...
    @property
    def value_table(self) -> Any: ...
    @property
    def content_bias(self) -> Any: ...
    @property
    def position_bias(self) -> Any: ...
    @property
    def distance_rows(self) -> Any: ...
    @property
    def first_distance(self) -> int: ...
    @property
    def scale(self) -> float | None: ...


def table_rows(relative: Relative, distance: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return row(δ) of each distance."""
    rows = np.asarray(relative.distance_rows, np.int64)
    return rows[np.clip(distance - relative.first_distance, 0, len(rows) - 1)]


def with_bias(q: Float64Array, bias: ArrayLike | None) -> Float64Array:
    """Return q + bias, q (B, Hq, R, D) and bias (Hq or 1, D)."""
    return q if bias is None else q + np.asarray(bias).astype(np.float64)[:, np.newaxis]


def distance_scores(
    relative: Relative, q: Float64Array, k: Float64Array, distance: NDArray[np.int64]
) -> Float64Array:
    """Return (q + position_bias)·query_table[row] + k·key_table[row], (B, Hq, R, Sk).

    q (B, Hq, R, D), k (B, Hq, Sk, D), distance (B, 1, R, Sk). A product with each row of a table is
    made once, and then picked by distance.
    """
    rows = np.broadcast_to(table_rows(relative, distance), (*q.shape[:3], k.shape[2]))
    score = np.zeros(rows.shape)
    if relative.query_table is not None:
        table = np.asarray(relative.query_table).astype(np.float64).swapaxes(1, 2)
        product = with_bias(q, relative.position_bias) @ table
        score = score + np.take_along_axis(product, rows, 3)
    if relative.key_table is not None:
        table = np.asarray(relative.key_table).astype(np.float64).swapaxes(1, 2)
        product = k @ table
        score = score + np.take_along_axis(product, rows.swapaxes(2, 3), 3).swapaxes(2, 3)
    return score


def weigh_distances(
    relative: Relative, weight: Float64Array, allowed: BoolArray, distance: NDArray[np.int64]
) -> Float64Array:
    """Return Σ_{j allowed} weight_j·value_table[row], (B, Hq, R, Dv), one key after the other."""
    table = np.asarray(relative.value_table).astype(np.float64)
    table = np.broadcast_to(table, (weight.shape[1], *table.shape[1:]))
    head = np.arange(weight.shape[1])[:, np.newaxis]
    rows = table_rows(relative, distance)
    o = np.zeros((*weight.shape[:3], table.shape[2]))
    for j in range(weight.shape[3]):
        term = weight[..., j, np.newaxis] * table[head, rows[..., j]]
        o += np.where(allowed[..., j, np.newaxis], term, 0.0)
    return o
