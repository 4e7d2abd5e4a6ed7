"""Which word comes next in a translation."""

from __future__ import annotations

import numpy as np

from numattn import Linear

from ..arrays import Float32Array, Int64Array


class Chooser:
    """Of the words that a translation may consist of, the one with the greatest x·embedding + bias.

    Of several as great, it is the first.
    """

    def __init__(self, embedding: Float32Array, bias: Float32Array, words: Int64Array) -> None:
        self.words = words
        self.output = Linear(embedding[words], bias[words])

    def __call__(self, hidden: Float32Array, num_threads: int | None) -> Int64Array:
        """Return a word (n,) for each of a decoder's outputs (n, E)."""
        logits = self.output(hidden, num_threads=num_threads)
        return np.asarray(self.words[logits.argmax(axis=1)], dtype=np.int64)
