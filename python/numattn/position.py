"""Positional encodings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from numattn._arguments import bounded_integer


def sinusoidal(n: int, d: int, *, base: float = 10000.0) -> NDArray[np.float32]:
    """Sinusoidal positions: sine in even columns, cosine in odd ones.

    ``p[t, 2i] = sin(t / base^(2i/d))`` and ``p[t, 2i+1] = cos(t / base^(2i/d))``.

    Parameters
    ----------
    n : int
        Number of positions, from 0.
    d : int
        Width; may be odd.
    base : float
        Ratio of the longest to the shortest wavelength.

    Returns
    -------
    float32 array of shape (n, d)
        Computed in float64 and rounded once.

    Raises
    ------
    ValueError
        A size is negative or zero, or the base is not positive.

    Notes
    -----
    Vaswani et al., "Attention Is All You Need" (2017), section 3.5.

    Examples
    --------
    >>> from numattn import position
    >>> position.sinusoidal(2, 4).round(3)
    array([[0.   , 1.   , 0.   , 1.   ],
           [0.841, 0.54 , 0.01 , 1.   ]], dtype=float32)
    """
    count = bounded_integer("n", n)
    width = bounded_integer("d", d)
    if count < 0:
        raise ValueError(f"n must not be negative, not {count}")
    if width < 1:
        raise ValueError(f"d must be at least 1, not {width}")
    if not (base > 0 and np.isfinite(base)):
        raise ValueError(f"base must be positive and finite, not {base}")
    pair = np.arange(width) // 2
    angle = np.arange(count)[:, None] / float(base) ** (2 * pair / width)
    return np.where(np.arange(width) % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)
