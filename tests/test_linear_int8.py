"""`Linear` with weights as integers: exact sums, the same bits at every instruction set.

Inputs become integers too, of 16 bits (int8) or of 8 (w8a8).
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal
from guard_pages import EDGES, guarded
from numattn import reference
from numattn.reference.storage import LARGEST_ACTIVATION, LARGEST_WEIGHT, to_bytes, to_integers
from strides import RELAYOUTS
from tolerance import UNIT_ROUNDOFF, Array, assert_same_bits, float32_epsilon

ACTIVATIONS = (None, "relu", "gelu", "gelu_tanh", "silu")
DEPTHS = (1, 2, 3, 5, 31, 63, 64, 65, 129, 511, 512, 513, 1025)
UNIT = UNIT_ROUNDOFF["float32"]
SLICE = {"int8": 512, "w8a8": 65536}  # of the depth, summed exactly


@pytest.fixture(params=["int8", "w8a8"])
def storage(request: pytest.FixtureRequest) -> str:
    """How weights are stored."""
    name: str = request.param
    return name


def integers_of(storage: str, x: Array) -> tuple[Array, Array]:
    """Return what stands for the inputs of such a layer: integers and scales."""
    return to_bytes(x) if storage == "w8a8" else to_integers(x, LARGEST_ACTIVATION)


class Exact:
    """What the reference says of x, and how far from it each number may lie.

    The same integers are summed. Each slice's sum is rounded once and added to those before, and
    then come three products and the bias: so many roundings of numbers that are at most as large
    as the slices' sums together.
    """

    def __init__(self, storage: str, x: Array, weight: Array, bias: Array | None = None) -> None:
        self.y = reference.Linear(weight, bias, dtype=storage)(x)
        left, left_scale = integers_of(storage, x)
        right, right_scale = to_integers(weight, LARGEST_WEIGHT)
        slices = range(0, x.shape[-1], SLICE[storage])
        sums = sum(
            np.abs(left[:, k : k + SLICE[storage]] @ right[:, k : k + SLICE[storage]].T)
            for k in slices
        )
        size = sums * left_scale * right_scale.T
        if bias is not None:
            size = size + np.abs(bias.astype(np.float64))
        self.bound = (len(slices) + 5) * UNIT * size * 1.01

    def check(self, got: Array) -> None:
        """Compare the results of the first rows, number by number."""
        error = np.abs(got.astype(np.float64) - self.y[: len(got)])
        assert (error <= self.bound[: len(got)]).all(), error.max()


def check(got: Array, storage: str, x: Array, weight: Array, bias: Array | None = None) -> None:
    """Compare a result without activation with the reference."""
    Exact(storage, x, weight, bias).check(got)


@pytest.mark.parametrize("depth", DEPTHS)
def test_sizes(isa: str, storage: str, rng: np.random.Generator, depth: int) -> None:
    x = normal(rng, (65, depth))
    for out_features in (1, 15, 17, 48, 65, 131):
        weight, bias = normal(rng, (out_features, depth)), normal(rng, (out_features,))
        for given in (None, bias):
            linear = na.Linear(weight, given, dtype=storage)
            exact = Exact(storage, x, weight, given)
            for rows in (1, 2, 3, 4, 5, 6, 7, 11, 16, 17, 33, 64, 65):
                exact.check(linear(x[:rows]))


def test_every_number_of_rows_gives_a_row_the_same_bits(
    isa: str, storage: str, rng: np.random.Generator
) -> None:
    weight, bias = normal(rng, (100, 700)), normal(rng, (100,))
    linear = na.Linear(weight, bias, dtype=storage)
    x = normal(rng, (70, 700))
    alone = np.concatenate([linear(row[np.newaxis], activation="gelu") for row in x])
    for rows in range(1, 71):
        assert_same_bits(linear(x[:rows], activation="gelu"), alone[:rows])
        assert_same_bits(linear(x[70 - rows :], activation="gelu"), alone[70 - rows :])


@pytest.mark.parametrize("depth", [64, 129, 1501, 5000])
def test_every_instruction_set_gives_the_same_bits(
    storage: str, rng: np.random.Generator, depth: int
) -> None:
    """And packs the same ones."""
    weight, bias = normal(rng, (131, depth)), normal(rng, (131,))
    residual = normal(rng, (70, 131))
    x = normal(rng, (70, depth)) * np.exp(3 * normal(rng, (70, 1)))
    results = []
    for isa in na.isa.available():
        with na.isa.use(isa):
            linear = na.Linear(weight, bias, dtype=storage)
            made = [pickle.dumps(linear), linear(x, activation="relu", residual=residual)]
            results.append([*made, linear(x[:3])])
    for packed, many, few in results[1:]:
        assert packed == results[0][0]
        assert_same_bits(many, results[0][1])
        assert_same_bits(few, results[0][2])


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums(isa: str, storage: str, rows: int, sign: int) -> None:
    """Every product as large as can be, over more of the depth than 32 bits hold."""
    for depth in (512, 1024, 70000):
        x = np.full((rows, depth), 3.0, np.float32)
        weight = np.full((49, depth), sign * 0.5, np.float32)
        got = na.Linear(weight, dtype=storage)(x)
        np.testing.assert_allclose(
            got, sign * 1.5 * depth, rtol=(depth // SLICE[storage] + 6) * UNIT
        )


@pytest.mark.parametrize("rows", [1, 6, 20])
def test_integers_are_exact(isa: str, storage: str, rng: np.random.Generator, rows: int) -> None:
    """With scales of 1, one slice is the very sum, rounded once."""
    least, most = (-100, 155) if storage == "w8a8" else (-LARGEST_ACTIVATION, LARGEST_ACTIVATION)
    x = rng.integers(least, most + 1, (rows, SLICE["int8"]))
    weight = rng.integers(-LARGEST_WEIGHT, LARGEST_WEIGHT + 1, (50, SLICE["int8"]))
    x[:, 0], x[:, 1], weight[:, 1] = most, least, -LARGEST_WEIGHT
    linear = na.Linear(weight.astype(np.float32), dtype=storage)
    np.testing.assert_array_equal(linear(x.astype(np.float32)), (x @ weight.T).astype(np.float32))


@pytest.mark.parametrize("shape", [(1, 33, 17), (5, 70, 50), (64, 384, 33), (65, 31, 130)])
@pytest.mark.parametrize("of_x", DTYPES)
def test_every_dtype_of_input_and_output(
    isa: str, storage: str, rng: np.random.Generator, of_x: str, shape: tuple[int, int, int]
) -> None:
    """Numbers are widened, which is exact, and a result is the float32 one rounded."""
    rows, depth, out_features = shape
    x, weight = normal(rng, (rows, depth), of_x), normal(rng, (out_features, depth), of_x)
    bias, residual = normal(rng, (out_features,)), normal(rng, (rows, out_features))
    linear = na.Linear(weight, bias, dtype=storage)
    wide = np.empty((rows, out_features), np.float32)
    linear(x, out=wide)
    check(wide, storage, x, weight, bias)
    assert_same_bits(wide, linear(x.astype(np.float32)))
    assert linear(x).dtype == DTYPES[of_x]
    for dtype in DTYPES.values():
        out = np.empty((rows, out_features), dtype)
        assert linear(x, out=out) is out
        assert_same_bits(out, wide.astype(dtype))
        added = residual.astype(dtype)
        expected = (wide * added.astype(np.float32)).astype(dtype)
        assert_same_bits(linear(x, factor=added, out=out), expected)
        expected = (wide + added.astype(np.float32)).astype(dtype)
        assert_same_bits(linear(x, residual=added, out=added), expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(1, 70, 33), (37, 71, 50), (64, 300, 130)])
def test_epilogues(
    isa: str,
    storage: str,
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    activation: str | None,
) -> None:
    rows, depth, out_features = shape
    # Products of the order of 1, where the activations bend.
    x, weight = normal(rng, (rows, depth)), normal(rng, (out_features, depth)) / np.sqrt(depth)
    weight = weight.astype(np.float32)
    bias, residual = normal(rng, (out_features,)), normal(rng, (rows, out_features))
    for given in (None, bias):
        linear = na.Linear(weight, given, dtype=storage)
        exact = reference.Linear(weight, given, dtype=storage)
        for added in (None, residual):
            options: dict[str, Any] = {"activation": activation, "residual": added}
            expected = exact(x, **options)
            error = np.linalg.norm(linear(x, **options) - expected)
            assert error <= float32_epsilon(depth) * max(np.linalg.norm(expected), 1)


def test_the_error_of_weights_is_that_of_rounding(
    isa: str, storage: str, rng: np.random.Generator
) -> None:
    """Half a quantum of its row at most, and half a quantum of the input's row."""
    x, weight = normal(rng, (20, 300)), normal(rng, (60, 300))
    got = na.Linear(weight, dtype=storage)(x)
    exact = x.astype(np.float64) @ weight.astype(np.float64).T
    of_weight = np.abs(x).sum(1)[:, np.newaxis] * np.abs(weight).max(1) / (2 * LARGEST_WEIGHT)
    quantum = np.abs(x).max(1) / LARGEST_ACTIVATION
    if storage == "w8a8":
        quantum = (x.max(1) - x.min(1)) / 255
    of_x = np.abs(weight).sum(1) * quantum[:, np.newaxis] / 2
    assert (np.abs(got - exact) <= 1.01 * (of_weight + of_x)).all()
    # Errors are independent: of the size that uniform rounding gives, not of the bound.
    of_weight = np.linalg.norm(x, axis=1)[:, np.newaxis] * np.abs(weight).max(1) / LARGEST_WEIGHT
    of_x = np.linalg.norm(weight, axis=1) * quantum[:, np.newaxis]
    expected = np.hypot(of_weight, of_x) / np.sqrt(12)
    assert 0.9 < np.linalg.norm(got - exact) / np.linalg.norm(expected) < 1.1


