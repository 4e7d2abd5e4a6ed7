"""Encodings of position in float64."""

from __future__ import annotations

import numpy as np

from .score import Float64Array


def sinusoidal(n: int, d: int, *, base: float = 10000.0) -> Float64Array:
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
    return np.where(column % 2 == 0, np.sin(angle), np.cos(angle))
