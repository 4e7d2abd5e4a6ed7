"""Fixed encodings of position by sines and cosines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from numattn._arguments import flag, size


def sinusoidal(
    n: int, d: int, *, base: float = 10000.0, halves: bool = False
) -> NDArray[np.float32]:
    """Sinusoidal positions: sine in even columns, cosine in odd ones.

    ``p[t, 2i] = sin(t / base^(2i/d))`` and ``p[t, 2i+1] = cos(t / base^(2i/d))``; with ``halves``
    all the sines and then all the cosines, ``p[t, i]`` and ``p[t, ⌈d/2⌉ + i]``.

    Parameters
    ----------
    n : int
        Number of positions, from 0.
    d : int
        Width; may be odd.
    base : float
        Ratio of the longest to the shortest wavelength.
    halves : bool
        Whether sines and cosines stand in halves of their own, as in tensor2tensor, Marian and
        Fairseq, or side by side.

    Returns
    -------
    float32 array of shape (n, d)
        Computed in float64 and rounded once.

    Raises
    ------
    TypeError, ValueError
        A size is no integer, negative or zero, or the base is not positive.

    Notes
    -----
    Vaswani et al., "Attention Is All You Need" (2017), section 3.5. Fairseq and Whisper divide by
    d/2 − 1 where the paper and this have d/2: their wavelengths reach the base itself, which is
    that of ``base ** (d / (d - 2))`` here.

    Examples
    --------
    >>> from numattn import position
    >>> position.sinusoidal(2, 4).round(3)
    array([[0.   , 1.   , 0.   , 1.   ],
           [0.841, 0.54 , 0.01 , 1.   ]], dtype=float32)
    """
    count = size("n", n, least=0)
    width = size("d", d, least=1)
    pair = np.arange(width) // 2
    angle = np.arange(count)[:, None] / wavelength_base(base) ** (2 * pair / width)
    if flag("halves", halves):
        waves = (np.sin(angle[:, 0::2]), np.cos(angle[:, 1::2]))
        return np.concatenate(waves, axis=1).astype(np.float32)
    return np.where(np.arange(width) % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)


def sinusoidal_2d(height: int, width: int, d: int, *, base: float = 10000.0) -> NDArray[np.float32]:
    """Sinusoidal positions of image patches: half of the features for the row, half for the column.

    The patch in row ``y`` and column ``x`` is row ``y · width + x`` of the result, which reads
    ``[sin(y·w), cos(y·w), sin(x·w), cos(x·w)]`` with the d/4 frequencies ``w_i = base^(-4i/d)``.

    Parameters
    ----------
    height, width : int
        Patches per column and per row of the image.
    d : int
        Width of the encoding, a multiple of 4.
    base : float
        Ratio of the longest to the shortest wavelength.

    Returns
    -------
    float32 array of shape (height · width, d)
        Computed in float64 and rounded once.

    Raises
    ------
    ValueError
        A size is negative or zero, ``d`` is not a multiple of 4, or the base is not positive.

    Notes
    -----
    The fixed encoding of ViT-like models such as MAE (He et al., "Masked Autoencoders Are Scalable
    Vision Learners", 2022), as `transformers` has it: sines before cosines, and row before column.
    Code that puts the column first has the two halves exchanged:
    ``np.roll(table, d // 2, axis=1)``.

    Examples
    --------
    >>> from numattn import position
    >>> position.sinusoidal_2d(2, 2, 4).round(3)
    array([[0.   , 1.   , 0.   , 1.   ],
           [0.   , 1.   , 0.841, 0.54 ],
           [0.841, 0.54 , 0.   , 1.   ],
           [0.841, 0.54 , 0.841, 0.54 ]], dtype=float32)
    """
    rows = size("height", height, least=0)
    columns = size("width", width, least=0)
    features = size("d", d, least=1)
    if features % 4:
        raise ValueError(f"d must be a multiple of 4, not {features}")
    frequency = wavelength_base(base) ** (-4 * np.arange(features // 4) / features)
    table = np.empty((rows, columns, 2, 2, features // 4), np.float32)
    for half, count in enumerate((rows, columns)):
        angle = np.arange(count)[:, None] * frequency
        waves = np.stack((np.sin(angle), np.cos(angle)), axis=1)
        table[:, :, half] = waves[:, None] if half == 0 else waves
    return table.reshape(rows * columns, features)


def wavelength_base(base: float) -> float:
    """The ratio of the longest to the shortest wavelength."""
    if not (base > 0 and np.isfinite(base)):
        raise ValueError(f"base must be positive and finite, not {base}")
    return float(base)
