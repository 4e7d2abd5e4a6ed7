"""Exact combination of attentions over disjoint sets of keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn._aligned import empty
from numattn._arguments import as_array, in_kind_of
from numattn._names import Array


def merge_states(
    outs: Sequence[ArrayLike], lses: Sequence[ArrayLike]
) -> tuple[Array, NDArray[np.float32]]:
    """Attention over all keys from attentions over disjoint parts of them.

    ``lse = log Σ exp(lse_i)``, ``o = Σ exp(lse_i − lse) · o_i``: what one call over all the keys
    would give, whatever the parts.

    Parameters
    ----------
    outs : sequence of arrays of shape (..., S, Dv)
        Results of :func:`numattn.attention` in layout "bhsd", of one shape and dtype.
    lses : sequence of arrays of shape (..., S)
        Their log-sum-exps. −inf, a part without visible keys, is neutral whatever its output.

    Returns
    -------
    o : array of shape (..., S, Dv)
        In the dtype of ``outs``; 0 where every part is −inf.
    lse : float32 array of shape (..., S)

    Raises
    ------
    TypeError
        The dtypes differ or are not floating-point.
    ValueError
        There is no part, or shapes do not fit.

    Notes
    -----
    Ye et al., "FlashInfer" (2024), section on attention states. A sink belongs to one part only.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> x = np.eye(4, dtype=np.float32)[None]
    >>> whole = na.attention(x, x, x)
    >>> halves = x[:, :2], x[:, 2:]
    >>> parts = [na.attention(x, half, half, return_lse=True) for half in halves]
    >>> merged, lse = na.merge_states(*zip(*parts))
    >>> bool(np.allclose(merged, whole))
    True
    """
    outs = list(outs)
    results = [as_array("outs", o) for o in outs]
    sums = [as_array("lses", lse) for lse in lses]
    _check(results, sums)
    given = {array.dtype for array in (results[0], *sums)}
    wide = np.float64 if np.dtype(np.float64) in given else np.float32
    stacked = np.stack([lse.astype(wide) for lse in sums])
    peak = stacked.max(axis=0)
    with np.errstate(invalid="ignore"):  # −inf − −inf, replaced at once
        weights = np.where(np.isneginf(stacked), 0, np.exp(stacked - peak))
    total = weights.sum(axis=0)
    shares = np.divide(weights, total, out=np.zeros_like(weights), where=total != 0)
    merged = _weighted_sum(shares, results, np.isneginf(stacked))
    with np.errstate(divide="ignore"):
        lse = np.where(total != 0, peak + np.log(total), -np.inf)
    dtype = results[0].dtype
    output = merged if merged.dtype == dtype else _aligned(merged, dtype)
    return in_kind_of(outs[0], (output, _aligned(lse, np.dtype(np.float32))))


def _weighted_sum(shares: Array, results: list[Array], neutral: NDArray[np.bool_]) -> Array:
    """Return Σ share_i · result_i, without the rows that are neutral, whatever these hold."""
    merged = empty(results[0].shape, shares.dtype)
    product = merged
    for index, (share, result) in enumerate(zip(shares, results, strict=True)):
        with np.errstate(invalid="ignore"):  # infinite · 0, replaced at once
            np.multiply(result, share[..., None], out=product)
        if neutral[index].any():
            product[neutral[index]] = 0
        if index == 0:
            product = np.empty_like(merged)
        else:
            merged += product
    return merged


def _aligned(array: Array, dtype: np.dtype[Any]) -> Array:
    result = empty(array.shape, dtype)
    result[...] = array
    return result


def _check(results: list[Array], sums: list[Array]) -> None:
    if not results or len(results) != len(sums):
        raise ValueError(
            f"outs and lses must have as many parts, at least one, not {len(results)} and "
            f"{len(sums)}"
        )
    dtype, shape = results[0].dtype, results[0].shape
    if dtype.name not in ("float16", "bfloat16", "float32", "float64"):
        raise TypeError(f"outs must be floating-point, not {dtype}")
    for index, (result, lse) in enumerate(zip(results, sums, strict=True)):
        if result.dtype != dtype:
            raise TypeError(f"outs must have one dtype, not {dtype} and {result.dtype}")
        if result.ndim < 1 or result.shape != shape or lse.shape != shape[:-1]:
            packed = lse.ndim == 2 and lse.shape[::-1] == shape[:-1] == result.shape[:-1]
            hint = ": of attention_varlen's results, give o.swapaxes(0, 1)" if packed else ""
            raise ValueError(
                f"part {index} must have an output of shape {shape} and an lse of shape "
                f"{shape[:-1]}, not {result.shape} and {lse.shape}{hint}"
            )
