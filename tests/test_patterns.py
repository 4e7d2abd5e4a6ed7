"""Makers of `block_mask`, against their definitions pair by pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import unit_inputs
from numattn import patterns
from tolerance import expect


def pairs(length: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(length)[:, None], np.arange(length)


@pytest.mark.parametrize("length", [1, 64, 300])
@pytest.mark.parametrize("window", [0, 10, 64, 129])
@pytest.mark.parametrize("tokens", [0, 1, 3, [5, 200], [-1]])
def test_longformer(length: int, window: int, tokens: Any) -> None:
    i, j = pairs(length)
    is_global = np.zeros(length, bool)
    if isinstance(tokens, int):
        is_global[:tokens] = True
    else:
        tokens = [token for token in tokens if token < length]
        is_global[tokens] = True
    mask = patterns.longformer(length, window, tokens)
    expected = (abs(i - j) <= window // 2) | is_global[i] | is_global[j]
    assert np.array_equal(mask.to_dense()[0, 0], expected)


@pytest.mark.parametrize("block", [16, 64, 100])
def test_bigbird(block: int) -> None:
    length, count = 1000, -(-1000 // block)
    mask = patterns.bigbird(length, block, window=3, random_blocks=2, seed=1)
    dense = mask.to_dense()[0, 0]
    own, other = pairs(count)
    assert np.array_equal(
        dense, patterns.bigbird(length, block, random_blocks=2, seed=1).to_dense()[0, 0]
    )
    sees = dense[::block, ::block]
    assert np.array_equal(dense, sees.repeat(block, 0).repeat(block, 1)[:length, :length])
    fixed = (abs(own - other) <= 1) | np.isin(own, (0, count - 1)) | np.isin(other, (0, count - 1))
    assert sees[fixed].all()
    drawn = (sees & ~fixed).sum(axis=1)
    assert np.array_equal(drawn, np.minimum((~fixed).sum(axis=1), 2))
    assert mask != patterns.bigbird(length, block, window=3, random_blocks=2, seed=2)
    alone = patterns.bigbird(length, block, 1, 2, 0).to_dense()[0, 0][::block, ::block]
    assert np.array_equal(alone, (own == other) | (own < 2) | (other < 2))


def test_blocks_of_64_need_no_bits() -> None:
    assert len(patterns.bigbird(1024).words) == 0


@pytest.mark.parametrize("stride", [1, 7, 128])
def test_strided(stride: int) -> None:
    i, j = pairs(300)
    expected = (abs(i - j) < stride) | ((i - j) % stride == 0)
    assert np.array_equal(patterns.strided(300, stride).to_dense()[0, 0], expected)


@pytest.mark.parametrize(("window", "dilation"), [(0, 3), (6, 1), (7, 2), (8, 50)])
def test_dilated(window: int, dilation: int) -> None:
    i, j = pairs(300)
    expected = (abs(i - j) <= window // 2 * dilation) & ((i - j) % dilation == 0)
    mask = patterns.dilated(300, window, dilation)
    assert np.array_equal(mask.to_dense()[0, 0], expected)


def test_tree(isa: str, rng: np.random.Generator) -> None:
    """Each guess beside the attention of the text that leads to it."""
    parents = np.array([[-1, 0, 0, 1, 3, -1], [-1, -1, 1, 2, 3, 4]])
    prefix = 100
    q, k, v = unit_inputs(rng, (2, 4, 2), (6, prefix + 6))
    o = na.attention(q, k, v, block_mask=patterns.tree(parents, prefix))
    for b, row in enumerate(parents):
        for guess in range(6):
            path = [guess]
            while row[path[0]] >= 0:
                path.insert(0, int(row[path[0]]))
            seen = [*range(prefix), *(prefix + node for node in path)]
            one = (slice(b, b + 1), slice(None), slice(guess, guess + 1))
            expect(q[one], k[b : b + 1, :, seen], v[b : b + 1, :, seen]).check(o[one])
    alone = patterns.tree(parents[0], prefix).to_dense()
    assert np.array_equal(alone, patterns.tree(parents, prefix).to_dense()[:1])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: patterns.longformer(0, 4), ValueError, "length must be 1 or more, not 0"),
        (lambda: patterns.longformer(8, -1), ValueError, "window must be 0 or more, not -1"),
        (lambda: patterns.longformer(8, 2, [8]), ValueError, "must be in 0 … 7, not 8"),
        (lambda: patterns.longformer(8, 2, -1), ValueError, "global_tokens must be 0 or more"),
        (lambda: patterns.longformer(8, 2.0), TypeError, "window must be an integer"),  # type: ignore[arg-type]
        (lambda: patterns.bigbird(800, window=2), ValueError, "window must be an odd number"),
        (lambda: patterns.bigbird(800, global_blocks=[99]), ValueError, "global_blocks must be in"),
        (lambda: patterns.strided(8, 0), ValueError, "stride must be 1 or more"),
        (lambda: patterns.dilated(8, 2, 0), ValueError, "dilation must be 1 or more"),
        (lambda: patterns.tree([-1, 1]), ValueError, "guess 1 has the parent 1, which is neither"),
        (lambda: patterns.tree([-2]), ValueError, "guess 0 has the parent -2"),
        (lambda: patterns.tree(3), ValueError, r"parents must have shape \(n,\) or \(B, n\)"),
    ],
)  # fmt: skip
def test_errors(make: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make()
