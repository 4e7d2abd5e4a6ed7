"""Schemes of relative positions with random tables, as data for tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import numattn as na
from cases import SCORE_STEPS, normal, score_feature, unit_inputs
from numattn import position
from numattn.position import Relative
from tolerance import expect


class Sizes(NamedTuple):
    """What a scheme's tables are made for."""

    heads: int
    query_len: int
    key_len: int
    head_dim: int
    value_dim: int


def _shaw(rng: np.random.Generator, of: Sizes) -> Relative:
    """Few distances, tables shared by the heads, as published."""
    rows = 2 * 7 + 1
    return position.shaw(normal(rng, (rows, of.head_dim)), normal(rng, (rows, of.value_dim)))


def _shaw_far(rng: np.random.Generator, of: Sizes) -> Relative:
    """Values only, a table for each head, no distance clipped."""
    rows = 2 * (of.query_len + of.key_len) + 1
    return position.shaw(None, normal(rng, (of.heads, rows, of.value_dim)))


def _transformer_xl(rng: np.random.Generator, of: Sizes) -> Relative:
    table = (of.heads, of.query_len + of.key_len, of.head_dim)
    biases = (normal(rng, (of.heads, of.head_dim)) for _ in range(2))
    return position.transformer_xl(normal(rng, table), *biases, first_distance=1 - of.key_len)


def _clamped_xl(rng: np.random.Generator, of: Sizes) -> Relative:
    """clamp_len, one bias, and that shared by the heads."""
    table = normal(rng, (of.heads, 20, of.head_dim))
    return position.transformer_xl(table, None, normal(rng, (of.head_dim,)))


def _disentangled(rng: np.random.Generator, of: Sizes) -> Relative:
    shape = (of.heads, 2 * 40, of.head_dim)
    return position.disentangled(normal(rng, shape), normal(rng, shape))


def _log_disentangled(rng: np.random.Generator, of: Sizes) -> Relative:
    shape = (of.heads, 2 * 16, of.head_dim)
    tables = normal(rng, shape), normal(rng, shape)
    return position.disentangled(*tables, position_buckets=16, max_distance=150)


def _anything(rng: np.random.Generator, of: Sizes) -> Relative:
    """All tables and biases, and rows in no order at all."""
    return Relative(
        query_table=normal(rng, (1, 9, of.head_dim)),
        key_table=normal(rng, (of.heads, 9, of.head_dim)),
        value_table=normal(rng, (of.heads, 9, of.value_dim)),
        content_bias=normal(rng, (of.heads, of.head_dim)),
        position_bias=normal(rng, (of.heads, of.head_dim)),
        distance_rows=np.repeat(rng.integers(0, 9, 90), rng.integers(1, 4, 90)),
        first_distance=-60,
    )


SCHEMES: dict[str, Callable[[np.random.Generator, Sizes], Relative]] = {
    "shaw": _shaw,
    "shaw_far": _shaw_far,
    "transformer_xl": _transformer_xl,
    "clamped_xl": _clamped_xl,
    "disentangled": _disentangled,
    "log_disentangled": _log_disentangled,
    "anything": _anything,
}


def relative_options(scheme: str, rng: np.random.Generator, sizes: Sizes) -> dict[str, Any]:
    """Return `relative`, and the `scale` at which scores are unit-normal."""
    relative = SCHEMES[scheme](rng, sizes)
    variance = 1 + (relative.content_bias is not None)
    if relative.query_table is not None:
        variance += 1 + (relative.position_bias is not None)
    variance += relative.key_table is not None
    return {"relative": relative, "scale": 1 / math.sqrt(variance * sizes.head_dim)}


Problem = tuple[Any, Any, Any, dict[str, Any]]


def problem(
    rng: np.random.Generator,
    scheme: str,
    heads: tuple[int, int, int] = (2, 4, 2),
    lengths: tuple[int, int] = (37, 70),
    dims: tuple[int, int] = (24, 20),
    dtype: str = "float32",
) -> Problem:
    """Return q, k, v and the options of a scheme."""
    q, k, v = unit_inputs(rng, heads, lengths, dims, dtype)
    return q, k, v, relative_options(scheme, rng, Sizes(heads[1], *lengths, *dims))


def check(q: Any, k: Any, v: Any, options: dict[str, Any]) -> None:
    expect(q, k, v, **options).check(*na.attention(q, k, v, return_lse=True, **options))


STEPS = (*SCORE_STEPS, "relative")


def score_step(
    name: str, rng: np.random.Generator, full: tuple[int, int, int, int], dims: tuple[int, int]
) -> dict[str, Any]:
    """Return the score arguments of one of `STEPS` for (B, Hq, Sq, Sk) and (D, Dv)."""
    if name != "relative":
        return score_feature(name, rng, full)
    return {"relative": SCHEMES["anything"](rng, Sizes(*full[1:], *dims))}
