"""Weights of small integers, of which every group in a row has a scale, as `Linear` packs them.

What files of quantised weights hold. cpp/kernels/panel_format.h has the layouts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numattn._names import Array

COLUMNS = 48
"""Output features of a panel."""

GROUPS = {"groups8": 16, "groups4": 32}
"""Numbers of a row that have a scale in common, by format."""


def packed_groups(
    integers: Array, scale: Array, minimum: Array | None
) -> tuple[str, NDArray[np.int8]]:
    """Return the format and the panels of a weight (N, K).

    Parameters
    ----------
    integers : int8 array (N, K), or uint8 array of numbers up to 15
        The latter become groups4.
    scale : array (N, K / G)
        G is a multiple of the format's own group.
    minimum : array (N, K / G), optional
        For groups4 alone.

    Raises
    ------
    TypeError
        The integers have another dtype.
    ValueError
        Shapes do not fit, integers are too large, or there is a minimum where there can be none.
    """
    if integers.dtype not in (np.int8, np.uint8):
        raise TypeError(
            "integers must be int8, or uint8 numbers of 4 bits, not " + integers.dtype.name
        )
    if integers.ndim != 2 or 0 in integers.shape:
        raise ValueError(f"integers must have shape (out, in), not {integers.shape}")
    format = "groups4" if integers.dtype == np.uint8 else "groups8"
    repeats = _repeats(integers, scale, GROUPS[format])
    parts = [_of_groups("scale", scale, scale.shape, repeats)]
    if format == "groups4":
        if int(integers.max()) > 15:
            raise ValueError(f"integers of dtype uint8 must be 0 … 15, not {int(integers.max())}")
        least = np.zeros(scale.shape, np.float32) if minimum is None else minimum
        parts.append(_of_groups("minimum", least, scale.shape, repeats))
    elif minimum is not None:
        raise ValueError("minimum must be None where integers are int8")
    panels = [_in_panels(part).view(np.int8) for part in parts]
    return format, np.concatenate([*panels, _integers(integers, format)], axis=2).reshape(
        panels[0].shape[0], -1
    )


def _repeats(integers: Array, scale: Array, group: int) -> int:
    """Return of how many groups of the format one of the caller's is."""
    rows, columns = integers.shape
    if scale.ndim == 2 and scale.shape[0] == rows and scale.shape[1] > 0:
        width, rest = divmod(columns, scale.shape[1])
        if rest == 0 and width % group == 0:
            return int(width) // group
    raise ValueError(
        f"scale must have shape ({rows}, {columns} / G) with G a multiple of {group} for integers "
        f"of dtype {integers.dtype.name}, not {scale.shape}"
    )


def _of_groups(
    name: str, numbers: Array, shape: tuple[int, ...], repeats: int
) -> NDArray[np.float32]:
    """Return a float32 number for each group (N, groups of the format)."""
    if numbers.shape != shape:
        raise ValueError(f"{name} must have scale's shape {shape}, not {numbers.shape}")
    return np.repeat(numbers.astype(np.float32, copy=False), repeats, axis=1)


def _in_panels(rows: NDArray[Any]) -> NDArray[Any]:
    """Return (N, groups, ...) as (panels, groups, ... · 48), zero beyond the last row."""
    panels = -(-rows.shape[0] // COLUMNS)
    padded = np.zeros((panels * COLUMNS, *rows.shape[1:]), rows.dtype)
    padded[: rows.shape[0]] = rows
    columns_last = np.moveaxis(padded.reshape(panels, COLUMNS, *rows.shape[1:]), 1, -1)
    return np.ascontiguousarray(columns_last).reshape(panels, rows.shape[1], -1)


def _integers(integers: Array, format: str) -> NDArray[np.int8]:
    """Return the bytes of every group of every panel."""
    grouped = integers.reshape(integers.shape[0], -1, GROUPS[format])
    if format == "groups4":
        grouped = grouped[..., ::2] | (grouped[..., 1::2] << 4)
    return _in_panels(grouped).view(np.int8)
