"""Rotary positions in float64: a pair (x, y) of a head at position t becomes

    x·cos(t·w) − y·sin(t·w),    y·cos(t·w) + x·sin(t·w),    w_i = base^(−2i/dim) for pair i

(Su et al., RoFormer, 2021), with w changed by scalings to longer contexts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import Float64Array


def apply_rope(
    x: ArrayLike,
    cos: ArrayLike,
    sin: ArrayLike,
    *,
    positions: ArrayLike | None = None,
    interleaved: bool = False,
    layout: str = "bhsd",
    out: NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> NDArray[Any]:
    """Turn pairs of elements of each head, as `numattn.apply_rope` does, in float64.

    Parameters
    ----------
    x : array (B, H, S, D), or (H, S, D), or as the layout says
    cos, sin : arrays (S, R) or (B, S, R); with positions (P, R)
        The first 2R elements of a head turn.
    positions : int array (S,) or (B, S), optional
        Rows of the tables.
    interleaved : bool
        Pairs are neighbours; otherwise they lie R apart.
    layout : "bhsd" or "bshd"
    out : array, optional
        Receives the result, cast to its dtype.
    num_threads : int, optional
        Accepted so that calls can be compared; the reference ignores it.

    Returns
    -------
    float64 array of x's shape, or `out`

    Examples
    --------
    >>> apply_rope([[[1.0, 2.0]]], [[0.0]], [[1.0]]).tolist()
    [[[-2.0, 1.0]]]
    """
    heads: Float64Array = np.asarray(x).astype(np.float64)
    tables = [np.asarray(table).astype(np.float64) for table in (cos, sin)]
    if positions is not None:
        tables = [table[np.asarray(positions)] for table in tables]
    head_axis = -3 if layout == "bhsd" else -2
    c, s = (np.expand_dims(table, head_axis) for table in tables)
    pairs = c.shape[-1]
    if interleaved:
        first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    else:
        first, second = slice(0, pairs), slice(pairs, 2 * pairs)
    turned: Float64Array = heads.copy()
    with np.errstate(all="ignore"):
        turned[..., first] = heads[..., first] * c - heads[..., second] * s
        turned[..., second] = heads[..., second] * c + heads[..., first] * s
    if out is None:
        return turned
    np.copyto(out, turned, casting="unsafe")
    return out


class Rope:
    """The tables of `numattn.position.Rope`, pair by pair, in float64.

    Parameters
    ----------
    dim : int
        Elements of a head, of which `partial_rotary_factor` of the scaling turns.
    base : float
    scaling : mapping, optional
        As in a Hugging Face configuration, nothing missing.
    interleaved : bool
        For the caller.

    Examples
    --------
    >>> cos, sin = Rope(2).tables([0, 1])
    >>> sin.round(3).tolist()
    [[0.0], [0.841]]
    """

    def __init__(
        self,
        dim: int,
        *,
        base: float = 10000.0,
        scaling: Mapping[str, Any] | None = None,
        interleaved: bool = False,
    ) -> None:
        self.scaling = {"rope_type": "default", **(scaling or {})}
        self.base = self.scaling.get("rope_theta", base)
        self.dim, self.interleaved = dim, interleaved
        if self.scaling["rope_type"] != "proportional":
            self.dim = int(dim * self.scaling.get("partial_rotary_factor", 1.0))
        self.attention_factor = attention_factor(self.scaling)

    def tables(
        self, positions: ArrayLike, *, length: ArrayLike | None = None
    ) -> tuple[Float64Array, Float64Array]:
        """Return cos and sin of position·w_i times the attention factor, (*positions.shape, dim/2).

        `length` is that of the sequence, by default as long as the positions need; or there is one
        for each row of positions.
        """
        places = np.asarray(positions).astype(np.float64)
        if length is not None and np.ndim(length):
            rows = [
                self.tables(row, length=one)
                for row, one in zip(places, np.asarray(length), strict=True)
            ]
            return np.array([cos for cos, _ in rows]), np.array([sin for _, sin in rows])
        longest = int(places.max(initial=0)) + 1 if length is None else int(np.asarray(length))
        pairs = range(self.dim // 2)
        frequencies = [frequency(i, self.dim, self.base, self.scaling, longest) for i in pairs]
        angles = places[..., np.newaxis] * np.array(frequencies)
        return np.cos(angles) * self.attention_factor, np.sin(angles) * self.attention_factor


def frequency(i: int, dim: int, base: float, scaling: Mapping[str, Any], length: int) -> float:
    """Return the radians per position of pair i.

    The sources: linear, Chen et al., Position Interpolation, 2023; dynamic, NTK-aware scaling;
    yarn, Peng et al., 2023, section 3.2; longrope, Ding et al., 2024; llama3, Llama 3.1, 2024;
    proportional, Gemma 4.
    """
    kind = scaling["rope_type"]
    w = float(base ** (-2 * i / dim))
    if kind == "linear":
        return w / float(scaling["factor"])
    if kind == "dynamic":
        trained = scaling["max_position_embeddings"]
        factor = scaling["factor"]
        growth = factor * max(length, trained) / trained - (factor - 1)
        return float((base * growth ** (dim / (dim - 2))) ** (-2 * i / dim))
    if kind == "yarn":
        interpolated = yarn_ramp(i, dim, base, scaling)
        return interpolated * w / float(scaling["factor"]) + (1 - interpolated) * w
    if kind == "llama3":
        return llama3(w, scaling)
    if kind == "longrope":
        beyond = length > scaling["original_max_position_embeddings"]
        return w / float(scaling["long_factor" if beyond else "short_factor"][i])
    if kind == "proportional":
        turning = int(scaling.get("partial_rotary_factor", 1.0) * dim // 2)
        return w / float(scaling.get("factor", 1.0)) if i < turning else 0.0
    return w


def llama3(w: float, scaling: Mapping[str, Any]) -> float:
    """Return w divided by the factor for long waves, as it is for short ones, mixed between."""
    wavelength = 2 * math.pi / w
    trained, factor = scaling["original_max_position_embeddings"], float(scaling["factor"])
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    if wavelength > trained / low:
        return w / factor
    if wavelength < trained / high:
        return w
    smooth = (trained / wavelength - low) / (high - low)
    return float((1 - smooth) * w / factor + smooth * w)


def yarn_ramp(i: int, dim: int, base: float, scaling: Mapping[str, Any]) -> float:
    """Return how much pair i is interpolated: 0 below pair `low`, 1 above pair `high`."""
    trained = scaling["original_max_position_embeddings"]

    def pair(turns: float) -> float:
        """Return which pair turns so often within the trained length."""
        return dim * math.log(trained / (2 * math.pi * turns)) / (2 * math.log(base))

    low, high = pair(scaling.get("beta_fast", 32)), pair(scaling.get("beta_slow", 1))
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    return min(max((i - low) / (high - low), 0.0), 1.0)


def attention_factor(scaling: Mapping[str, Any]) -> float:
    """Return what cosines and sines are multiplied by."""
    kind = scaling["rope_type"]
    if kind not in ("yarn", "longrope"):
        return 1.0
    if "attention_factor" in scaling:
        return float(scaling["attention_factor"])
    trained = scaling["original_max_position_embeddings"]
    factor = scaling.get("factor") or scaling["max_position_embeddings"] / trained
    if factor <= 1:
        return 1.0
    if kind == "longrope":
        return math.sqrt(1 + math.log(factor) / math.log(trained))
    if "mscale" in scaling and "mscale_all_dim" in scaling:
        over, under = (
            0.1 * scaling[m] * math.log(factor) + 1 for m in ("mscale", "mscale_all_dim")
        )
        return float(over / under)
    return 0.1 * math.log(factor) + 1
