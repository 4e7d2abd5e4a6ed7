"""Attention with linear biases."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from numattn._arguments import size


def alibi_slopes(num_heads: int) -> NDArray[np.float32]:
    """Slopes of the ALiBi heads, for the ``alibi_slopes`` of :func:`numattn.attention`.

    For a power of two n the slopes are ``2^(-8/n), 2^(-16/n), …, 2^(-8)``. For any other number
    they are those of the next lower power n, followed by the first, third, fifth … of 2n.

    Parameters
    ----------
    num_heads : int

    Returns
    -------
    float32 array of shape (num_heads,)

    Raises
    ------
    ValueError
        ``num_heads`` is less than 1.

    Notes
    -----
    Press, Smith and Lewis, "Train Short, Test Long: Attention with Linear Biases Enables Input
    Length Extrapolation" (2022), and its published code for other numbers of heads.

    Examples
    --------
    >>> from numattn import position
    >>> position.alibi_slopes(6)
    array([0.25      , 0.0625    , 0.015625  , 0.00390625, 0.5       ,
           0.125     ], dtype=float32)
    """
    heads = size("num_heads", num_heads, least=1)
    power = 1 << (heads.bit_length() - 1)
    between = _geometric(2 * power)[0::2][: heads - power]
    return np.concatenate((_geometric(power), between)).astype(np.float32)


def _geometric(heads: int) -> NDArray[np.float64]:
    ratio = math.pow(2.0, -8.0 / heads)
    return np.power(ratio, np.arange(1, heads + 1))
