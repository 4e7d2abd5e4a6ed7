"""Sigmoid attention against its formula."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal
from numattn import reference
from tolerance import UNIT_ROUNDOFF, distance, float32_epsilon, rounding_error
from tolerance import norm as size_of


@pytest.mark.parametrize("heads", [(1, 1, 1), (2, 4, 2), (1, 6, 1)])
@pytest.mark.parametrize("lengths", [(1, 1), (40, 70), (300, 1100), (5, 0)])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("bias", [None, "number", "full", "per key"])
def test_against_the_formula(
    rng: np.random.Generator,
    heads: tuple[int, int, int],
    lengths: tuple[int, int],
    is_causal: bool,
    bias: Any,
) -> None:
    batch, q_heads, kv_heads = heads
    q = normal(rng, (batch, q_heads, lengths[0], 16))
    k, v = (normal(rng, (batch, kv_heads, lengths[1], width)) for width in (16, 8))
    options: dict[str, Any] = {"is_causal": is_causal}
    if bias == "number":
        options["bias"] = -2.5
    elif bias is not None:
        options["bias"] = normal(rng, (batch, q_heads, *lengths) if bias == "full" else lengths[1:])
    expected = reference.sigmoid_attention(q, k, v, **options)
    got = na.sigmoid_attention(q, k, v, **options)
    # Weights err by ε as exponentials do; their sizes bound the result's.
    size = size_of(reference.sigmoid_attention(q, k, abs(v), **options))
    assert distance(got, expected) <= float32_epsilon(max(lengths[1], 1)) * size


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_dtype_and_layout(rng: np.random.Generator, dtype: str, layout: Any) -> None:
    q, k, v = (x.astype(DTYPES[dtype]) for x in normal(rng, (3, 2, 5, 5, 16)))
    got = na.sigmoid_attention(q, k, v, layout=layout)
    expected = reference.sigmoid_attention(q, k, v, layout=layout)
    assert got.dtype == q.dtype and got.ctypes.data % 64 == 0
    bound = rounding_error(expected, q.dtype) + 16 * UNIT_ROUNDOFF["float32"] * size_of(expected)
    assert distance(got, expected) <= bound
    one = na.sigmoid_attention(q[0], k[0], v[0], layout=layout)
    assert distance(one, got[0].astype(np.float64)) <= bound


def test_hidden_and_large_scores() -> None:
    q = np.full((1, 1, 1), 1e20, np.float32)
    k = np.array([[[1e18], [-1e18], [0]]], np.float32)
    v = np.array([[[1], [10], [100]]], np.float32)
    assert na.sigmoid_attention(q, k, v, bias=0.0).tolist() == [[[51.0]]]
    hidden = np.array([-np.inf, 0, -np.inf], np.float32)
    assert na.sigmoid_attention(q, k, v, bias=hidden).tolist() == [[[0.0]]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["k", "v"])
@pytest.mark.parametrize("token", [0, 100, 130, 600])
def test_no_row_reads_a_later_token(
    rng: np.random.Generator, token: int, bad: float, which: str
) -> None:
    q, k, v = normal(rng, (3, 2, 2, 700, 16))
    clean = na.sigmoid_attention(q, k, v, is_causal=True)
    (k if which == "k" else v)[1, 0, token, 3] = bad
    o = na.sigmoid_attention(q, k, v, is_causal=True)
    np.testing.assert_array_equal(o[1, 0, :token], clean[1, 0, :token])
    np.testing.assert_array_equal(o[0], clean[0])
    np.testing.assert_array_equal(o[1, 1], clean[1, 1])
    if which == "v":
        assert not np.isfinite(o[1, 0, token:, 3]).any()
        assert np.isfinite(o[1, 0, :, :3]).all()
    elif np.isnan(bad):
        assert np.isnan(o[1, 0, token:]).all()


def test_a_key_hidden_by_the_bias_has_no_weight_whatever_its_score(
    rng: np.random.Generator,
) -> None:
    q, k, v = (normal(rng, (1, 2, 70, 16)) for _ in range(3))
    bias = np.zeros(70, np.float32)
    bias[[3, 69]] = -np.inf
    expected = na.sigmoid_attention(q, k, v, bias=bias)
    k[:, :, [3, 69]] = np.nan
    np.testing.assert_array_equal(na.sigmoid_attention(q, k, v, bias=bias), expected)


def test_no_matrix_of_all_pairs(rng: np.random.Generator) -> None:
    q, k, v = normal(rng, (3, 1, 1, 4096, 16))
    tracemalloc.start()
    na.sigmoid_attention(q, k, v)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4096 * 4096


def test_what_does_not_fit() -> None:
    q = np.ones((2, 4, 6, 8), np.float32)
    with pytest.raises(ValueError, match=r"bias must broadcast to \(2, 4, 6, 6\), not \(5,\)"):
        na.sigmoid_attention(q, q, q, bias=np.zeros(5))
    with pytest.raises(TypeError, match="bias must hold real numbers"):
        na.sigmoid_attention(q, q, q, bias="much")
    with pytest.raises(ValueError, match="scale must be finite, not inf"):
        na.sigmoid_attention(q, q, q, scale=np.inf)
    with pytest.raises(ValueError, match=r"k \(2, 4, 5, 8\) and v \(2, 4, 6, 8\) must agree"):
        na.sigmoid_attention(q, q[:, :, :5], q)
