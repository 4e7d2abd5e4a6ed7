"""`layer_norm` and `rms_norm` of numbers whose squares float32 does not hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal
from numattn import reference
from tolerance import UNIT_ROUNDOFF, assert_same_bits

LARGEST = float(np.finfo(np.float32).max)
SMALLEST = 2.0**-149
LEAST_EPS = 2e-38
NORMS = ("layer_norm", "rms_norm")
WIDTHS = (2, 3, 33, 768, 1023)


def call(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    return getattr(na, name), getattr(reference, name)


def assert_close(got: Any, x: Any, exact: Any) -> None:
    """Check entry by entry, as test_norm.py derives it: sums of N, 8 roundings, and the dtype's."""
    assert got.dtype == x.dtype and np.isfinite(exact).all()
    relative = UNIT_ROUNDOFF["float32"] * (8 + np.sqrt(x.shape[-1]))
    own = 0.0 if x.dtype == np.float32 else UNIT_ROUNDOFF[x.dtype.name]
    # Results below the normal numbers of the dtype have no relative rounding.
    bound = relative * (np.abs(exact) + 1) + own * np.abs(exact) + float(np.finfo(np.float32).tiny)
    error = np.abs(got.astype(np.float64) - exact)
    assert (error <= bound).all(), (error / bound).max()


def spread(rng: np.random.Generator, size: float, width: int, dtype: str = "float32") -> Any:
    """Return rows whose largest elements are that size, or what of it the dtype holds."""
    x = rng.uniform(-1, 1, (6, width))
    x[:, 0] = 1
    x[:, -1] = -1
    return (x * size).astype(np.float32).astype(DTYPES[dtype])


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("size", [1e18, 1e19, 2e19, 1e25, 1e38, LARGEST])
def test_large_numbers(
    isa: str, rng: np.random.Generator, size: float, width: int, name: str
) -> None:
    ours, exact = call(name)
    x, weight = spread(rng, size, width), normal(rng, (width,))
    for eps in (0.0, 1e-6, 1e30):
        assert_close(ours(x, weight, eps=eps), x, exact(x, weight, eps=eps))


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("size", [1e-15, 1e-19, 1e-22, 1e-25, 1e-37, 1e-42])
def test_small_numbers(
    isa: str, rng: np.random.Generator, size: float, width: int, name: str
) -> None:
    ours, exact = call(name)
    x, weight = spread(rng, size, width), normal(rng, (width,))
    for eps in (0.0, max(size**2, LEAST_EPS), 1e-37, 1e-30, 1e-21, 1e-6):
        eps = float(np.float32(eps))  # as the core takes it
        assert_close(ours(x, weight, eps=eps), x, exact(x, weight, eps=eps))


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("size", [6e-8, 1e-4, 6e4])
def test_numbers_of_16_bits(
    isa: str, rng: np.random.Generator, size: float, dtype: str, name: str
) -> None:
    """float16 has none whose squares are lost; bfloat16 has those of float32."""
    ours, exact = call(name)
    weight = np.ones(300, np.float32)
    sizes = [size, 1e-40, 1e-25, 1e25, 3e38] if dtype == "bfloat16" else [size]
    for each in sizes:
        x = spread(rng, each, 300, dtype)
        got, expected = ours(x, weight, eps=0.0), exact(x, weight, eps=0.0)
        assert_close(got, x, expected)


def test_the_smallest_number_alone(isa: str) -> None:
    """Of one element among zeros the mean of the squares is x²/N, and the result √N."""
    x = np.zeros((1, 64), np.float32)
    x[0, 5] = SMALLEST
    got = na.rms_norm(x, np.ones(64, np.float32), eps=0.0)
    assert got[0, 5] == 8.0 and np.count_nonzero(got) == 1


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_other_rows_keep_their_bits(
    isa: str, rng: np.random.Generator, name: str, eps: float
) -> None:
    ours, _ = call(name)
    x, weight = normal(rng, (9, 200)), normal(rng, (200,))
    alone = ours(x[3:6], weight, eps=eps)
    x[:3] *= np.float32(1e37)
    x[6:] *= np.float32(1e-37)
    assert_same_bits(ours(x, weight, eps=eps)[3:6], alone)


@pytest.mark.parametrize("name", NORMS)
def test_a_power_of_two_changes_nothing(isa: str, rng: np.random.Generator, name: str) -> None:
    """Without ε the result does not depend on the scale, to the last bit."""
    ours, _ = call(name)
    x, weight = normal(rng, (5, 100)), normal(rng, (100,))
    plain = ours(x, weight, eps=0.0)
    for power in (-105, -90, -60, 60, 100, 125):  # none of them makes a number subnormal
        assert_same_bits(ours(np.ldexp(x, power), weight, eps=0.0), plain)


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("relayout", ["same", "out is x", "every other", "backwards"])
def test_any_memory(isa: str, rng: np.random.Generator, relayout: str, name: str) -> None:
    ours, _ = call(name)
    for size in (1e30, 1e-30):
        x, weight = spread(rng, size, 77), normal(rng, (77,))
        expected = ours(x, weight, eps=0.0)
        wide = np.zeros((6, 154), np.float32)
        wide[:, ::2] = x
        given = {
            "same": x,
            "out is x": x.copy(),
            "every other": wide[:, ::2],
            "backwards": np.ascontiguousarray(x[:, ::-1])[:, ::-1],
        }[relayout]
        before = given.copy()
        out = given if relayout == "out is x" else None
        assert_same_bits(ours(given, weight, eps=0.0, out=out), expected)
        if out is None:
            assert_same_bits(given, before)


@pytest.mark.parametrize("name", NORMS)
def test_rows_that_no_scale_brings_back(isa: str, rng: np.random.Generator, name: str) -> None:
    """Infinities and NaN give NaN, or 0 beside an infinity, as in the reference."""
    ours, exact = call(name)
    x, weight = spread(rng, 1e30, 50), np.ones(50, np.float32)
    x[0, 7], x[1, 7], x[2, 7] = np.inf, -np.inf, np.nan
    got, expected = ours(x, weight), exact(x, weight)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    kept = ~np.isnan(expected)
    np.testing.assert_allclose(got[kept], expected[kept], rtol=1e-5)


@pytest.mark.parametrize("eps", [1e-5, 1e-30, LEAST_EPS])
def test_rows_of_zeros(isa: str, eps: float) -> None:
    zeros, ones = np.zeros((3, 40), np.float32), np.ones(40, np.float32)
    for name in NORMS:
        np.testing.assert_array_equal(call(name)[0](zeros, ones, eps=eps), 0)


@pytest.mark.parametrize("number", [1e-30, -1e-30, 1000.1, 3e38])
@pytest.mark.parametrize("eps", [1e-12, 1e-30])
def test_equal_numbers_of_any_size_are_their_mean(isa: str, number: float, eps: float) -> None:
    x = np.full((2, 768), number, np.float32)
    np.testing.assert_array_equal(na.layer_norm(x, np.ones(768, np.float32), eps=eps), 0)
