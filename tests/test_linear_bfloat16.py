"""`Linear` with weights stored in bfloat16: sums are float32, and results pass in any dtype."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal
from child import output_of
from guard_pages import EDGES, guarded
from numattn import reference
from strides import RELAYOUTS
from tolerance import assert_same_bits, expect_linear

ACTIVATIONS = (None, "relu", "gelu", "gelu_tanh", "silu")
ROWS = (1, 2, 3, 5, 8, 9, 17, 64, 65, 200)
DEPTHS = (1, 2, 3, 31, 33, 384, 513)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# Instruction sets that multiply bfloat16 numbers, so that x is rounded to them.
ROUNDING = ("avx512bf16", "amx", "neonbf16")


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("depth", DEPTHS)
def test_sizes(isa: str, rng: np.random.Generator, rows: int, depth: int) -> None:
    for out_features in (1, 15, 17, 48, 65, 131):
        x, weight = normal(rng, (rows, depth)), normal(rng, (out_features, depth))
        bias = normal(rng, (out_features,))
        linear = na.Linear(weight, bias, dtype="bfloat16")
        expect_linear(weight, bias, x, storage="bfloat16").check(linear(x))


@pytest.mark.parametrize("rows", [1, 130, 300])
def test_several_blocks_in_every_direction(isa: str, rng: np.random.Generator, rows: int) -> None:
    x, weight, bias = normal(rng, (rows, 1501)), normal(rng, (1101, 1501)), normal(rng, (1101,))
    linear = na.Linear(weight, bias, dtype="bfloat16")
    expect_linear(weight, bias, x, storage="bfloat16").check(linear(x))


@pytest.mark.parametrize("shape", [(1, 33, 17), (5, 70, 50), (64, 384, 33), (65, 31, 130)])
@pytest.mark.parametrize("of_x", DTYPES)
def test_every_dtype_of_input_and_output(
    isa: str, rng: np.random.Generator, of_x: str, shape: tuple[int, int, int]
) -> None:
    rows, depth, out_features = shape
    x, weight = normal(rng, (rows, depth), of_x), normal(rng, (out_features, depth))
    bias, beside = normal(rng, (out_features,)), normal(rng, (rows, out_features))
    linear = na.Linear(weight, bias, dtype="bfloat16")
    expect_linear(weight, bias, x, DTYPES[of_x], "bfloat16").check(linear(x))
    for name in ("factor", "residual"):
        for dtype in DTYPES.values():
            given = {name: beside.astype(dtype)}
            out = np.empty((rows, out_features), dtype)
            assert linear(x, **given, out=out) is out
            expected = expect_linear(weight, bias, x, dtype, "bfloat16", **given)
            expected.check(out)
            assert_same_bits(linear(x, **given, out=given[name]), out, "in place")


@pytest.mark.parametrize("of_weight", DTYPES)
def test_every_dtype_of_weight_and_bias(isa: str, rng: np.random.Generator, of_weight: str) -> None:
    x, weight = normal(rng, (19, 70)), normal(rng, (50, 70), of_weight)
    bias = normal(rng, (50,), of_weight)
    linear = na.Linear(weight, bias, dtype=BFLOAT16)
    expect_linear(weight, bias, x, storage="bfloat16").check(linear(x))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(1, 70, 33), (37, 71, 50), (64, 300, 130)])
def test_epilogues(
    isa: str, rng: np.random.Generator, shape: tuple[int, int, int], activation: str | None
) -> None:
    rows, depth, out_features = shape
    # Products of the order of 1, where the activations bend.
    x, weight = normal(rng, (rows, depth)), normal(rng, (out_features, depth)) / np.sqrt(depth)
    weight = weight.astype(np.float32)
    bias, residual = normal(rng, (out_features,)), normal(rng, (rows, out_features))
    for given in (None, bias):
        linear = na.Linear(weight, given, dtype="bfloat16")
        for dtype in (np.dtype(np.float32), BFLOAT16):
            for added in (None, residual.astype(dtype)):
                options: dict[str, Any] = {"activation": activation, "residual": added}
                out = np.empty((rows, out_features), dtype)
                linear(x, out=out, **options)
                expect_linear(weight, given, x, dtype, "bfloat16", **options).check(out)


def test_each_weight_is_the_nearest_bfloat16(isa: str, rng: np.random.Generator) -> None:
    """Ties go to the even neighbour, and what lies beyond the largest bfloat16 is infinite."""
    ties = [1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8, 1 + 2.0**-8 + 2.0**-20]
    ends = [2.0**-126, 3.3895e38, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan, 0.0]
    # A NaN whose payload the upper half does not hold stays one.
    low_nan = np.array([0x7F800001], np.uint32).view(np.float32)
    values = np.concatenate([np.float32(ties), np.float32(ends), low_nan, normal(rng, (300,))])
    linear = na.Linear(values[:, np.newaxis], dtype="bfloat16")
    for rows in (1, 40):
        got = linear(np.ones((rows, 1), np.float32))
        with np.errstate(invalid="ignore"):
            rounded = values.astype(BFLOAT16).astype(np.float32)
        expected = np.broadcast_to(rounded, got.shape)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("rows", [1, 3, 64, 65])
def test_the_input_is_rounded_where_a_unit_multiplies_bfloat16(isa: str, rows: int) -> None:
    x = np.full((rows, 1), 1 + 2.0**-12, np.float32)
    got = na.Linear(np.ones((33, 1), np.float32), dtype="bfloat16")(x)
    expected = 1.0 if isa in ROUNDING else x[0, 0]
    np.testing.assert_array_equal(got, np.full((rows, 33), expected, np.float32))


@pytest.mark.parametrize("relayout", RELAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_strides(isa: str, rng: np.random.Generator, dtype: str, relayout: str) -> None:
    move = RELAYOUTS[relayout]
    x, residual = normal(rng, (3, 17, 41), dtype), normal(rng, (3, 17, 30), dtype)
    weight, bias = normal(rng, (30, 41), dtype), normal(rng, (30,))
    linear = na.Linear(weight, bias, dtype="bfloat16")
    expected = linear(x, residual=residual)
    assert_same_bits(linear(move(x), residual=move(residual)), expected)
    moved = na.Linear(move(weight), bias, dtype="bfloat16")
    assert_same_bits(moved(x, residual=residual), expected)


def test_out_with_rows_apart(isa: str, rng: np.random.Generator) -> None:
    x, linear = normal(rng, (9, 40)), na.Linear(normal(rng, (30, 40)), dtype="bfloat16")
    for dtype in DTYPES.values():
        wide, out = np.full((9, 35), -7, dtype), np.empty((9, 30), dtype)
        linear(x, out=wide[::-1, 2:32])
        assert_same_bits(wide[::-1, 2:32], linear(x, out=out))
        assert (wide[:, :2] == -7).all() and (wide[:, 32:] == -7).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_threads_and_neighbours_leave_no_trace(
    isa: str, rng: np.random.Generator, dtype: str
) -> None:
    """The same bits for any number of threads, and whatever rows stand beside a row."""
    x, weight, bias = normal(rng, (200, 513), dtype), normal(rng, (700, 513)), normal(rng, (700,))
    linear = na.Linear(weight, bias, dtype="bfloat16")
    expected = linear(x, activation="gelu", num_threads=1)
    for num_threads in (2, 3, 7, None):
        assert_same_bits(linear(x, activation="gelu", num_threads=num_threads), expected)
    for rows in ROWS:
        for start in {0, 200 - rows, 77 % (201 - rows)}:
            alone = linear(x[start : start + rows], activation="gelu")
            assert_same_bits(alone, expected[start : start + rows], f"{rows} rows from {start}")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rows", [1, 9, 65])
def test_what_is_not_finite_stays_in_its_row(
    isa: str, rng: np.random.Generator, rows: int, value: float
) -> None:
    x, weight = normal(rng, (rows, 33)), normal(rng, (50, 33))
    linear = na.Linear(weight, dtype="bfloat16")
    before = linear(x)
    x[rows // 2, 31] = value
    got = linear(x)
    others = np.arange(rows) != rows // 2
    assert_same_bits(got[others], before[others])
    expected = np.full(50, np.nan) if np.isnan(value) else value * np.sign(weight[:, 31])
    np.testing.assert_array_equal(got[rows // 2], expected)


def test_a_weight_that_is_not_finite_stays_in_its_feature(
    isa: str, rng: np.random.Generator
) -> None:
    x, weight = np.abs(normal(rng, (9, 33))), normal(rng, (50, 33))
    before = na.Linear(weight, dtype="bfloat16")(x)
    weight[7, 5], weight[20, 32], weight[49, 0] = np.nan, np.inf, -np.inf
    got = na.Linear(weight, dtype="bfloat16")(x)
    marked = [7, 20, 49]
    others = np.setdiff1d(np.arange(50), marked)
    assert_same_bits(got[:, others], before[:, others])
    np.testing.assert_array_equal(got[:, marked], np.tile([np.nan, np.inf, -np.inf], (9, 1)))


@pytest.mark.parametrize("shape", [(33,), (1, 33), (2, 5, 33), (0, 33), (2, 0, 33)])
def test_leading_dimensions(isa: str, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    x, linear = normal(rng, shape), na.Linear(normal(rng, (50, 33)), dtype="bfloat16")
    out = np.empty((*shape[:-1], 50), BFLOAT16)
    assert linear(x, out=out) is out
    got = linear(x)
    assert got.shape == out.shape and got.dtype == np.float32
    assert_same_bits(got.astype(BFLOAT16), out)  # the same sums, rounded once
    assert_same_bits(linear(x.reshape(-1, 33)), got.reshape(-1, 50))


@pytest.mark.parametrize("edge", EDGES)
def test_nothing_beside_the_arrays_is_touched(
    isa: str, rng: np.random.Generator, edge: str
) -> None:
    for rows, depth, out_features in ((1, 1, 1), (5, 33, 17), (64, 48, 130), (3, 129, 65)):
        for dtype in DTYPES:
            x, weight = normal(rng, (1, 1, rows, depth), dtype), normal(rng, (out_features, depth))
            residual = normal(rng, (1, 1, rows, out_features), dtype)
            out = guarded(np.zeros_like(residual), edge)
            linear = na.Linear(guarded(weight[np.newaxis, np.newaxis], edge)[0, 0], dtype=BFLOAT16)
            places = {"residual": guarded(residual, edge)[0, 0], "out": out[0, 0]}
            linear(guarded(x, edge)[0, 0], **places)
            expect_linear(
                weight, None, x[0, 0], DTYPES[dtype], "bfloat16", residual=residual[0, 0]
            ).check(out[0, 0])


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_a_layer_packed_at_one_instruction_set_runs_at_every_other(
    isa: str, rng: np.random.Generator, storage: str
) -> None:
    x, weight, bias = normal(rng, (65, 129)), normal(rng, (131, 129)), normal(rng, (131,))
    packed = na.Linear(weight, bias, dtype=storage)
    for other in na.isa.available():
        with na.isa.use(other):
            own = na.Linear(weight, bias, dtype=storage)
            for rows in (1, 5, 65):
                assert_same_bits(packed(x[:rows]), own(x[:rows]), f"{rows} rows at {other}")
            expect_linear(weight, bias, x, storage=storage).check(packed(x))


@pytest.mark.parametrize("dtype", [None, "float32", np.float32, "f4", np.dtype(np.float32)])
def test_names_of_float32(rng: np.random.Generator, dtype: Any) -> None:
    x, weight = normal(rng, (3, 16)), normal(rng, (17, 16))
    linear = na.Linear(weight, dtype=dtype)
    assert linear.dtype == "float32"
    assert repr(linear) == "Linear(in_features=16, out_features=17)"
    assert_same_bits(linear(x), na.Linear(weight)(x))


@pytest.mark.parametrize("dtype", ["bfloat16", ml_dtypes.bfloat16, BFLOAT16])
def test_names_of_bfloat16(rng: np.random.Generator, dtype: Any) -> None:
    linear = na.Linear(normal(rng, (17, 16)), dtype=dtype)
    assert linear.dtype == "bfloat16"
    assert repr(linear) == "Linear(in_features=16, out_features=17, dtype=bfloat16)"


@pytest.mark.parametrize(
    ("dtype", "named"),
    [
        ("float16", "float16"),
        (np.float64, "float64"),
        (float, "float64"),
        (np.int16, "int16"),
        (ml_dtypes.float8_e4m3fn, "float8_e4m3fn"),
        (">f4", ">f4"),
        ("bf16", "'bf16'"),
        (3.5, "3.5"),
    ],
)
def test_other_storage_is_refused(dtype: Any, named: str) -> None:
    weight = np.zeros((7, 6), np.float32)
    message = f"dtype must be float32, bfloat16, int8 or w8a8, not {named}"
    with pytest.raises(ValueError, match=message):
        na.Linear(weight, dtype=dtype)
    with pytest.raises(ValueError, match=message):
        one = np.eye(6, dtype=np.float32)
        na.MultiHeadAttention(2, one, one, one, one, dtype=dtype)
    if named != ">f4":  # the reference reads every byte order
        with pytest.raises(ValueError, match=message):
            reference.Linear(weight, dtype=dtype)


def test_bfloat16_storage_needs_no_ml_dtypes() -> None:
    """The name is enough where NumPy knows no such dtype."""
    script = """
        import sys
        sys.modules["ml_dtypes"] = None  # importing it fails
        import numpy as np
        import numattn as na
        linear = na.Linear(np.float32([[1 + 2**-12, 3]]), dtype="bfloat16")
        print(linear.dtype, linear(np.float32([[1, 1]])))
        one = np.eye(4, dtype=np.float32)
        try:
            na.MultiHeadAttention(2, one, one, one, one, dtype="bfloat16")
        except ImportError as error:
            print(error)
    """
    assert output_of(script).splitlines() == [
        "bfloat16 [[4.]]",
        "bfloat16 needs ml_dtypes: pip install ml_dtypes",
    ]


@pytest.mark.parametrize("dtype", ["float64", "int32", ">f4", "bool", "complex64"])
def test_out_of_other_dtypes_is_refused(rng: np.random.Generator, dtype: str) -> None:
    linear = na.Linear(normal(rng, (7, 6)), dtype="bfloat16")
    with pytest.raises(ValueError, match=f"out .*{dtype}"):
        linear(normal(rng, (4, 6)), out=np.zeros((4, 7), dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_out_of_a_float32_layer_has_the_dtype_of_x(rng: np.random.Generator, dtype: str) -> None:
    with pytest.raises(ValueError, match=f"out must have x's dtype float32, not {dtype}"):
        na.Linear(normal(rng, (7, 6)))(normal(rng, (4, 6)), out=np.zeros((4, 7), DTYPES[dtype]))


@pytest.mark.parametrize("of_out", [None, "float16", "bfloat16"])
def test_a_residual_of_another_dtype_than_the_result_is_refused(
    rng: np.random.Generator, of_out: str | None
) -> None:
    linear, x = na.Linear(normal(rng, (7, 6)), dtype="bfloat16"), normal(rng, (4, 6))
    out = None if of_out is None else np.full((4, 7), 5, DTYPES[of_out])
    for dtype in set(DTYPES) - {of_out or "float32"}:
        with pytest.raises(ValueError, match=f"residual .*{of_out or 'float32'}, not {dtype}"):
            linear(x, residual=np.zeros((4, 7), DTYPES[dtype]), out=out)
    assert out is None or (out == 5).all()


def test_out_that_overlaps_the_input_in_another_dtype_is_refused(rng: np.random.Generator) -> None:
    x = normal(rng, (5, 16))
    before, linear = x.copy(), na.Linear(normal(rng, (16, 16)), dtype="bfloat16")
    with pytest.raises(ValueError, match="out overlaps x"):
        linear(x, out=x.view(BFLOAT16)[:, :16])
    assert_same_bits(x, before)


def test_the_check_would_notice_what_is_cut_instead_of_rounded(rng: np.random.Generator) -> None:
    """The tolerance is worth something: truncated inputs or weights, or sums in bfloat16, show."""
    x, weight = normal(rng, (65, 64)), normal(rng, (33, 64))
    expected = expect_linear(weight, None, x, storage="bfloat16")
    nearest = [y.astype(BFLOAT16).astype(np.float32) for y in (x, weight)]
    cut = [(y.view(np.uint32) & 0xFFFF0000).view(np.float32) for y in (x, weight)]
    expected.check(nearest[0] @ nearest[1].T)
    for wrong in (
        cut[0] @ nearest[1].T,
        nearest[0] @ cut[1].T,
        (nearest[0] @ nearest[1].T).astype(BFLOAT16).astype(np.float32),
    ):
        with pytest.raises(AssertionError, match="exceeds"):
            expected.check(wrong)
