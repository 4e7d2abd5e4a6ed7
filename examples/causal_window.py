"""Attention with a causal mask and a sliding window, beside the formula in plain NumPy.

Run it with: python examples/causal_window.py
"""

from __future__ import annotations

import numpy as np

import numattn as na

BATCH, HEADS, LENGTH, WIDTH = 1, 8, 512, 64
WINDOW = 63  # a query sees itself and the 63 keys before it


def main() -> None:
    rng = np.random.default_rng(0)
    shape = (BATCH, HEADS, LENGTH, WIDTH)
    q, k, v = (rng.standard_normal(shape, np.float32) for _ in range(3))

    causal = na.attention(q, k, v, is_causal=True)
    windowed = na.attention(q, k, v, is_causal=True, window=(WINDOW, 0))
    print("causal:", causal.shape, causal.dtype, " windowed:", windowed.shape)
    print("while a query has fewer keys before it, both agree:",
          np.array_equal(causal[:, :, : WINDOW + 1], windowed[:, :, : WINDOW + 1]))  # fmt: skip

    # The same in float64 by the formula, with a full (LENGTH, LENGTH) matrix of scores.
    expected = na.reference.attention(q, k, v, is_causal=True, window=(WINDOW, 0))
    error = np.linalg.norm(windowed - expected) / np.linalg.norm(expected)
    print(f"relative error against float64: {error:.1e}")

    # Keys outside the window are not multiplied and then hidden: they are not read.
    k[:, :, 0] = np.nan
    spoilt = np.isnan(na.attention(q, k, v, is_causal=True, window=(WINDOW, 0)))
    reached = np.flatnonzero(spoilt.any(axis=(0, 1, 3)))
    print(f"queries that a NaN in key 0 reaches: {reached[0]} … {reached[-1]}")
    print(na.plan(shape, shape, is_causal=True, window=(WINDOW, 0)))


if __name__ == "__main__":
    main()
