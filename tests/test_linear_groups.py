"""`Linear.from_integers`: weights kept as integers in groups, whose floats are multiplied."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal
from guard_pages import EDGES, guarded
from numattn import reference
from numattn.linear import part_of
from tolerance import Array, assert_same_bits, float32_epsilon

GROUPS = {"groups8": 16, "groups4": 32}
FORMATS = pytest.mark.parametrize("format", GROUPS)


def parts_of(
    rng: np.random.Generator, format: str, rows: int, columns: int, repeats: int = 1
) -> tuple[Array, ...]:
    """Return what `from_integers` takes, all values of the integers among them if they fit."""
    groups = columns // (GROUPS[format] * repeats)
    scale = normal(rng, (rows, groups))
    if format == "groups8":
        integers = rng.integers(-128, 128, (rows, columns)).astype(np.int8)
        integers[0, :2] = -128, 127
        return integers, scale
    integers = rng.integers(0, 16, (rows, columns)).astype(np.uint8)
    integers[0, :2] = 0, 15
    return integers, scale, normal(rng, (rows, groups))


def weight_of(integers: Array, scale: Array, minimum: Array | None = None) -> Array:
    """Return the float32 numbers that they stand for."""
    group = integers.shape[1] // scale.shape[1]
    product = integers.astype(np.float32) * np.repeat(scale.astype(np.float32), group, axis=1)
    if minimum is None:
        return product
    return product + np.repeat(minimum.astype(np.float32), group, axis=1)


@FORMATS
@pytest.mark.parametrize("repeats", [1, 2, 4])
def test_weights_are_the_very_numbers(
    isa: str, rng: np.random.Generator, format: str, repeats: int
) -> None:
    for rows in (1, 47, 48, 50, 97):
        columns = 3 * GROUPS[format] * repeats
        parts = parts_of(rng, format, rows, columns, repeats)
        linear = na.Linear.from_integers(*parts)
        one_each = np.eye(columns, dtype=np.float32)
        expected = weight_of(*parts).T
        np.testing.assert_array_equal(linear(one_each), expected)
        alone = np.concatenate([linear(row[np.newaxis]) for row in one_each])
        np.testing.assert_array_equal(alone, expected)


@FORMATS
@pytest.mark.parametrize("columns", [32, 96, 128, 160, 544, 1024])
@pytest.mark.parametrize("activation", [None, "gelu", "silu"])
def test_sizes_and_epilogues(
    isa: str, rng: np.random.Generator, format: str, columns: int, activation: str | None
) -> None:
    x = normal(rng, (66, columns))
    for out_features in (1, 17, 48, 131):
        parts = parts_of(rng, format, out_features, columns)
        bias, residual = normal(rng, (out_features,)), normal(rng, (66, out_features))
        options: dict[str, Any] = {"activation": activation}
        for given in (None, bias):
            linear = na.Linear.from_integers(*parts, bias=given)
            weight = weight_of(*parts)
            exact = reference.Linear(weight, given)
            for rows in (1, 2, 5, 7, 64, 66):
                options["residual"] = None if given is None else residual[:rows]
                expected = exact(x[:rows], **options)
                error = np.linalg.norm(linear(x[:rows], **options) - expected)
                # Sums may cancel: their terms' size is what they are rounded by.
                size = np.linalg.norm(x[:rows]) * np.linalg.norm(weight)
                size += np.linalg.norm(expected)
                assert error <= float32_epsilon(columns) * size


@FORMATS
def test_rows_beside_it_and_threads_change_no_bit(
    isa: str, rng: np.random.Generator, format: str
) -> None:
    linear = na.Linear.from_integers(*parts_of(rng, format, 300, 640), bias=normal(rng, (300,)))
    x = normal(rng, (130, 640))
    alone = np.concatenate([linear(row[np.newaxis], activation="gelu") for row in x])
    for rows in (1, 2, 3, 6, 7, 8, 9, 64, 65, 130):
        for threads in (1, 3):
            got = linear(x[:rows], activation="gelu", num_threads=threads)
            assert_same_bits(got, alone[:rows])
            got = linear(x[130 - rows :], activation="gelu", num_threads=threads)
            assert_same_bits(got, alone[130 - rows :])


@FORMATS
@pytest.mark.parametrize("of_x", DTYPES)
def test_every_dtype_of_input_and_output(
    isa: str, rng: np.random.Generator, format: str, of_x: str
) -> None:
    """Numbers are widened, which is exact, and a result is the float32 one rounded."""
    parts = parts_of(rng, format, 70, 96)
    linear = na.Linear.from_integers(*parts)
    for rows in (1, 5, 70):
        x = normal(rng, (rows, 96), of_x)
        wide = linear(x.astype(np.float32))
        assert linear(x).dtype == DTYPES[of_x]
        for dtype in DTYPES.values():
            out = np.empty((rows, 70), dtype)
            assert linear(x, out=out) is out
            assert_same_bits(out, wide.astype(dtype))


@FORMATS
@pytest.mark.parametrize("dtype", DTYPES)
def test_scales_of_any_dtype_and_strides(
    isa: str, rng: np.random.Generator, format: str, dtype: str
) -> None:
    integers, *rest = parts_of(rng, format, 50, 64)
    rest = [numbers.astype(DTYPES[dtype]) for numbers in rest]
    expected = na.Linear.from_integers(integers, *(n.astype(np.float32) for n in rest))
    moved = [np.asfortranarray(part) for part in (integers, *rest)]
    x = normal(rng, (3, 64))
    assert_same_bits(na.Linear.from_integers(*moved)(x), expected(x))


@FORMATS
@pytest.mark.parametrize("edge", EDGES)
def test_nothing_beside_the_arrays_is_touched(
    isa: str, rng: np.random.Generator, format: str, edge: str
) -> None:
    for rows, columns, out_features in ((1, 32, 1), (5, 64, 17), (64, 96, 130), (3, 160, 65)):
        parts = parts_of(rng, format, out_features, columns)
        x = normal(rng, (1, 1, rows, columns))
        out = guarded(np.zeros((1, 1, rows, out_features), np.float32), edge)
        linear = na.Linear.from_integers(*parts)
        linear(guarded(x, edge)[0, 0], out=out[0, 0])
        assert_same_bits(out[0, 0], linear(x[0, 0]))


@FORMATS
def test_nan_and_infinity(isa: str, rng: np.random.Generator, format: str) -> None:
    integers, scale, *rest = parts_of(rng, format, 60, 96)
    x = normal(rng, (9, 96))
    before = na.Linear.from_integers(integers, scale, *rest)(x)
    for bad in (np.nan, np.inf):
        spoilt = scale.copy()
        spoilt[40, 1] = bad
        got = na.Linear.from_integers(integers, spoilt, *rest)(x)
        assert not np.isfinite(got[:, 40]).any()
        assert_same_bits(np.delete(got, 40, 1), np.delete(before, 40, 1))


@FORMATS
def test_pickles_copies_and_parts(isa: str, rng: np.random.Generator, format: str) -> None:
    parts, bias, x = parts_of(rng, format, 101, 96), normal(rng, (101,)), normal(rng, (9, 96))
    linear = na.Linear.from_integers(*parts, bias=bias)
    expected = linear(x)
    for protocol in (2, 5):
        again = pickle.loads(pickle.dumps(linear, protocol))
        assert repr(again) == repr(linear)
        assert_same_bits(again(x), expected)
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(linear, 5, buffer_callback=buffers.append)
    assert len(data) < 4000
    assert_same_bits(pickle.loads(data, buffers=buffers)(x), expected)
    assert_same_bits(copy.deepcopy(linear)(x), expected)
    part, before = part_of(linear, 50, 101)
    assert_same_bits(part(x)[:, before:], expected[:, 50:])


@FORMATS
def test_memory(rng: np.random.Generator, format: str) -> None:
    linear = na.Linear.from_integers(*parts_of(rng, format, 480, 960))
    bytes_each = {"groups8": 1.25, "groups4": 0.75}[format]
    size = len(pickle.dumps(linear, 5))
    assert bytes_each * 480 * 960 <= size <= bytes_each * 480 * 960 + 4000


def test_without_minimum(isa: str, rng: np.random.Generator) -> None:
    integers, scale, _ = parts_of(rng, "groups4", 30, 64)
    x = normal(rng, (4, 64))
    zero = na.Linear.from_integers(integers, scale, np.zeros_like(scale))
    assert_same_bits(na.Linear.from_integers(integers, scale)(x), zero(x))


BAD: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    ((np.zeros((2, 32), np.int16), np.ones((2, 2))), {}, TypeError, "integers must be int8, or"),
    ((np.zeros(32, np.int8), np.ones((2, 2))), {}, ValueError, r"shape \(out, in\), not \(32,\)"),
    ((np.zeros((0, 32), np.int8), np.ones((0, 2))), {}, ValueError, r"not \(0, 32\)"),
    ((np.zeros((2, 24), np.int8), np.ones((2, 1))), {}, ValueError, r"multiple of 16 .*\(2, 1\)"),
    ((np.zeros((2, 32), np.uint8), np.ones((2, 2))), {}, ValueError, r"multiple of 32 .*\(2, 2\)"),
    ((np.zeros((2, 32), np.int8), np.ones((3, 2))), {}, ValueError, r"scale must .*not \(3, 2\)"),
    ((np.zeros((2, 32), np.int8), np.ones((2, 0))), {}, ValueError, r"not \(2, 0\)"),
    ((np.full((2, 32), 16, np.uint8), np.ones((2, 1))), {}, ValueError, "0 … 15, not 16"),
    (
        (np.zeros((2, 32), np.uint8), np.ones((2, 1)), np.ones((2, 2))),
        {},
        ValueError,
        r"minimum must have scale's shape \(2, 1\), not \(2, 2\)",
    ),
    (
        (np.zeros((2, 32), np.int8), np.ones((2, 2)), np.ones((2, 2))),
        {},
        ValueError,
        "minimum must be None",
    ),
    (
        (np.zeros((2, 32), np.int8), np.ones((2, 2))),
        {"bias": np.ones(3, np.float32)},
        ValueError,
        r"bias must have shape \(2,\), not \(3,\)",
    ),
]


@pytest.mark.parametrize("arguments, options, kind, words", BAD)
def test_bad_arguments(
    arguments: tuple[Any, ...], options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    integers, *numbers = arguments
    with pytest.raises(kind, match=words):
        na.Linear.from_integers(integers, *(n.astype(np.float32) for n in numbers), **options)


def test_scales_of_float64_are_refused() -> None:
    with pytest.raises(TypeError, match="scale has dtype float64"):
        na.Linear.from_integers(np.zeros((1, 16), np.int8), np.ones((1, 1)))


def test_scales_of_another_library_s_float64_are_refused() -> None:
    class Tensor:
        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)  # the CPU

        def __dlpack__(self, **named: Any) -> Any:
            return np.ones((1, 1)).__dlpack__()

    with pytest.raises(TypeError, match="scale has dtype float64"):
        na.Linear.from_integers(np.zeros((1, 16), np.int8), Tensor())  # type: ignore[arg-type]


def test_scales_in_lists(rng: np.random.Generator) -> None:
    integers, x = np.ones((1, 32), np.uint8), normal(rng, (2, 32))
    expected = na.Linear.from_integers(integers, np.ones((1, 1), np.float32))(x)
    for scale, minimum in (([[1]], [[0]]), ([[1.0]], [[0.0]]), (((1.0,),), None)):
        assert_same_bits(na.Linear.from_integers(integers, scale, minimum)(x), expected)
