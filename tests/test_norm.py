"""`layer_norm` and `rms_norm` against the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, LENGTHS, normal
from guard_pages import EDGES, guarded
from numattn import reference
from strides import RELAYOUTS
from tolerance import UNIT_ROUNDOFF, assert_same_bits


def assert_layer_close(got: Any, x: Any, weight: Any, bias: Any = None, eps: float = 1e-5) -> None:
    """Check entry by entry, with the rounding of x − mean as the unit.

    The mean of x − pivot and the variance are sums over N, whose errors stay below √N·u of their
    sizes; x − pivot rounds with u·|x − pivot|. However large the mean itself is, nothing is lost.
    """
    exact = reference.layer_norm(x, weight, bias, eps=eps)
    assert got.dtype == np.float32 and got.shape == exact.shape
    unit = UNIT_ROUNDOFF["float32"]
    depth = np.sqrt(x.shape[-1])
    # 8: roundings of the elementwise steps, and of the reciprocal root.
    sizes = np.abs(exact) + np.abs(weight) + (0 if bias is None else np.abs(bias))
    bound = unit * (8 + depth) * sizes
    assert (np.abs(got - exact) <= bound).all(), (np.abs(got - exact) / bound).max()


def assert_rms_close(got: Any, x: Any, weight: Any, eps: float = 1e-6) -> None:
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


class Norm(NamedTuple):
    """One of the two: how many arrays it takes after x, in which dtypes x may be, and its check."""

    call: Callable[..., Any]
    vectors: int
    dtypes: tuple[str, ...]
    assert_close: Callable[..., None]


NORMS = {
    "layer_norm": Norm(na.layer_norm, 2, ("float32",), assert_layer_close),
    "rms_norm": Norm(na.rms_norm, 1, tuple(DTYPES), assert_rms_close),
}
NORM_DTYPES = [(name, dtype) for name, norm in NORMS.items() for dtype in norm.dtypes]


@pytest.fixture(params=NORMS)
def norm(request: pytest.FixtureRequest) -> Norm:
    return NORMS[request.param]


def vectors(rng: np.random.Generator, norm: Norm, width: int) -> list[Any]:
    """Return what comes after x: a weight, and a bias if it takes one."""
    return [normal(rng, (width,)) for _ in range(norm.vectors)]


@pytest.mark.parametrize(("name", "dtype"), NORM_DTYPES)
@pytest.mark.parametrize("width", [*LENGTHS, 384, 576, 768, 1023])
@pytest.mark.parametrize("rows", [1, 5, 33])
def test_sizes(
    isa: str, rng: np.random.Generator, rows: int, width: int, name: str, dtype: str
) -> None:
    norm = NORMS[name]
    x, weights = normal(rng, (rows, width), dtype), vectors(rng, norm, width)
    for count in range(1, norm.vectors + 1):
        norm.assert_close(norm.call(x, *weights[:count]), x, *weights[:count])


@pytest.mark.parametrize("shape", [(40,), (2, 3, 40), (0, 40), (2, 0, 40), (2, 3, 4, 40)])
def test_dimensions(isa: str, rng: np.random.Generator, norm: Norm, shape: tuple[int, ...]) -> None:
    x, weights = normal(rng, shape), vectors(rng, norm, 40)
    got = norm.call(x, *weights)
    assert got.shape == shape
    assert_same_bits(got.reshape(-1, 40), norm.call(x.reshape(-1, 40), *weights))


@pytest.mark.parametrize("eps", [1e-12, 1e-5, 0.5])
def test_eps(isa: str, rng: np.random.Generator, norm: Norm, eps: float) -> None:
    x, weight = (1e-2 * normal(rng, (20, 100))).astype(np.float32), normal(rng, (100,))
    norm.assert_close(norm.call(x, weight, eps=eps), x, weight, eps=eps)


def test_rms_norm_without_eps(isa: str, rng: np.random.Generator) -> None:
    x, weight = (1e-2 * normal(rng, (20, 100))).astype(np.float32), normal(rng, (100,))
    assert_rms_close(na.rms_norm(x, weight, eps=0.0), x, weight, eps=0.0)


@pytest.mark.parametrize("mean", [10.0, 1e3, -1e5, 1e7])
def test_a_large_mean_does_not_spoil_the_variance(
    isa: str, rng: np.random.Generator, mean: float
) -> None:
    """E[x²] − E[x]² would lose everything here."""
    x = normal(rng, (20, 300)) + np.float32(mean)
    weight = np.ones(300, np.float32)
    assert_layer_close(na.layer_norm(x, weight), x, weight)


def test_constant_rows_give_the_bias(isa: str) -> None:
    bias = np.arange(33, dtype=np.float32)
    got = na.layer_norm(np.full((3, 33), 2.5, np.float32), np.ones(33, np.float32), bias)
    assert_same_bits(got, np.broadcast_to(bias, (3, 33)))


@pytest.mark.parametrize("width", [1, 3, 33, 384, 768, 5000])
def test_equal_numbers_are_their_mean(isa: str, rng: np.random.Generator, width: int) -> None:
    """Not only 2.5 is, whose sums are exact: the result is 0 · weight + bias to the last bit."""
    numbers = np.array([1000.1, -0.1, 1 / 3, 1e-30, -1e30, 16777217.0, 3e38], np.float32)
    weight, bias = normal(rng, (width,)), normal(rng, (width,))
    x = np.repeat(numbers[:, None], width, axis=1)
    for eps in (1e-12, 1e-5):
        got = na.layer_norm(x, weight, bias, eps=eps)
        assert_same_bits(got, np.broadcast_to(bias, x.shape))
        np.testing.assert_array_equal(na.layer_norm(x, weight, eps=eps), 0)


@pytest.mark.parametrize("place", [0, 1, 400, 767])
def test_all_but_equal_numbers(isa: str, place: int) -> None:
    """One of them one unit in the last place off: y = (x − mean) / √(variance + ε) all the same."""
    x = np.full((1, 768), 1000.1, np.float32)
    x[0, place] = np.nextafter(x[0, place], np.float32(np.inf))
    weight = np.ones(768, np.float32)
    for eps in (1e-12, 1e-5):
        assert_layer_close(na.layer_norm(x, weight, eps=eps), x, weight, eps=eps)


@pytest.mark.parametrize("place", [0, 1, 767])
@pytest.mark.parametrize("size", [1e2, -1e4, 1e6])
def test_an_outlier(isa: str, rng: np.random.Generator, place: int, size: float) -> None:
    """As the largest activations of a language model are, wherever in the row it lies."""
    x, weight = normal(rng, (5, 768)), normal(rng, (768,))
    x[:, place] = size
    assert_layer_close(na.layer_norm(x, weight), x, weight)


def test_rows_of_zeros_stay_zero(isa: str) -> None:
    got = na.rms_norm(np.zeros((3, 33), np.float32), np.ones(33, np.float32))
    np.testing.assert_array_equal(got, 0)


def test_nan_stays_in_its_row(isa: str, rng: np.random.Generator, norm: Norm) -> None:
    x, weight = normal(rng, (9, 50)), normal(rng, (50,))
    clean = norm.call(x, weight)
    x[4, 20] = np.nan
    got = norm.call(x, weight)
    assert np.isnan(got[4]).all()
    assert_same_bits(np.delete(got, 4, 0), np.delete(clean, 4, 0))


@pytest.mark.parametrize(("name", "dtype"), NORM_DTYPES)
@pytest.mark.parametrize("relayout", RELAYOUTS)
def test_strides(isa: str, rng: np.random.Generator, relayout: str, name: str, dtype: str) -> None:
    norm = NORMS[name]
    x, weights = normal(rng, (3, 17, 40), dtype), vectors(rng, norm, 40)
    expected = norm.call(x, *weights)
    assert_same_bits(norm.call(RELAYOUTS[relayout](x), *weights), expected)
    backwards = [np.ascontiguousarray(y[::-1])[::-1] for y in weights]
    assert_same_bits(norm.call(x, *backwards), expected)


@pytest.mark.parametrize(("name", "dtype"), NORM_DTYPES)
@pytest.mark.parametrize("width", [5, 40, 129])
def test_out_receives_the_result(
    isa: str, rng: np.random.Generator, width: int, name: str, dtype: str
) -> None:
    """x itself may be that."""
    norm = NORMS[name]
    x, weight = normal(rng, (3, 17, width), dtype), normal(rng, (width,), dtype)
    expected, out = norm.call(x, weight), np.empty_like(x)
    assert norm.call(x, weight, out=out) is out
    assert_same_bits(out, expected)
    assert norm.call(x, weight, out=x) is x
    assert_same_bits(x, expected)


@pytest.mark.parametrize("edge", EDGES)
def test_nothing_beside_the_arrays_is_touched(
    isa: str, rng: np.random.Generator, norm: Norm, edge: str
) -> None:
    for rows, width in ((1, 1), (3, 17), (5, 129), (2, 1024)):
        x, *weights = (normal(rng, (1, 1, n, width)) for n in (rows, *[1] * norm.vectors))
        out = guarded(np.zeros_like(x), edge)
        places = [guarded(y, edge)[0, 0, 0] for y in weights]
        norm.call(guarded(x, edge)[0, 0], *places, out=out[0, 0])
        norm.assert_close(np.array(out[0, 0]), x[0, 0], *(y[0, 0, 0] for y in weights))


@pytest.mark.parametrize(
    ("shapes", "match"),
    [
        (((3, 40), (39,)), r"weight.*\(39,\)"),
        (((3, 40), (1, 40)), r"weight.*\(1, 40\)"),
        (((), (1,)), "x must have at least one dimension"),
        (((3, 0), (0,)), "at least one element"),
    ],
)
def test_shapes_that_do_not_fit(norm: Norm, shapes: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        norm.call(*(np.zeros(shape, np.float32) for shape in shapes))


def test_a_bias_that_does_not_fit() -> None:
    x, weight, bias = (np.zeros(shape, np.float32) for shape in ((3, 40), 40, 41))
    with pytest.raises(ValueError, match=r"bias.*\(41,\)"):
        na.layer_norm(x, weight, bias)


@pytest.mark.parametrize("eps", [-1e-6, float("nan")])
def test_an_eps_that_is_none(norm: Norm, eps: float) -> None:
    x, weight = np.zeros((3, 40), np.float32), np.zeros(40, np.float32)
    with pytest.raises(ValueError, match="eps must be finite and not negative"):
        norm.call(x, weight, eps=eps)


@pytest.mark.parametrize(
    ("name", "which"),
    [(name, which) for name, norm in NORMS.items() for which in range(1 + norm.vectors)],
)
@pytest.mark.parametrize("dtype", ["float64", "int32", ">f4", "object"])
def test_other_dtypes_are_refused(name: str, which: int, dtype: str) -> None:
    norm = NORMS[name]
    arrays = [np.zeros((3, 40), np.float32), *[np.zeros(40, np.float32)] * norm.vectors]
    arrays[which] = arrays[which].astype(dtype)
    with pytest.raises(TypeError, match="float32|byte"):
        norm.call(*arrays)


def test_bad_out_is_refused(rng: np.random.Generator, norm: Norm) -> None:
    x, weight = normal(rng, (3, 40)), normal(rng, (40,))
    before = x.copy()
    read_only = np.empty_like(x)
    read_only.flags.writeable = False
    shifted = np.empty((4, 40), np.float32)
    for out in (np.empty((3, 39), np.float32), np.empty((3, 40)), read_only):
        with pytest.raises(ValueError, match="out"):
            norm.call(x, weight, out=out)
    with pytest.raises(ValueError, match="out overlaps x"):
        norm.call(shifted[1:], weight, out=shifted[:3])
    with pytest.raises(TypeError, match="out must be a NumPy array or a tensor, not list"):
        norm.call(x, weight, out=x.tolist())
    assert_same_bits(x, before)
