"""A scale of scores for each head: queries are multiplied by it, and the core's scale is 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from numattn._arguments import float_array
from numattn._names import Array


def with_head_scale(
    q: Array, scale: ArrayLike, score: Mapping[str, Any], layout: object
) -> tuple[Array, Mapping[str, Any]]:
    """q times a scale that is an array, and the score's arguments without it.

    Raises
    ------
    TypeError, ValueError
        The scale is no array of finite numbers (Hq,) or (..., Hq), or ``relative`` is given.
    """
    if score.get("relative") is not None:
        raise ValueError("scale must be one number with relative, whose terms it multiplies, too")
    factor = float_array("scale", scale, max(q.ndim - 2, 1))
    if q.ndim < 3:
        raise ValueError(f"q must have 3 or 4 dimensions, not shape {q.shape}")
    heads_axis = -3 if layout == "bhsd" else -2
    shape = (*q.shape[:-3], q.shape[heads_axis])
    if factor.shape[-1] != shape[-1] or any(
        mine not in (1, its) for mine, its in zip(factor.shape[::-1], shape[::-1], strict=False)
    ):
        raise ValueError(f"scale must be one number or broadcast to {shape}, not {factor.shape}")
    if not np.isfinite(factor).all():
        raise ValueError(f"scale must be finite, not {factor[~np.isfinite(factor)][0]}")
    if heads_axis == -3:
        factor = factor[..., np.newaxis, np.newaxis]
    else:
        factor = factor[..., np.newaxis, :, np.newaxis]
    with np.errstate(all="ignore"):
        return (q * factor).astype(q.dtype), {**score, "scale": 1.0}
