"""When each token of a text is said, by what the decoder looks at as it writes.

    weights of chosen heads, (tokens, places of the source) each
    → less the mean of tokens, over their deviation; the median of places around; the mean of heads
    → the path of the largest sum from the first token and place to the last (dynamic time warping)
    → the place at which the path comes to each token

(Radford et al.'s code of Whisper, `timing.py`; rows are those that transformers takes: a token's
place is where the decoder looks as it reads the token, which is where the token ends.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..arrays import Float32Array, Int64Array

DIAGONAL, DOWN, RIGHT = 0, 1, 2


def places_of_tokens(weights: Float32Array, width: int) -> Int64Array:
    """Return the place (N,) of each token, given weights (H, N, T) of heads.

    Parameters
    ----------
    weights : float32 array (H, N, T)
        All of 1 or more.
    width : int
        Of the median: an odd number of places.
    """
    deviation = weights.std(axis=1, keepdims=True)
    centred = weights - weights.mean(axis=1, keepdims=True)
    # Of a single token, and where all look alike, nothing is said by it.
    scaled = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)
    total = np.zeros(weights.shape[1:])
    for head in scaled:  # one by one, since the median needs `width` times their memory
        total += smoothed(head, width)
    return warped(-total / len(weights))


def smoothed(rows: Float32Array, width: int) -> Float32Array:
    """Return the median of the `width` numbers around each (N, T), mirrored at both ends.

    >>> smoothed(np.array([[1, 9, 2, 3, 4]], np.float32), 3)
    array([[9., 2., 3., 3., 3.]], dtype=float32)
    """
    side = width // 2
    if rows.shape[1] <= side:
        return rows
    around = np.pad(rows, ((0, 0), (side, side)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(around, width, axis=1)
    result: Float32Array = np.partition(windows, side, axis=2)[:, :, side]
    return result


def warped(cost: NDArray[np.float64]) -> Int64Array:
    """Return the column at which the cheapest path through a cost (N, T) comes to each row.

    A path goes down, right, or both at once; where two are the cheapest, right, as in transformers.

    >>> warped(np.array([[0.0, 1, 9, 9], [9, 9, 0, 2], [9, 9, 9, 0]]))
    array([0, 2, 3])
    """
    rows, columns = cost.shape
    steps = np.full((rows, columns), RIGHT, dtype=np.int8)
    # Along diagonals, each of which follows from the two before it. Row i stands at i + 1, behind
    # one that no path comes from.
    before, last = np.full(rows + 1, np.inf), np.full(rows + 1, np.inf)
    before[0] = 0.0  # where the path begins
    for diagonal in range(rows + columns - 1):
        row = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        both, down, right = before[row], last[row], last[row + 1]
        step = np.where((down < both) & (down < right), DOWN, RIGHT)
        step[(both < down) & (both < right)] = DIAGONAL
        steps[row, diagonal - row] = step
        now = np.full(rows + 1, np.inf)
        now[row + 1] = cost[row, diagonal - row] + np.choose(step, (both, down, right))
        before, last = last, now
    return arrivals(steps)


def arrivals(steps: NDArray[np.int8]) -> Int64Array:
    """Return the column at which the path that steps (N, T) make comes to each row."""
    row, column = steps.shape[0] - 1, steps.shape[1] - 1
    result = np.zeros(steps.shape[0], dtype=np.int64)
    while row >= 0:
        result[row] = column
        step = steps[row, column]
        row -= step != RIGHT
        column -= step != DOWN
    return result
