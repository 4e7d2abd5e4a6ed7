"""Numbers that come in float64 and that float32 does not hold: right, limited, or refused."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal, unit_inputs
from numattn import reference
from tolerance import HIGH, assert_same_bits, distance, expect, float32_epsilon

SMALLEST, LARGEST = 2.0**-126, 2.3e38
HUGE = np.finfo(np.float64).max


@pytest.fixture
def inputs(rng: np.random.Generator) -> tuple[Any, Any, Any]:
    return unit_inputs(rng, (1, 2, 2), (5, 20), (16, 16))


@pytest.mark.parametrize("queries", [1, 40])  # few and many rows have kernels of their own
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "softcap", [5e-324, 1e-46, 1e-45, 1e-40, SMALLEST, 1e-20, 1e20, LARGEST, 3e38, 1e39, HUGE]
)
def test_a_softcap_of_any_size(
    isa: str, softcap: float, dtype: str, queries: int, rng: np.random.Generator
) -> None:
    """A small one makes all scores equal, a large one leaves them as they are."""
    q, k, v = (
        x.astype(DTYPES[dtype]) for x in unit_inputs(rng, (1, 2, 2), (queries, 33), (16, 16))
    )
    bias = normal(rng, (33,))
    expected = expect(q, k, v, softcap=softcap, bias=bias)
    expected.check(*na.attention(q, k, v, softcap=softcap, bias=bias, return_lse=True))


# What scores are computed in: a dtype, or float32 in bfloat16 parts.
PRECISIONS = {**{dtype: (dtype, "highest") for dtype in DTYPES}, "high": ("float32", "high")}


def check_in(computed: str, inputs: tuple[Any, Any, Any], **options: Any) -> None:
    """Check a call's outputs and lse."""
    dtype, precision = PRECISIONS[computed]
    q, k, v = (x.astype(DTYPES[dtype]) for x in inputs)
    expected = expect(q, k, v, **options)
    o, lse = na.attention(q, k, v, return_lse=True, precision=precision, **options)
    if computed != "high":
        expected.check(o, lse)
    factor = HIGH / float32_epsilon(k.shape[2]) if computed == "high" else 1.0
    assert distance(o, expected.o) <= factor * expected.o_bound
    assert distance(lse, expected.lse) <= factor * expected.lse_bound


@pytest.mark.parametrize("queries", [1, 40])
@pytest.mark.parametrize("computed", PRECISIONS)
@pytest.mark.parametrize("size", [1e20, 1e36, LARGEST])
def test_steps_of_a_score_of_any_size(
    isa: str, size: float, computed: str, queries: int, rng: np.random.Generator
) -> None:
    """Alone and one behind the other: a softcap, biases of both signs, slopes."""
    inputs = unit_inputs(rng, (1, 2, 2), (queries, 70), (16, 16))
    bias = np.where(rng.random((queries, 70)) < 0.5, -size, normal(rng, (queries, 70)))
    larger = bias.astype(np.float32)
    larger[:, rng.integers(70)] = size
    for options in (
        {"softcap": size},
        {"softcap": size, "bias": bias.astype(np.float32)},
        {"bias": larger},
        {"alibi_slopes": np.array([size, size])},
        {"softcap": size, "alibi_slopes": np.array([1.0, 1e-30]), "bias": normal(rng, (70,))},
        {"softcap": size, "mask": bias != -size, "is_causal": True, "q_offset": 69},
    ):
        check_in(computed, inputs, **options)


@pytest.mark.parametrize("queries", [1, 40])
@pytest.mark.parametrize("computed", PRECISIONS)
@pytest.mark.parametrize("power", [-60, -10, 10, 60])
def test_a_scale_makes_up_for_the_size_of_keys(
    isa: str, power: int, computed: str, queries: int, rng: np.random.Generator
) -> None:
    """Bit by bit: powers of two round nothing."""
    dtype, precision = PRECISIONS[computed]
    if dtype == "float16" and abs(power) > 10:
        return  # not numbers of it
    q, k, v = unit_inputs(rng, (1, 2, 2), (queries, 70), (16, 16))
    k = np.round(k * 64) / 64
    for options in ({}, {"softcap": 3.0}, {"bias": normal(rng, (70,))}):
        results = [
            na.attention(
                *(x.astype(DTYPES[dtype]) for x in (q, k * size, v)),
                scale=0.25 / size,
                precision=precision,
                **options,
            )
            for size in (1.0, 2.0**-power)
        ]
        assert_same_bits(results[1], results[0], str(options))


@pytest.mark.parametrize("name", ["scale", "softcap"])
def test_a_number_is_no_text(inputs: tuple[Any, Any, Any], name: str) -> None:
    lists = [[1.0, 2.0]] if name == "softcap" else []  # a scale may be one for each head
    for value in ("0.5", b"1", "", 1j, *lists):
        said = re.escape(f"{name} must be a real number, not {value!r}")
        with pytest.raises(TypeError, match=said):
            na.attention(*inputs, **{name: value})
    with pytest.raises(ValueError, match=f"{name} must be a number that float64 holds"):
        na.attention(*inputs, **{name: 10**5000})


@pytest.mark.parametrize("softcap", [0.0, -1.0, math.inf, math.nan, -1e39])
def test_no_softcap(inputs: tuple[Any, Any, Any], softcap: float) -> None:
    with pytest.raises(ValueError, match="softcap must be positive and finite, not"):
        na.attention(*inputs, softcap=softcap)


@pytest.mark.parametrize("scale", [0.0, -0.0, SMALLEST, -SMALLEST, 1e-30])
def test_a_small_scale(isa: str, scale: float, inputs: tuple[Any, Any, Any]) -> None:
    expected = expect(*inputs, scale=scale)
    expected.check(*na.attention(*inputs, scale=scale, return_lse=True))


