"""Rule 4: huge finite logits give finite results; +inf behaves as in the float64 reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import normal, unit_inputs
from numattn import reference
from tolerance import expect

LARGEST = np.finfo(np.float32).max
LENGTHS = [(1, 5), (1, 300), (7, 70), (50, 130)]


def compare(q: Any, k: Any, v: Any, with_lse: bool = True, **options: Any) -> None:
    """Check against the reference entry by entry; these scores are not unit-normal."""
    o, lse = na.attention(q, k, v, return_lse=True, **options)
    expected_o, expected_lse = reference.attention(q, k, v, return_lse=True, **options)
    assert np.isfinite(o).all()
    np.testing.assert_allclose(o, expected_o, rtol=1e-6, atol=2e-6)
    assert np.isfinite(lse).all()
    if with_lse:
        np.testing.assert_allclose(lse, expected_lse, rtol=1e-6, atol=2e-6)


def single_entries(rng: np.random.Generator, shape: tuple[int, ...], size: float) -> Any:
    """Return keys with a single entry each, ±size or ±size/2.

    Their scores are single products and not sums. Rounding a sum of 1e30 errs by 1e23, which would
    decide between keys of equal score.
    """
    k = np.zeros(shape, np.float32)
    entry = rng.integers(0, shape[-1], (*shape[:-1], 1))
    value = rng.choice([-1.0, -0.5, 0.5, 1.0], entry.shape) * size
    np.put_along_axis(k, entry, value.astype(np.float32), axis=-1)
    return k


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("size", [1e10, 1e20, 1e30])
def test_huge_products(
    isa: str, rng: np.random.Generator, size: float, lengths: tuple[int, int]
) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 2), lengths, (1, 16))
    q = np.sign(q) * np.float32(np.sqrt(size))
    # Some keys share the largest score exactly, the others lie 2·size below or in between.
    k = rng.choice([-1.0, 0.0, 1.0], k.shape).astype(np.float32) * np.float32(np.sqrt(size))
    for options in ({}, {"is_causal": True, "q_offset": lengths[1] - lengths[0]}):
        compare(q, k, v, scale=1.0, **options)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("size", [1e30, -1e30])
def test_huge_scale(
    isa: str, rng: np.random.Generator, size: float, lengths: tuple[int, int]
) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 1), lengths, (16, 16))
    compare(np.sign(q), single_entries(rng, k.shape, 2), v, scale=size)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("size", [1e30, -1e30, LARGEST, -LARGEST])
def test_huge_bias(
    isa: str, rng: np.random.Generator, size: float, lengths: tuple[int, int]
) -> None:
    """A score added to such a number is lost in it: the keys that have it share equally."""
    q, k, v = unit_inputs(rng, (1, 2, 1), lengths, (16, 16))
    bias = np.where(rng.random((1, 1, *lengths)) < 0.3, np.float32(size), np.float32(0))
    bias[..., 0] = 0
    compare(q, k, v, bias=bias, with_lse=abs(size) != LARGEST)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rows_of_the_lowest_float_weigh_all_keys_alike(
    isa: str, rng: np.random.Generator, dtype: str, lengths: tuple[int, int]
) -> None:
    """A popular substitute for −inf: it excludes keys only where another key has more."""
    q, k, v = unit_inputs(rng, (2, 2, 1), lengths, (16, 16), dtype)
    lowest = np.float32(-LARGEST)
    bias = np.zeros((2, 1, *lengths), np.float32)
    bias[0] = lowest
    bias[1, ..., 1:] = lowest
    o, lse = na.attention(q, k, v, bias=bias, return_lse=True)
    mean = v[0].astype(np.float64).mean(axis=1, keepdims=True)
    rtol = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2}[dtype]
    uniform = np.broadcast_to(mean, (2, lengths[0], 16))
    np.testing.assert_allclose(o[0].astype(np.float64), uniform, rtol=rtol, atol=1e-6)
    assert np.isfinite(lse).all()
    first = np.broadcast_to(v[1, :, :1], (2, lengths[0], 16))
    np.testing.assert_array_equal(o[1].astype(np.float32), first.astype(np.float32))


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("size", [1e37, 1e38, 2.3e38])
def test_lse_of_the_largest_floats(
    isa: str, rng: np.random.Generator, size: float, lengths: tuple[int, int]
) -> None:
    """Up to the documented limit, where log2(e)·s leaves float32."""
    q, k, v = unit_inputs(rng, (1, 2, 1), lengths, (16, 16))
    for sign in (1, -1):
        bias = np.full((1, 1, 1, 1), sign * np.float32(size), np.float32)
        _, lse = na.attention(q, k, v, bias=bias, return_lse=True)
        np.testing.assert_allclose(lse, sign * size, rtol=1e-6)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_huge_scores_under_a_softcap(
    isa: str, rng: np.random.Generator, lengths: tuple[int, int]
) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 2), lengths, (1, 16))
    for softcap in (1e-30, 1.0, 50.0, 1e30):
        for size in (1e30, 1e38):
            # |s| = size or 0, so that tanh is 0 or ±1 except for softcap 1e30, where it is exact.
            signs = rng.choice([-1.0, 0.0, 1.0], k.shape).astype(np.float32)
            compare(np.sign(q), signs, v, scale=size, softcap=softcap)


def test_large_finite_inputs_of_16_bits(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 2), (20, 70), (64, 16), "float16")
    q, k = np.float16(60000) * np.sign(q), single_entries(rng, k.shape, 60000).astype(np.float16)
    o, lse = na.attention(q, k, v, return_lse=True)
    expected_o, expected_lse = reference.attention(q, k, v, return_lse=True)
    np.testing.assert_allclose(o.astype(np.float64), expected_o, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(lse, expected_lse, rtol=1e-6)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("options", [{}, {"softcap": 5.0}, {"is_causal": True}])
def test_infinite_key_is_as_in_the_reference(
    isa: str, rng: np.random.Generator, options: dict[str, Any], lengths: tuple[int, int]
) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 2), lengths, (8, 16))
    for sign in (1, -1):
        for j in (0, lengths[1] // 2, lengths[1] - 1):
            infinite = k.copy()
            infinite[0, 1, j, 3] = sign * np.inf
            # Half of the rows meet +inf, the other half −inf.
            expect(q, infinite, v, **options).check(
                *na.attention(q, infinite, v, return_lse=True, **options)
            )


@pytest.mark.parametrize("with_sinks", [False, True])
def test_infinite_bias_is_as_in_the_reference(
    isa: str, rng: np.random.Generator, with_sinks: bool
) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 2), (50, 130), (8, 16))
    options: dict[str, Any] = {"bias": normal(rng, (1, 2, 50, 130))}
    options["bias"][0, 0, 20, [5, 80]] = np.inf
    if with_sinks:
        options["sinks"] = np.zeros(2, np.float32)
    expect(q, k, v, **options).check(*na.attention(q, k, v, return_lse=True, **options))


def test_infinite_sinks_are_as_in_the_reference(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 2), (5, 30))
    sinks = np.array([np.inf, -np.inf], np.float32)
    expect(q, k, v, sinks=sinks).check(*na.attention(q, k, v, sinks=sinks, return_lse=True))


@pytest.mark.parametrize("query_len", [1, 50])
def test_all_scores_minus_infinity_without_being_excluded(isa: str, query_len: int) -> None:
    q = np.ones((1, 1, query_len, 4), np.float32)
    k = np.full((1, 1, 9, 4), -np.inf, np.float32)
    v = np.ones((1, 1, 9, 4), np.float32)
    expect(q, k, v).check(*na.attention(q, k, v, return_lse=True))


def test_far_apart_scores_keep_the_small_weights(isa: str) -> None:
    """A weight of e^−80 counts where the value is large enough."""
    q = np.ones((1, 1, 1, 1), np.float32)
    k = np.array([0.0, -80.0], np.float32).reshape(1, 1, 2, 1)
    v = np.array([0.0, 1e35], np.float32).reshape(1, 1, 2, 1)
    expected = 1e35 * np.exp(-80.0)
    np.testing.assert_allclose(na.attention(q, k, v)[0, 0, 0, 0], expected, rtol=1e-5)


# Scores of single products, so that no rounding decides: q and k have one entry.
AMPLITUDES = [1.0, 1e3, 1e6, 1.5e9, 1.77e10, 1e13, 1e19, 1e30, 1e37]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("queries", [1, 9, 70])
@pytest.mark.parametrize("amplitude", AMPLITUDES)
def test_the_largest_score_has_all_the_weight_whatever_its_size(
    isa: str, rng: np.random.Generator, amplitude: float, queries: int, dtype: str
) -> None:
    """Two keys share the largest score; the others lie so far below that they have no weight."""
    if amplitude > 3e9 and dtype == "float16":
        amplitude = 3e9  # of which the root is a float16
    q, k, v = unit_inputs(rng, (1, 2, 2), (queries, 130), (16, 16), dtype)
    root = np.float32(np.sqrt(amplitude)).astype(q.dtype)
    q[...], k[...] = 0, 0
    q[..., 3] = root
    size = rng.choice([-1.0, 0.0, 0.25, 0.5], k.shape[:-1])
    size[..., 17] = size[..., 101] = 1.0
    k[..., 3] = (size * root.astype(np.float32)).astype(k.dtype)
    scale = 300.0 if amplitude == 1.0 else 1.0
    o, lse = na.attention(q, k, v, scale=scale, return_lse=True)
    pair = v[:, :, [17, 101]].astype(np.float64).mean(axis=2, keepdims=True)
    rounding = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
    np.testing.assert_allclose(
        o.astype(np.float64), np.broadcast_to(pair, o.shape), rtol=rounding, atol=rounding
    )
    top = scale * float(root) ** 2
    np.testing.assert_allclose(lse, top + np.log(2.0), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("queries", [1, 9, 70])
def test_a_scale_brings_an_overflowing_product_back(
    isa: str, rng: np.random.Generator, queries: int, dtype: str
) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 1), (queries, 40), (16, 16), dtype)
    q[...] = 2e22
    size = np.linspace(-1.0, 1.0, 40)
    k[...] = (2e22 * size)[:, None]
    o = na.attention(q, k, v, scale=1e-37)  # scores of up to 6e8; the products reach 6e45
    np.testing.assert_array_equal(
        o.astype(np.float32), np.broadcast_to(v[:, :, 39:], o.shape).astype(np.float32)
    )
