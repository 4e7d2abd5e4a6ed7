"""Encodings and biases of position in float64."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import Float64Array


def sinusoidal(n: int, d: int, *, base: float = 10000.0, halves: bool = False) -> Float64Array:
    """Return the sinusoidal encoding of positions 0 … n − 1, float64 (n, d).

    Column 2i holds sin(pos / base^(2i/d)) and column 2i + 1 the cosine of the same angle. An odd d
    ends with a sine.

    Parameters
    ----------
    n : int
        Number of positions.
    d : int
        Width of the encoding.
    base : float
        Wavelengths run from 2π towards base·2π.
    halves : bool
        Whether all sines stand before all cosines.

    Notes
    -----
    Vaswani et al., Attention Is All You Need, 2017, section 3.5.

    Examples
    --------
    >>> sinusoidal(2, 2).round(3).tolist()
    [[0.0, 1.0], [0.841, 0.54]]
    """
    column = np.arange(d)
    angle = np.arange(n)[:, np.newaxis] / base ** (2 * (column // 2) / d)
    table = np.where(column % 2 == 0, np.sin(angle), np.cos(angle))
    return np.concatenate((table[:, 0::2], table[:, 1::2]), axis=1) if halves else table


def sinusoidal_2d(height: int, width: int, d: int, *, base: float = 10000.0) -> Float64Array:
    """Return the encoding of a grid of patches, row by row, float64 (height·width, d).

    A patch reads sin(row·w), cos(row·w), sin(column·w), cos(column·w), each over d/4 frequencies
    w_i = base^(−4i/d).

    Examples
    --------
    >>> sinusoidal_2d(1, 2, 4).round(3).tolist()
    [[0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.841, 0.54]]
    """
    frequency = base ** (-4 * np.arange(d // 4) / d)
    row, column = (
        place.reshape(-1, 1) * frequency for place in np.mgrid[:height, :width].astype(np.float64)
    )
    return np.concatenate((np.sin(row), np.cos(row), np.sin(column), np.cos(column)), axis=1)


def learned(table: ArrayLike, positions: ArrayLike) -> Float64Array:
    """Return the rows of a table (P, d) that positions name, float64 (*positions.shape, d).

    Examples
    --------
    >>> learned([[1.0, 2.0], [3.0, 4.0]], [1]).tolist()
    [[3.0, 4.0]]
    """
    rows: Float64Array = np.asarray(table).astype(np.float64)[np.asarray(positions)]
    return rows


def alibi_slopes(num_heads: int) -> Float64Array:
    """Return the slopes of ALiBi, float64 (num_heads,).

    2^(−8k/n), k = 1 … n, for a power of two n. Otherwise those of the next lower power n, then
    every other one of those of 2n.

    Notes
    -----
    Press, Smith and Lewis, Train Short, Test Long, 2022, section 3, and its published code.

    Examples
    --------
    >>> alibi_slopes(3).tolist()
    [0.0625, 0.00390625, 0.25]
    """
    power = 2 ** int(math.log2(num_heads))
    slopes = [2.0 ** (-8 * k / power) for k in range(1, power + 1)]
    slopes += [2.0 ** (-8 * k / (2 * power)) for k in range(1, 2 * power, 2)]
    return np.array(slopes[:num_heads])


def t5_bucket(relative: int, num_buckets: int, bidirectional: bool, max_distance: int) -> int:
    """Return the bucket of one relative position, key minus query.

    (Raffel et al., T5, 2020; the logarithm rounds to float32 at each step, as the models do.)
    """
    if bidirectional:
        half = num_buckets // 2
        return (half if relative > 0 else 0) + t5_bucket(-abs(relative), half, False, max_distance)
    distance = max(-relative, 0)
    exact = num_buckets // 2
    if distance < exact:
        return distance
    logarithm = np.float32(math.log(np.float32(distance) / np.float32(exact)))
    part = logarithm / np.float32(math.log(max_distance / exact))
    return min(exact + int(part * np.float32(num_buckets - exact)), num_buckets - 1)


def t5_buckets(
    relative: ArrayLike,
    *,
    num_buckets: int = 32,
    bidirectional: bool = True,
    max_distance: int = 128,
) -> NDArray[np.int64]:
    """Return the bucket of each relative position, int64.

    Examples
    --------
    >>> t5_buckets([-3, 0, 3]).tolist()
    [3, 0, 19]
    """
    places = np.asarray(relative, np.int64)
    buckets = [t5_bucket(int(r), num_buckets, bidirectional, max_distance) for r in places.flat]
    return np.array(buckets, np.int64).reshape(places.shape)


def t5_bias(
    table: ArrayLike,
    q_len: int,
    k_len: int,
    *,
    bidirectional: bool,
    max_distance: int,
    q_offset: int = 0,
) -> Float64Array:
    """Return bias[h, i, j] = table[bucket(j − (q_offset + i)), h], float64 (heads, q_len, k_len).

    Examples
    --------
    >>> t5_bias([[1.0], [2.0]], 2, 2, bidirectional=False, max_distance=2)[0].tolist()
    [[1.0, 1.0], [2.0, 1.0]]
    """
    weights = np.asarray(table).astype(np.float64)
    relative = np.arange(k_len) - (q_offset + np.arange(q_len)[:, np.newaxis])
    buckets = t5_buckets(
        relative,
        num_buckets=len(weights),
        bidirectional=bidirectional,
        max_distance=max_distance,
    )
    return np.moveaxis(weights[buckets], -1, 0)