@pytest.mark.parametrize("scale", [1e30, -1e30, LARGEST / 1e3])
def test_a_large_scale(isa: str, scale: float, inputs: tuple[Any, Any, Any]) -> None:
    """Each row then attends one key alone."""
    o = na.attention(*inputs, scale=scale)
    np.testing.assert_allclose(o, reference.attention(*inputs, scale=scale), rtol=1e-6)


@pytest.mark.parametrize("scale", [5e-324, 1e-46, -1e-39, LARGEST * 1.01, 3e38, -1e39, HUGE])
def test_a_scale_that_float32_does_not_hold(inputs: tuple[Any, Any, Any], scale: float) -> None:
    q, k, v = inputs
    table = na.position.shaw(np.zeros((3, 16), np.float32))
    table = na.position.Relative(
        query_table=table.query_table, distance_rows=table.distance_rows, scale=scale
    )
    for call in (
        lambda: na.attention(q, k, v, scale=scale),
        lambda: na.attention_weights(q, k, scale=scale),
        lambda: na.plan(q.shape, k.shape, scale=scale),
        lambda: na.attention(q, k, v, relative=table),
    ):
        said = re.escape(f"not {scale:.9g}")
        with pytest.raises(ValueError, match=f"scale must be 0 or of a magnitude .*, {said}"):
            call()


@pytest.mark.parametrize(
    ("sink", "dtype"),
    [
        *[(sink, np.float32) for sink in (3e38, -3e38, LARGEST, np.finfo(np.float32).min)],
        *[(sink, np.float64) for sink in (3e38, -3e38, 1e39, -1e39, HUGE, -HUGE)],
    ],
)
def test_a_sink_of_any_size(
    isa: str, sink: float, dtype: Any, inputs: tuple[Any, Any, Any]
) -> None:
    """It takes all or nothing; the lowest number is a common word for none."""
    sinks = np.array([sink, 0.5], dtype)
    expected = reference.attention(*inputs, sinks=sinks)
    o, lse = na.attention(*inputs, sinks=sinks, return_lse=True)
    np.testing.assert_allclose(o, expected, atol=2e-6)
    assert np.isfinite(lse).all()
    if sink > 0:
        np.testing.assert_allclose(lse[:, 0], LARGEST, rtol=1e-6)


@pytest.mark.parametrize("slope", [3e38, -1e39, HUGE])
def test_a_slope_that_float32_does_not_hold(inputs: tuple[Any, Any, Any], slope: float) -> None:
    with pytest.raises(ValueError, match="alibi_slopes must be of magnitudes up to 2.3e.38, not"):
        na.attention(*inputs, alibi_slopes=[0.5, slope])


def test_infinite_slopes_and_sinks_are_what_they_are(inputs: tuple[Any, Any, Any]) -> None:
    for name in ("alibi_slopes", "sinks"):
        for values in ([np.inf, 1.0], [np.nan, 1.0], [-np.inf, 1.0]):
            got = na.attention(*inputs, **{name: values})
            with np.errstate(all="ignore"):
                expected = reference.attention(*inputs, **{name: values})
            np.testing.assert_allclose(got, expected, atol=2e-6)


@pytest.mark.parametrize("name", ["query_table", "key_table", "value_table"])
def test_a_table_that_float32_does_not_hold(name: str) -> None:
    table = np.zeros((3, 16))
    table[1, 2] = 1e39
    with pytest.raises(ValueError, match=f"{name} must hold numbers that float32 holds, not 1e.39"):
        na.position.Relative(**{name: table}, distance_rows=[0, 1, 2])
    table[1, 2] = np.inf
    na.position.Relative(**{name: table}, distance_rows=[0, 1, 2])


@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
@pytest.mark.parametrize("size", [0.0, 1e-15, 1.0, 1e15])
@pytest.mark.parametrize("eps", [SMALLEST, 1e-30, 1e10, LARGEST])
def test_an_eps_that_float32_holds(isa: str, norm: str, size: float, eps: float) -> None:
    rng = np.random.default_rng(0)
    x, weight = np.float32(size) * normal(rng, (3, 40)), normal(rng, (40,))
    got = getattr(na, norm)(x, weight, eps=eps)
    expected = getattr(reference, norm)(x, weight, eps=eps)
    assert np.linalg.norm(got - expected) <= 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
@pytest.mark.parametrize("eps", [5e-324, 1e-46, 1e-39, 3.5e38, 1e39, HUGE])
def test_an_eps_that_float32_does_not_hold(norm: str, eps: float) -> None:
    """As 0 it would make a row of zeros NaN, as infinity any row 0."""
    x = np.zeros((2, 8), np.float32)
    out = np.full_like(x, 7)
    with pytest.raises(
        ValueError, match=f"eps must be 0 or from 1.2e-38 to .*, not {re.escape(f'{eps:.9g}')}"
    ):
        getattr(na, norm)(x, x[0], eps=eps, out=out)
    assert (out == 7).all()


@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
def test_an_eps_that_is_no_number(norm: str) -> None:
    x = np.zeros((2, 8), np.float32)
    eps: Any
    for eps in ("small", None, [1e-5, 1e-6]):
        with pytest.raises(
            TypeError, match=f"eps must be a real number, not {re.escape(repr(eps))}"
        ):
            getattr(na, norm)(x, x[0], eps=eps)
    for eps in (np.nan, np.inf, -1.0, -1e39, -1e-50):
        with pytest.raises(ValueError, match="eps must be finite and not negative"):
            getattr(na, norm)(x, x[0], eps=eps)
