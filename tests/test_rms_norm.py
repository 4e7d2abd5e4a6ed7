"""`rms_norm` against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, LENGTHS, normal
from guard_pages import EDGES, guarded
from numattn import reference
from strides import RELAYOUTS
from tolerance import UNIT_ROUNDOFF, assert_same_bits


def assert_close(got: Any, x: Any, weight: Any, eps: float = 1e-6) -> None:
    """Check entry by entry.

    A sum of N squares errs by less than √N·u of itself, and its root by half of that; 6 more
    roundings: the mean, its sum with eps, root, reciprocal, and two products. Then the dtype's own.
    """
    exact = reference.rms_norm(x, weight, eps=eps)
    assert got.dtype == x.dtype and got.shape == exact.shape
    relative = UNIT_ROUNDOFF["float32"] * (6 + np.sqrt(x.shape[-1]) / 2)
    relative += 0 if x.dtype == np.float32 else UNIT_ROUNDOFF[x.dtype.name]
    # 2⁻²⁵: half of float16's smallest subnormal number, where roundings are not relative.
    bound = relative * np.abs(exact) + (2.0**-25 if x.dtype == np.float16 else 0)
    error = np.abs(got.astype(np.float64) - exact)
    assert (error <= bound).all(), (error - bound).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [*LENGTHS, 384, 576, 1023])
@pytest.mark.parametrize("rows", [1, 5, 33])
def test_sizes(isa: str, rng: np.random.Generator, rows: int, width: int, dtype: str) -> None:
    x, weight = normal(rng, (rows, width), dtype), normal(rng, (width,))
    assert_close(na.rms_norm(x, weight), x, weight)


@pytest.mark.parametrize("shape", [(40,), (2, 3, 40), (0, 40), (2, 0, 40), (2, 3, 4, 40)])
def test_dimensions(isa: str, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    x, weight = normal(rng, shape), normal(rng, (40,))
    got = na.rms_norm(x, weight)
    assert got.shape == shape
    assert_same_bits(got.reshape(-1, 40), na.rms_norm(x.reshape(-1, 40), weight))


@pytest.mark.parametrize("eps", [0.0, 1e-12, 1e-5, 0.5])
def test_eps(isa: str, rng: np.random.Generator, eps: float) -> None:
    x, weight = (1e-2 * normal(rng, (20, 100))).astype(np.float32), normal(rng, (100,))
    assert_close(na.rms_norm(x, weight, eps=eps), x, weight, eps=eps)


def test_rows_of_zeros_stay_zero(isa: str) -> None:
    got = na.rms_norm(np.zeros((3, 33), np.float32), np.ones(33, np.float32))
    np.testing.assert_array_equal(got, 0)


def test_nan_stays_in_its_row(isa: str, rng: np.random.Generator) -> None:
    x, weight = normal(rng, (9, 50)), normal(rng, (50,))
    clean = na.rms_norm(x, weight)
    x[4, 20] = np.nan
    got = na.rms_norm(x, weight)
    assert np.isnan(got[4]).all()
    assert_same_bits(np.delete(got, 4, 0), np.delete(clean, 4, 0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("relayout", RELAYOUTS)
def test_strides(isa: str, rng: np.random.Generator, relayout: str, dtype: str) -> None:
    x, weight = normal(rng, (3, 17, 40), dtype), normal(rng, (40,))
    expected = na.rms_norm(x, weight)
    assert_same_bits(na.rms_norm(RELAYOUTS[relayout](x), weight), expected)
    backwards = np.ascontiguousarray(weight[::-1])[::-1]
    assert_same_bits(na.rms_norm(x, backwards), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [5, 40, 129])
def test_in_place(isa: str, rng: np.random.Generator, width: int, dtype: str) -> None:
    x, weight = normal(rng, (3, 17, width), dtype), normal(rng, (width,), dtype)
    expected, out = na.rms_norm(x, weight), np.empty_like(x)
    assert na.rms_norm(x, weight, out=out) is out
    assert_same_bits(out, expected)
    assert na.rms_norm(x, weight, out=x) is x
    assert_same_bits(x, expected)


@pytest.mark.parametrize("edge", EDGES)
def test_nothing_beside_the_arrays_is_touched(
    isa: str, rng: np.random.Generator, edge: str
) -> None:
    for rows, width in ((1, 1), (3, 17), (5, 129), (2, 1024)):
        x, weight = (normal(rng, (1, 1, n, width)) for n in (rows, 1))
        out = guarded(np.zeros_like(x), edge)
        na.rms_norm(guarded(x, edge)[0, 0], guarded(weight, edge)[0, 0, 0], out=out[0, 0])
        assert_close(np.array(out[0, 0]), x[0, 0], weight[0, 0, 0])


@pytest.mark.parametrize(
    ("x", "weight", "eps", "match"),
    [
        ((3, 40), (39,), 0, r"weight.*\(39,\)"),
        ((3, 40), (1, 40), 0, r"weight.*\(1, 40\)"),
        ((), (1,), 0, "x must have at least one dimension"),
        ((3, 0), (0,), 0, "at least one element"),
        ((3, 40), (40,), -1e-6, "eps must be finite and not negative"),
        ((3, 40), (40,), float("nan"), "eps must be finite and not negative"),
    ],
)
def test_what_does_not_fit(x: Any, weight: Any, eps: float, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        na.rms_norm(np.zeros(x, np.float32), np.zeros(weight, np.float32), eps=eps)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("dtype", ["float64", "int32", ">f4", "object"])
def test_other_dtypes_are_refused(which: int, dtype: str) -> None:
    arrays = [np.zeros((3, 40), np.float32), np.zeros(40, np.float32)]
    arrays[which] = arrays[which].astype(dtype)
    with pytest.raises(TypeError, match="float32|byte"):
        na.rms_norm(*arrays)


def test_bad_out_is_refused(rng: np.random.Generator) -> None:
    x, weight = normal(rng, (3, 40)), normal(rng, (40,))
    before = x.copy()
    read_only = np.empty_like(x)
    read_only.flags.writeable = False
    shifted = np.empty((4, 40), np.float32)
    bad = [np.empty((3, 39), np.float32), np.empty((3, 40)), read_only]
    for out in bad:
        with pytest.raises(ValueError, match="out"):
            na.rms_norm(x, weight, out=out)
    with pytest.raises(ValueError, match="out overlaps x"):
        na.rms_norm(shifted[1:], weight, out=shifted[:3])
    with pytest.raises(TypeError, match="out must be a NumPy array, not list"):
        na.rms_norm(x, weight, out=x.tolist())
    assert_same_bits(x, before)
