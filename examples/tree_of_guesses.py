"""Many guesses of the next tokens checked in one step: a tree of them over a cached prefix.

Each guess sees the prefix, its ancestors and itself. What the model accepts is kept: the cache is
cut to the prefix, and the accepted branch's keys and values, which the step had, are appended.

Run it with: python examples/tree_of_guesses.py
"""

from __future__ import annotations

import numpy as np

import numattn as na

LAYERS, QUERY_HEADS, KEY_HEADS, WIDTH, PREFIX = 2, 8, 2, 64, 100
PARENTS = [-1, 0, 0, 1, 3, 2]  # of six guesses: 0 follows the prefix, 1 and 2 follow 0, ...
DEPTHS = [0, 1, 1, 2, 3, 2]  # a model turns keys and queries by PREFIX + DEPTHS, not by row
ACCEPTED = [0, 1, 3]


def main() -> None:
    rng = np.random.default_rng(0)

    def new(heads: int, count: int) -> np.ndarray:
        return rng.standard_normal((1, heads, count, WIDTH), np.float32)

    cache, branch = (na.KVCache(LAYERS, 1, KEY_HEADS, WIDTH) for _ in range(2))
    for layer in range(LAYERS):
        prompt = new(KEY_HEADS, PREFIX), new(KEY_HEADS, PREFIX)
        for each in (cache, branch):
            each.append(layer, *prompt)

    tree = na.patterns.tree(PARENTS, prefix=PREFIX)
    steps = []
    for layer in range(LAYERS):
        q, k, v = new(QUERY_HEADS, 6), new(KEY_HEADS, 6), new(KEY_HEADS, 6)
        o = cache.attend(layer, q, k, v, block_mask=tree)
        alone = branch.attend(layer, *(x[:, :, ACCEPTED] for x in (q, k, v)))
        off = float(abs(o[:, :, ACCEPTED] - alone).max())
        print(f"layer {layer}: guesses of the tree and the branch alone differ by {off:.1e}")
        steps.append((k, v))

    cache.truncate(PREFIX)
    for layer, (k, v) in enumerate(steps):
        cache.append(layer, k[:, :, ACCEPTED], v[:, :, ACCEPTED])
    q, k, v = new(QUERY_HEADS, 1), new(KEY_HEADS, 1), new(KEY_HEADS, 1)
    o = [each.attend(0, q, k, v) for each in (cache, branch)]
    print("the next token, of both: same bits:", np.array_equal(*o))


if __name__ == "__main__":
    main()
