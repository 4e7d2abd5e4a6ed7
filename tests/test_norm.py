"""`layer_norm` against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import LENGTHS, normal
from guard_pages import EDGES, guarded
from numattn import reference
from strides import RELAYOUTS
from tolerance import UNIT_ROUNDOFF, assert_same_bits


def assert_close(got: Any, x: Any, weight: Any, bias: Any = None, eps: float = 1e-5) -> None:
    """Check entry by entry, with the rounding of x − mean as the unit.

    mean and variance are sums over N, whose errors stay below √N·u of their sizes; x − mean rounds
    with u·|x − mean|.
    """
    exact = reference.layer_norm(x, weight, bias, eps=eps)
    assert got.dtype == np.float32 and got.shape == exact.shape
    wide = x.astype(np.float64)
    mean = wide.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(wide.var(axis=-1, keepdims=True) + eps)
    unit = UNIT_ROUNDOFF["float32"]
    depth = np.sqrt(x.shape[-1])
    shifted = np.abs(mean) / deviation * np.abs(weight)  # what the mean errs by, in the output
    # 8: roundings of the elementwise steps, and of the reciprocal root.
    sizes = np.abs(exact) + np.abs(weight) + (0 if bias is None else np.abs(bias))
    bound = unit * ((8 + depth) * sizes + depth * shifted)
    assert (np.abs(got - exact) <= bound).all(), (np.abs(got - exact) / bound).max()


@pytest.mark.parametrize("width", [*LENGTHS, 384, 768, 1023])
@pytest.mark.parametrize("rows", [1, 5, 33])
@pytest.mark.parametrize("with_bias", [False, True])
def test_sizes(isa: str, rng: np.random.Generator, rows: int, width: int, with_bias: bool) -> None:
    x, weight = normal(rng, (rows, width)), normal(rng, (width,))
    bias = normal(rng, (width,)) if with_bias else None
    assert_close(na.layer_norm(x, weight, bias), x, weight, bias)


@pytest.mark.parametrize("shape", [(40,), (2, 3, 40), (0, 40), (2, 0, 40), (2, 3, 4, 40)])
def test_dimensions(isa: str, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    x, weight, bias = normal(rng, shape), normal(rng, (40,)), normal(rng, (40,))
    got = na.layer_norm(x, weight, bias)
    assert got.shape == shape
    rows = na.layer_norm(x.reshape(-1, 40), weight, bias)
    assert_same_bits(got.reshape(-1, 40), rows)


@pytest.mark.parametrize("mean", [10.0, 1e3, -1e5])
def test_a_large_mean_does_not_spoil_the_variance(
    isa: str, rng: np.random.Generator, mean: float
) -> None:
    """E[x²] − E[x]² would lose everything here."""
    x = normal(rng, (20, 300)) + np.float32(mean)
    weight = np.ones(300, np.float32)
    assert_close(na.layer_norm(x, weight), x, weight)


@pytest.mark.parametrize("eps", [1e-12, 1e-5, 0.5])
def test_eps(isa: str, rng: np.random.Generator, eps: float) -> None:
    x, weight = 1e-2 * normal(rng, (20, 100)), normal(rng, (100,))
    x = x.astype(np.float32)
    assert_close(na.layer_norm(x, weight, eps=eps), x, weight, eps=eps)


def test_constant_rows_give_the_bias(isa: str) -> None:
    bias = np.arange(33, dtype=np.float32)
    got = na.layer_norm(np.full((3, 33), 2.5, np.float32), np.ones(33, np.float32), bias)
    assert_same_bits(got, np.broadcast_to(bias, (3, 33)))


def test_nan_stays_in_its_row(isa: str, rng: np.random.Generator) -> None:
    x, weight = normal(rng, (9, 50)), normal(rng, (50,))
    clean = na.layer_norm(x, weight)
    x[4, 20] = np.nan
    got = na.layer_norm(x, weight)
    assert np.isnan(got[4]).all()
    assert_same_bits(np.delete(got, 4, 0), np.delete(clean, 4, 0))


@pytest.mark.parametrize("relayout", RELAYOUTS)
def test_strides(isa: str, rng: np.random.Generator, relayout: str) -> None:
    x, weight, bias = normal(rng, (3, 17, 40)), normal(rng, (40,)), normal(rng, (40,))
    expected = na.layer_norm(x, weight, bias)
    assert_same_bits(na.layer_norm(RELAYOUTS[relayout](x), weight, bias), expected)
    backwards = [np.ascontiguousarray(y[::-1])[::-1] for y in (weight, bias)]
    assert_same_bits(na.layer_norm(x, *backwards), expected)


def test_out_receives_the_result(isa: str, rng: np.random.Generator) -> None:
    x, weight = normal(rng, (3, 17, 40)), normal(rng, (40,))
    out = np.empty_like(x)
    assert na.layer_norm(x, weight, out=out) is out
    assert_same_bits(out, na.layer_norm(x, weight))


@pytest.mark.parametrize("edge", EDGES)
def test_nothing_beside_the_arrays_is_touched(
    isa: str, rng: np.random.Generator, edge: str
) -> None:
    for rows, width in ((1, 1), (3, 17), (5, 129), (2, 1024)):
        x, weight, bias = (normal(rng, (1, 1, n, width)) for n in (rows, 1, 1))
        out = guarded(np.zeros_like(x), edge)
        places = [guarded(weight, edge)[0, 0, 0], guarded(bias, edge)[0, 0, 0]]
        na.layer_norm(guarded(x, edge)[0, 0], *places, out=out[0, 0])
        assert_close(np.array(out[0, 0]), x[0, 0], weight[0, 0, 0], bias[0, 0, 0])


@pytest.mark.parametrize(
    ("shapes", "match"),
    [
        (((3, 40), (39,), None), r"weight.*\(39,\)"),
        (((3, 40), (1, 40), None), r"weight.*\(1, 40\)"),
        (((3, 40), (40,), (41,)), r"bias.*\(41,\)"),
        (((), (1,), None), r"x.*(dimension|\(\))"),
        (((3, 0), (0,), None), r"x.*(\(3, 0\)|at least one element)"),
    ],
)
def test_shapes_that_do_not_fit(shapes: Any, match: str) -> None:
    x, weight, bias = (None if s is None else np.zeros(s, np.float32) for s in shapes)
    with pytest.raises(ValueError, match=f"(?is){match}"):
        na.layer_norm(x, weight, bias)


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["float64", "int32", ">f4", "object"])
def test_other_dtypes_are_refused(which: int, dtype: str) -> None:
    arrays = [np.zeros((3, 40), np.float32), np.zeros(40, np.float32), np.zeros(40, np.float32)]
    arrays[which] = arrays[which].astype(dtype)
    with pytest.raises(TypeError, match="float32|byte"):
        na.layer_norm(*arrays)


def test_bad_out_is_refused(rng: np.random.Generator) -> None:
    x, weight = normal(rng, (3, 40)), normal(rng, (40,))
    read_only = np.empty_like(x)
    read_only.flags.writeable = False
    for out in (np.empty((3, 39), np.float32), np.empty((3, 40)), read_only):
        with pytest.raises(ValueError, match="out"):
            na.layer_norm(x, weight, out=out)
