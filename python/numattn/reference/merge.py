"""Attentions over disjoint keys as one, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from .arrays import Float64Array


def merge_states(
    outs: Sequence[ArrayLike], lses: Sequence[ArrayLike]
) -> tuple[Float64Array, Float64Array]:
    """Combine attentions over disjoint keys: o = Σ exp(lse_i)·o_i / Σ exp(lse_i).

    Parameters
    ----------
    outs : sequence of arrays (..., S, Dv)
    lses : sequence of arrays (..., S)

    Returns
    -------
    o, lse : float64 arrays

    Examples
    --------
    >>> merge_states([[[1.0]], [[3.0]]], [[0.0], [0.0]])[0].tolist()
    [[2.0]]
    """
    sums = np.stack([np.asarray(lse).astype(np.float64) for lse in lses])
    results = np.stack([np.asarray(o).astype(np.float64) for o in outs])
    with np.errstate(all="ignore"):
        peak = sums.max(axis=0)
        shift = np.where(np.isneginf(peak), 0.0, peak)
        weights = np.exp(sums - shift)
        total = weights.sum(axis=0)
        share = np.where(total > 0, weights / total, 0.0)
        # A part without keys is left out, not multiplied by 0: 0·NaN is NaN.
        terms = np.where(np.isneginf(sums)[..., None], 0.0, share[..., None] * results)
        return terms.sum(axis=0), shift + np.log(total)
