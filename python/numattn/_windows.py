"""Windows of images: what hierarchical vision transformers attend within."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn._aligned import empty
from numattn._arguments import as_array, bounded_integer, in_kind_of, integers
from numattn._names import Array, Int64Array


def windows(x: ArrayLike, size: ArrayLike, shift: ArrayLike = 0) -> Array:
    """An image's tokens by windows of ``size``, from ``shift`` rows and columns on, cyclically.

    Window n is rows ``shift + y·size … shift + (y + 1)·size − 1`` and columns likewise of x, taken
    modulo its height and width, with ``n = y · (width // size) + x``: what ``roll`` by ``−shift``
    and a partition give.

    Parameters
    ----------
    x : array of shape (..., height, width, C)
        Any dtype and strides.
    size, shift : int or pair of int
        Of rows and columns; the image is a whole number of windows.

    Returns
    -------
    array of shape (..., windows, size · size, C)
        A view of x where there is no shift and strides allow it (windows as wide as the image);
        one copy otherwise, whatever the shift.

    Raises
    ------
    TypeError, ValueError
        A number is no integer, or the image is no whole number of windows. Pad it with ``np.pad``,
        as Swin does.

    Notes
    -----
    Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows" (2021).
    Attention within them takes several batch axes: of x (B, height, width, H · D),
    ``windows(x, size).reshape(B, -1, size · size, H, D)`` with ``layout="bshd"``.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> x = np.arange(16).reshape(4, 4, 1)
    >>> na.windows(x, 2)[..., 0].tolist()
    [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    >>> na.windows(x, 2, 1)[..., 0].tolist()
    [[5, 6, 9, 10], [7, 4, 11, 8], [13, 14, 1, 2], [15, 12, 3, 0]]
    """
    image = as_array("x", x)
    if image.ndim < 3:
        raise ValueError(f"x must have shape (..., height, width, C), not {image.shape}")
    height, width, channels = image.shape[-3:]
    rows, columns = _grid(size, height, width)
    down, right = _pair("shift", shift)
    leading = image.shape[:-3]
    if down % height == 0 and right % width == 0:
        shape = (*leading, height // rows, rows, width // columns, columns, channels)
        count = height // rows * (width // columns)
        grid: Array = image.reshape(shape).swapaxes(-4, -3)
        grid = grid.reshape(*leading, count, rows * columns, channels)
    else:
        tokens = image.reshape(*leading, height * width, channels)
        grid = _gathered(tokens, _places(height, width, (rows, columns), (down, right)))
    return in_kind_of(x, grid)


def unwindow(
    x: ArrayLike, size: ArrayLike, shift: ArrayLike = 0, *, height: int, width: int
) -> Array:
    """The image whose :func:`windows` are x.

    Parameters
    ----------
    x : array of shape (..., windows, size · size, C)
    size, shift : int or pair of int
        As they were for :func:`windows`.
    height, width : int
        Of the image.

    Returns
    -------
    array of shape (..., height, width, C)
        A view of x where there is no shift and strides allow it; a copy otherwise.

    Raises
    ------
    TypeError, ValueError
        As for :func:`windows`; or x has not the windows of such an image.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> x = np.arange(16).reshape(4, 4, 1)
    >>> bool((na.unwindow(na.windows(x, 2, 1), 2, 1, height=4, width=4) == x).all())
    True
    """
    parts = as_array("x", x)
    height, width = bounded_integer("height", height), bounded_integer("width", width)
    rows, columns = _grid(size, height, width)
    down, right = _pair("shift", shift)
    counts = (height // rows * (width // columns), rows * columns)
    if parts.ndim < 3 or parts.shape[-3:-1] != counts:
        raise ValueError(f"x must have shape (..., {counts[0]}, {counts[1]}, C), not {parts.shape}")
    leading, channels = parts.shape[:-3], parts.shape[-1]
    if down % height == 0 and right % width == 0:
        shape = (*leading, height // rows, width // columns, rows, columns, channels)
        image: Array = parts.reshape(shape).swapaxes(-4, -3)
        image = image.reshape(*leading, height, width, channels)
    else:
        places = _places(height, width, (rows, columns), (down, right))
        tokens = parts.reshape(*leading, height * width, channels)
        back = np.argsort(places, axis=None).reshape(height, width)
        image = _gathered(tokens, back)
    return in_kind_of(x, image)


def window_mask(height: int, width: int, size: ArrayLike, shift: ArrayLike) -> NDArray[np.bool_]:
    """Which tokens of a shifted window are neighbours in the image: ``mask`` of attention.

    At the far edges a shifted window holds tokens of two or four sides of the image; each sees
    those of its own side.

    Parameters
    ----------
    height, width : int
        Of the image.
    size, shift : int or pair of int
        As for :func:`windows`, shift 0 … size − 1.

    Returns
    -------
    bool array of shape (windows, 1, size · size, size · size)
        True = may attend. It broadcasts to (B, windows, H, size · size, size · size).

    Raises
    ------
    TypeError, ValueError
        As for :func:`windows`.

    Examples
    --------
    >>> import numattn as na
    >>> na.window_mask(4, 4, 2, 1)[1, 0].astype(int)
    array([[1, 0, 1, 0],
           [0, 1, 0, 1],
           [1, 0, 1, 0],
           [0, 1, 0, 1]])
    """
    height, width = bounded_integer("height", height), bounded_integer("width", width)
    rows, columns = _grid(size, height, width)
    down, right = _pair("shift", shift)
    for each, most in ((down, rows), (right, columns)):
        if not 0 <= each < most:
            raise ValueError(f"shift must be 0 … {most - 1} with windows of {most}, not {each}")
    # A token that the shift brings round belongs to the other side, and to no other window.
    side = 2 * (np.arange(height) < down)[:, np.newaxis] + (np.arange(width) < right)
    groups = windows(side[..., np.newaxis], (rows, columns), (down, right))[:, np.newaxis, :, 0]
    same: NDArray[np.bool_] = groups[..., np.newaxis] == groups[..., np.newaxis, :]
    return same


def _pair(name: str, value: ArrayLike) -> tuple[int, int]:
    numbers = integers(name, value)
    if numbers.shape not in ((), (2,)):
        raise ValueError(f"{name} must be one number or a pair, not of shape {numbers.shape}")
    rows, columns = np.broadcast_to(numbers, (2,)).tolist()
    return rows, columns


def _grid(size: ArrayLike, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a window, of which an image has a whole number."""
    rows, columns = _pair("size", size)
    if rows < 1 or columns < 1:
        raise ValueError(f"size must be positive, not {(rows, columns)}")
    if height < 1 or width < 1 or height % rows or width % columns:
        raise ValueError(
            f"an image of {height} x {width} is no whole number of windows of {rows} x {columns}"
        )
    return rows, columns


def _places(height: int, width: int, size: tuple[int, int], shift: tuple[int, int]) -> Int64Array:
    """The token of the image, row by row, that each token of each window is: (windows, tokens)."""
    rows, columns = size
    row = (np.arange(height) + shift[0]) % height
    column = (np.arange(width) + shift[1]) % width
    places = row[:, np.newaxis] * width + column
    grid = places.reshape(height // rows, rows, width // columns, columns)
    whole: Int64Array = grid.swapaxes(1, 2).reshape(-1, rows * columns)
    return whole


def _gathered(tokens: Array, places: Int64Array) -> Array:
    """Tokens (..., n, C) by their places: (..., *places.shape, C)."""
    whole = empty((*tokens.shape[:-2], *places.shape, tokens.shape[-1]), tokens.dtype)
    np.take(tokens, places, axis=-2, out=whole, mode="clip")  # which takes no buffer
    return whole