@pytest.mark.parametrize("rows", [1, 2, 5, 20])
def test_rows_of_zeros_give_the_bias(
    isa: str, storage: str, rng: np.random.Generator, rows: int
) -> None:
    weight, bias = normal(rng, (50, 70)), normal(rng, (50,))
    weight[7] = 0
    x = normal(rng, (rows, 70))
    linear = na.Linear(weight, bias, dtype=storage)
    np.testing.assert_array_equal(linear(x)[:, 7], np.full(rows, bias[7]))
    x[rows // 2] = 0
    np.testing.assert_array_equal(linear(x)[rows // 2], bias)
    check(linear(x), storage, x, weight, bias)


@pytest.mark.parametrize("rows", [3, 5, 20, 66])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_stay_in_their_row(
    isa: str, storage: str, rng: np.random.Generator, rows: int, bad: float
) -> None:
    x, weight = normal(rng, (rows, 130)), normal(rng, (60, 130))
    before = na.Linear(weight, dtype=storage)(x)
    for place in (0, 64, 129):
        spoilt = x.copy()
        spoilt[1, place] = bad
        got = na.Linear(weight, dtype=storage)(spoilt)
        assert np.isnan(got[1]).all()
        assert_same_bits(np.delete(got, 1, 0), np.delete(before, 1, 0))
        in_weight = weight.copy()
        in_weight[40, place] = bad
        got = na.Linear(in_weight, dtype=storage)(x)
        assert np.isnan(got[:, 40]).all()
        assert_same_bits(np.delete(got, 40, 1), np.delete(before, 40, 1))
    assert np.isnan(
        na.Linear(in_weight, dtype=storage)(np.zeros((rows, 130), np.float32))[:, 40]
    ).all()


@pytest.mark.parametrize("rows", [1, 5, 20])
def test_tiny_and_huge_numbers(isa: str, storage: str, rng: np.random.Generator, rows: int) -> None:
    """Wherever the result is a normal number, it has the accuracy of one."""
    size = np.float64(2.0) ** np.array([-149, -140, -126, -100, -61, -59, 0, 59, 61, 100, 126])
    x, weight = normal(rng, (rows, 96)).clip(-1, 1), normal(rng, (50, 96)).clip(-1, 1)
    for of_x in size:
        for of_weight in size:
            if not 2.0**-110 < of_x * of_weight < 2.0**110:
                continue
            scaled, heavy = (x * of_x).astype(np.float32), (weight * of_weight).astype(np.float32)
            check(na.Linear(heavy, dtype=storage)(scaled), storage, scaled, heavy)


def test_results_below_and_beyond_float32(isa: str, storage: str) -> None:
    one = np.ones((3, 2), np.float32)
    for power, expected in ((-100, 0.0), (-74, 2.0**-147), (63, 2.0**127), (64, np.inf)):
        factor = np.float32(2.0**power)
        got = na.Linear(one * factor, dtype=storage)(one * factor)
        np.testing.assert_allclose(got, np.full((3, 3), expected), rtol=1e-6)


def test_integers_of_the_reference() -> None:
    integers, scale = to_integers([[1.27, -0.5, 0.004], [0, 0, 0], [1, np.nan, 0]], LARGEST_WEIGHT)
    np.testing.assert_array_equal(integers, [[127, -50, 0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(scale[:, 0], [0.01, 0, np.nan], rtol=1e-7)


@pytest.mark.parametrize("relayout", RELAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_strides(
    isa: str, storage: str, rng: np.random.Generator, dtype: str, relayout: str
) -> None:
    move = RELAYOUTS[relayout]
    x, residual = normal(rng, (3, 17, 40), dtype), normal(rng, (3, 17, 30), dtype)
    weight, bias = normal(rng, (30, 40), dtype), normal(rng, (30,))
    expected = na.Linear(weight, bias, dtype=storage)(x, residual=residual)
    moved = na.Linear(move(weight), bias, dtype=storage)
    assert_same_bits(moved(move(x), residual=move(residual)), expected)


@pytest.mark.parametrize("edge", EDGES)
def test_nothing_beside_the_arrays_is_touched(
    isa: str, storage: str, rng: np.random.Generator, edge: str
) -> None:
    for rows, depth, out_features in ((1, 1, 1), (5, 33, 17), (64, 48, 130), (3, 129, 65)):
        x, weight = normal(rng, (1, 1, rows, depth)), normal(rng, (1, 1, out_features, depth))
        out = guarded(np.zeros((1, 1, rows, out_features), np.float32), edge)
        linear = na.Linear(guarded(weight, edge)[0, 0], dtype=storage)
        linear(guarded(x, edge)[0, 0], out=out[0, 0])
        check(out[0, 0], storage, x[0, 0], weight[0, 0])


def test_threads_and_repeats_change_no_bit(
    isa: str, storage: str, rng: np.random.Generator
) -> None:
    x, linear = normal(rng, (300, 200)), na.Linear(normal(rng, (700, 200)), dtype=storage)
    expected = linear(x, num_threads=1)
    for threads in (1, 2, 5):
        assert_same_bits(linear(x, num_threads=threads), expected)


@pytest.mark.parametrize("dtype", ["int8", np.int8, np.dtype("int8"), "w8a8"])
def test_what_a_layer_says_of_itself(dtype: Any) -> None:
    linear = na.Linear(np.ones((3, 2), np.float32), dtype=dtype)
    name = "w8a8" if dtype == "w8a8" else "int8"
    assert linear.dtype == name
    assert repr(linear) == f"Linear(in_features=2, out_features=3, dtype={name})"


def test_pickles(isa: str, storage: str, rng: np.random.Generator) -> None:
    weight, bias, x = normal(rng, (101, 70)), normal(rng, (101,)), normal(rng, (9, 70))
    linear = na.Linear(weight, bias, dtype=storage)
    for protocol in (2, 5):
        data = pickle.dumps(linear, protocol)
        assert len(data) < 1.3 * 144 * 128 + 4000, "a byte for each weight, padded to whole panels"
        assert_same_bits(pickle.loads(data)(x), linear(x))
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(linear, 5, buffer_callback=buffers.append)
    assert len(data) < 4000
    assert_same_bits(pickle.loads(data, buffers=buffers)(x), linear(x))


@pytest.mark.parametrize("dtype", ["int4", "uint8", np.int16, "float16"])
def test_other_dtypes_are_refused(dtype: Any) -> None:
    with pytest.raises(ValueError, match="float32, bfloat16, int8 or w8a8"):
        na.Linear(np.ones((3, 2), np.float32), dtype=dtype)
    with pytest.raises(ValueError, match="float32, bfloat16, int8 or w8a8"):
        reference.Linear(np.ones((3, 2), np.float32), dtype=dtype)


def test_out_of_other_dtypes_is_refused(isa: str, storage: str) -> None:
    linear = na.Linear(np.ones((3, 2), np.float32), dtype=storage)
    for dtype in (np.int8, np.float64, bool):
        with pytest.raises((TypeError, ValueError), match="out"):
            linear(np.ones((4, 2), np.float32), out=np.zeros((4, 3), dtype))
