"""Exact attention weights of a few chosen query rows of a long sequence, without the rest.

Run it with: python examples/look_at_weights.py
"""

from __future__ import annotations

import numpy as np

import numattn as na

HEADS, LENGTH, WIDTH = 4, 4096, 64


def main() -> None:
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, HEADS, LENGTH, WIDTH), np.float32)
    k[:, 1234] = 2 * q[:, -1]  # a key that the last query must like

    # All weights would take HEADS · LENGTH² floats, 268 MB here; two rows of each head take 131 kB.
    weights = na.attention_weights(q, k, rows=[100, -1], is_causal=True)
    print("weights:", weights.shape, weights.dtype, f"{weights.nbytes:,} bytes")
    print("each row sums to 1:", bool(np.allclose(weights.sum(axis=-1), 1, atol=1e-6)))
    print("query 100 sees nothing after itself:", bool((weights[:, 0, 101:] == 0).all()))
    print("the last query looks most at keys", weights[:, 1].argmax(axis=-1))

    # A module returns the weights of all its heads on request.
    wq, wk, wv, wo = rng.standard_normal((4, 256, 256), np.float32) / 16
    mha = na.MultiHeadAttention(HEADS, wq, wk, wv, wo)
    y, heads = mha(rng.standard_normal((10, 256), np.float32), return_weights=True)
    print("MultiHeadAttention:", y.shape, "weights", heads.shape)


if __name__ == "__main__":
    main()
