"""One step of a decoder at a time, with a cache of keys and values of fixed capacity.

`kv_lens` says how much of the cache each text has filled, `q_offset` where its new token stands:
the texts of a batch may be of different lengths, and nothing is copied or masked.

Run it with: python examples/decoder_step.py
"""

from __future__ import annotations

import numpy as np

import numattn as na

BATCH, QUERY_HEADS, KEY_HEADS, WIDTH, CAPACITY = 2, 8, 2, 64, 256


def main() -> None:
    rng = np.random.default_rng(0)
    keys = np.full((BATCH, KEY_HEADS, CAPACITY, WIDTH), np.nan, np.float32)  # not yet filled
    values = keys.copy()
    lengths = np.array([100, 37])  # tokens that each text has so far
    for text, length in enumerate(lengths):
        prompt = (KEY_HEADS, length, WIDTH)
        keys[text, :, :length] = rng.standard_normal(prompt, np.float32)
        values[text, :, :length] = rng.standard_normal(prompt, np.float32)

    for step in range(3):
        # The model's projections would make these from the newest token of each text.
        q = rng.standard_normal((BATCH, QUERY_HEADS, 1, WIDTH), np.float32)
        new = rng.standard_normal((2, BATCH, KEY_HEADS, WIDTH), np.float32)
        for text, length in enumerate(lengths):
            keys[text, :, length], values[text, :, length] = new[:, text]
        lengths += 1
        o = na.attention(q, keys, values, is_causal=True, kv_lens=lengths, q_offset=lengths - 1)
        print(f"step {step}: texts of {lengths.tolist()} tokens, output {o.shape}, "
              f"all finite: {bool(np.isfinite(o).all())}")  # fmt: skip

    # Each text alone, cut to its own length, gives the same bits.
    for text, length in enumerate(lengths):
        alone = na.attention(
            q[text], keys[text, :, :length], values[text, :, :length],
            is_causal=True, q_offset=int(length) - 1,
        )  # fmt: skip
        print(f"text {text} alone: same bits:", np.array_equal(alone, o[text]))
    print(na.plan(q.shape, keys.shape))


if __name__ == "__main__":
    main()
