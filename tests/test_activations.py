"""`gelu` and `silu` by themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal
from numattn import reference
from tolerance import UNIT_ROUNDOFF, assert_same_bits

CALLS: dict[str, Any] = {
    "gelu": (na.gelu, reference.gelu, {}),
    "gelu_tanh": (na.gelu, reference.gelu, {"tanh": True}),
    "silu": (na.silu, reference.silu, {}),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_against_the_formula(isa: str, name: str, dtype: str) -> None:
    function, exact, options = CALLS[name]
    x = np.linspace(-12, 12, 40_001).astype(DTYPES[dtype])  # more than two blocks
    got, expected = function(x, **options), exact(x, **options)
    assert got.dtype == x.dtype
    # Tails err by 5e-8 beside the result, which is rounded once.
    bound = 2e-7 + UNIT_ROUNDOFF[dtype] * (abs(expected) + 2e-7) * 1.01
    if dtype == "float16":
        bound += 2.0**-25  # half of its smallest number
    assert np.all(abs(got.astype(np.float64) - expected) <= bound)


@pytest.mark.parametrize("name", CALLS)
def test_bits_are_those_behind_a_projection(isa: str, rng: np.random.Generator, name: str) -> None:
    function, _, options = CALLS[name]
    x = normal(rng, (5, 48)) * 3
    one = na.Linear(np.eye(48, dtype=np.float32))
    assert_same_bits(function(x, **options), one(x, activation=name))


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_bit_depends_on_neighbours_threads_or_strides(
    isa: str, rng: np.random.Generator, name: str, dtype: str
) -> None:
    """More than a work item for each of several threads, and less than a vector."""
    function, _, options = CALLS[name]
    x = (normal(rng, (100_003,)) * 3).astype(DTYPES[dtype])
    y = function(x, num_threads=1, **options)
    assert_same_bits(function(x, num_threads=3, **options), y)
    assert_same_bits(function(np.repeat(x, 3)[::3], **options), y)
    assert_same_bits(function(x[::-1], **options)[::-1], y)
    unaligned = np.frombuffer(b"x" + x.tobytes(), x.dtype, offset=1)
    assert_same_bits(function(unaligned, **options), y)
    for part in (slice(1, 2), slice(7, 24), slice(250, 777)):
        assert_same_bits(function(x[part], **options), y[part])
    assert function(x, out=x, **options) is x
    assert_same_bits(x, y)


@pytest.mark.parametrize("name", CALLS)
def test_shapes_and_strides(rng: np.random.Generator, name: str) -> None:
    function, _, options = CALLS[name]
    x = normal(rng, (3, 4, 50))
    y = function(x, **options)
    assert y.ctypes.data % 64 == 0
    turned = function(x[:, ::-1].swapaxes(0, 2), **options)
    assert_same_bits(turned, y[:, ::-1].swapaxes(0, 2))
    assert function(x[0, 0, 0], **options) == y[0, 0, 0]
    assert function(x[:0], **options).shape == (0, 4, 50)
    out = np.zeros((3, 4, 100), np.float32)[..., ::2]
    assert function(x, out=out, **options) is out
    assert_same_bits(out, y)
    assert function(x, out=x, **options) is x
    assert_same_bits(x, y)


def test_not_finite() -> None:
    x = np.array([np.nan, np.inf, 1, -np.inf, 2], np.float32)
    for function in (na.gelu, na.silu):
        y = function(x)
        assert np.isnan(y[0]) and y[1] == np.inf and y[3] == 0
        assert_same_bits(y[[2, 4]], function(x[[2, 4]]))


def test_what_does_not_fit() -> None:
    x = np.ones(3, np.float32)
    with pytest.raises(TypeError, match="x has dtype float64; it must be float32"):
        na.gelu(np.ones(3))
    with pytest.raises(ValueError, match=r"out must have x's shape \(3,\) and dtype float32"):
        na.silu(x, out=np.ones(4, np.float32))
    with pytest.raises(TypeError, match="tanh must be True or False"):
        na.gelu(x, tanh="yes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_threads must be at least 1, not 0"):
        na.gelu(x, num_threads=0)
    fixed = np.ones(3, np.float32)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        na.silu(x, out=fixed)
