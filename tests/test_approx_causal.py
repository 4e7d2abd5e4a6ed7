"""Causal approximations: no row reads a later token, whatever that holds."""

from __future__ import annotations

import numpy as np
import pytest

from cases import normal
from numattn import approx
from tolerance import assert_same_bits, distance
from tolerance import norm as size_of

HEADS, KV_HEADS = 4, 2
CALLS = {
    "performer": lambda q, k, v: approx.performer(q, k, v, 20, is_causal=True),
    "linear": lambda q, k, v: approx.linear_attention(q, k, v, is_causal=True),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["k", "v"])
def test_no_row_reads_a_later_token(
    rng: np.random.Generator, name: str, bad: float, which: str
) -> None:
    """What is no number reaches the rows that see it, and of its own head and column alone."""
    q = normal(rng, (2, HEADS, 150, 16))
    k, v = (normal(rng, (2, KV_HEADS, 150, width)) for width in (16, 24))
    clean = CALLS[name](q, k, v)
    for head, token, column in ((0, 60, 1), (1, 70, 3), (1, 145, 2)):
        (k if which == "k" else v)[1, head, token, column] = bad
    o = CALLS[name](q, k, v)
    group = HEADS // KV_HEADS
    for head, token in ((0, 60), (1, 70)):
        own = slice(head * group, (head + 1) * group)
        early = clean[1, own, :token]
        assert distance(o[1, own, :token], early) <= 1e-5 * size_of(early)
        if which == "v":
            assert not np.isfinite(o[1, own, token:, 2 * head + 1]).any()
            assert np.isfinite(o[1, own, token:, 0]).all()
        elif np.isnan(bad):
            assert np.isnan(o[1, own, token:]).all()
    assert_same_bits(o[0], clean[0])
