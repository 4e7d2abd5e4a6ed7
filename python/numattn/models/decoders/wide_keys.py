"""Which channels of a layer's keys a cache of integers is to give 16 bits.

A channel's number is ``k_c = w_c · g∘x̂ + (w_c · β + b_c)``: with x̂ what a norm makes of a token,
whose elements have the mean square 1, g and β the norm's parameters, w_c and b_c the projection's.
What varies has a standard deviation of about ``|w_c ∘ g|``. What does not tells tokens nothing, but
in 8 bits with one scale for all channels it costs the others their precision: in some Qwen-2 models
it is hundreds of times that. Rotary positions turn it with its pair, so that either channel of a
pair holds all of it somewhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import Float32Array

# Of the root mean square of a head's standard deviations. The largest of 64 to 128 numbers is some
# 2.5 of them; with less beside it, the constant at most doubles the scale.
LARGEST_CONSTANT = 3.0


def wide_keys(
    weight: NDArray[Any],
    bias: Float32Array,
    gain: Float32Array,
    shift: Float32Array | None,
    kv_heads: int,
    pairs: int,
) -> NDArray[np.bool_]:
    """Return flags (Hkv, D) of the channels whose constant is large.

    Parameters
    ----------
    weight, bias : arrays (Hkv·D, E), (Hkv·D,)
        The projection to keys.
    gain, shift : arrays (E,)
        Parameters of the norm before it; the shift may be missing.
    pairs : int
        Channels i and i + pairs turn together, for i < pairs; those beyond 2·pairs do not turn.
    """
    rows = weight.astype(np.float32)
    constant = bias if shift is None else bias + rows @ shift
    rows *= gain
    varying = np.einsum("re,re->r", rows, rows).reshape(kv_heads, -1)
    amplitude = np.abs(constant).reshape(kv_heads, -1)
    both = np.hypot(amplitude[:, :pairs], amplitude[:, pairs : 2 * pairs])
    amplitude[:, : 2 * pairs] = np.concatenate([both, both], axis=1)
    limit = LARGEST_CONSTANT * np.sqrt(varying.mean(axis=1, keepdims=True))
    return np.asarray(amplitude > limit)
