"""Rule 5: subnormals are honoured, and nothing changes FTZ, DAZ or the rounding mode."""

from __future__ import annotations

import ctypes
import ctypes.util

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, unit_inputs
from child import output_of
from numattn import reference

# Smallest subnormals and their multiples: exact in each dtype.
SMALLEST = {"float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}


def environment() -> tuple[int, bool, bool]:
    """Return the rounding mode, and whether subnormal operands and results survive."""
    name = ctypes.util.find_library("m")
    assert name is not None
    tiny = np.full(64, 2.0**-126, np.float32)
    subnormal = np.full(64, 2.0**-149, np.float32)
    results = bool((tiny * np.float32(0.5) != 0).all())
    operands = bool((subnormal * np.float32(2.0**100) != 0).all())
    return int(ctypes.CDLL(name).fegetround()), operands, results


def test_import_changes_nothing() -> None:
    printed = output_of(
        """
        import ctypes, ctypes.util, numpy as np

        def environment():
            mode = ctypes.CDLL(ctypes.util.find_library("m")).fegetround()
            tiny = np.full(64, 2.0**-126, np.float32) * np.float32(0.5)
            return mode, bool((tiny != 0).all()), bool((tiny * np.float32(2.0**100) != 0).all())

        before = environment()
        import numattn
        assert environment() == before, (before, environment())
        print(before)
        """
    )
    assert printed.strip() == "(0, True, True)"


def test_calls_change_nothing(isa: str, rng: np.random.Generator) -> None:
    before = environment()
    assert before[1:] == (True, True)
    for dtype in DTYPES:
        q, k, v = unit_inputs(rng, (1, 4, 2), (70, 90), (32, 32), dtype)
        na.attention(q, k, v, is_causal=True, num_threads=2)
        na.attention(q[:, :, :1], k, v)
        na.attention_weights(q, k)
        assert environment() == before
    x = rng.standard_normal((33, 40), dtype=np.float32)
    na.Linear(x)(x, activation="gelu", num_threads=2)
    na.layer_norm(x, x[0], num_threads=2)
    na.rms_norm(x, x[0], num_threads=2)
    assert environment() == before


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [(1, 1), (5, 3), (1, 600), (50, 70)])
def test_subnormal_values(
    isa: str, rng: np.random.Generator, lengths: tuple[int, int], dtype: str
) -> None:
    """A mean of subnormals is one, to within one unit of the smallest."""
    q, k, _ = unit_inputs(rng, (1, 2, 2), lengths, (16, 20), dtype)
    multiples = rng.integers(1, 60, (1, 2, lengths[1], 20)) * 1.0
    v = (multiples * SMALLEST[dtype]).astype(DTYPES[dtype])
    assert (v != 0).all()
    o = na.attention(q, k, v).astype(np.float64) / SMALLEST[dtype]
    exact = reference.attention(q, k, v) / SMALLEST[dtype]
    # Sums of float32 subnormals round at every step, by half a unit; nothing else does.
    steps = lengths[1] if dtype == "float32" else 1
    # Weights may be rounded to bfloat16, by 2^-9 of each.
    weights = 2.0**-9 * exact.max() if dtype == "bfloat16" else 0.0
    assert np.abs(o - exact).max() <= 0.51 + 0.5 * (steps - 1) + weights
    assert (o >= 0).all() and o.max() >= 1


@pytest.mark.parametrize("lengths", [(1, 1), (5, 3), (1, 600), (50, 70)])
@pytest.mark.parametrize("which", ["q", "k"])
def test_subnormal_queries_and_keys_reach_the_scores(
    isa: str, rng: np.random.Generator, which: str, lengths: tuple[int, int]
) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 2), lengths, (16, 20))
    small, large = np.float32(2.0**-129), np.float32(2.0**125)
    q, k = np.round(q * 8) / 8, np.round(k * 8) / 8  # so that the products stay exact
    q, k = (q * small, k * large) if which == "q" else (q * large, k * small)
    assert np.abs(q if which == "q" else k).max() < 2.0**-126
    o, lse = na.attention(q, k, v, scale=1.0, return_lse=True)
    exact_o, exact_lse = reference.attention(q, k, v, scale=1.0, return_lse=True)
    flushed = reference.attention(0 * q, k, v)
    assert lengths[1] == 1 or np.abs(exact_o - flushed).max() > 0.01
    # log2(e)·q may be a subnormal of 19 bits.
    np.testing.assert_allclose(o, exact_o, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(lse, exact_lse, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_subnormal_queries_of_16_bits(isa: str, rng: np.random.Generator, dtype: str) -> None:
    k, v = unit_inputs(rng, (1, 2, 2), (20, 33), (16, 16), dtype)[1:]
    q = (rng.integers(-60, 60, (1, 2, 20, 16)) * SMALLEST[dtype]).astype(DTYPES[dtype])
    scale = 0.01 / SMALLEST[dtype]
    got = na.attention_weights(q, k, scale=scale)
    exact = reference.attention_weights(q, k, scale=scale)
    np.testing.assert_allclose(got, exact, rtol=1e-5)
    assert np.ptp(exact) > 0.01


@pytest.mark.parametrize("query_len", [1, 20])
def test_subnormal_weights(isa: str, query_len: int) -> None:
    """e^−95 is a subnormal float32, and a weight."""
    logits = np.array([0.0, -88.0, -95.0, -100.0], np.float32)
    q = np.ones((1, 1, query_len, 1), np.float32)
    weights = na.attention_weights(q, logits.reshape(1, 1, 4, 1))
    expected = np.exp(logits.astype(np.float64))
    # The error of the exponent, 100·2^-24, and half a unit of the smallest number.
    error = np.abs(weights[0, 0] - expected)
    assert (error <= 2e-5 * expected + SMALLEST["float32"]).all()
    assert (weights > 0).all()
