"""`Linear` against the reference, over sizes that straddle vectors and blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import LENGTHS, normal
from guard_pages import EDGES, guarded
from numattn import reference
from strides import RELAYOUTS
from tolerance import UNIT_ROUNDOFF, assert_linear_close, assert_same_bits

ACTIVATIONS = (None, "relu", "gelu", "gelu_tanh", "silu")
ROWS = (1, 2, 3, 4, 5, 7, 8, 9, *LENGTHS[1:])


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("in_features", [1, 3, 16, 31, 64, 129, 384])
@pytest.mark.parametrize("out_features", [1, 15, 16, 17, 48, 65, 130])
def test_sizes(
    isa: str, rng: np.random.Generator, rows: int, in_features: int, out_features: int
) -> None:
    x, weight = normal(rng, (rows, in_features)), normal(rng, (out_features, in_features))
    bias = normal(rng, (out_features,))
    size = np.sqrt(in_features)
    exact = reference.Linear(weight, bias)(x)
    assert_linear_close(na.Linear(weight, bias)(x), exact, in_features, size)
    assert_linear_close(na.Linear(weight)(x), reference.Linear(weight)(x), in_features, size)


@pytest.mark.parametrize("rows", [1, 130, 700])
def test_several_blocks_in_every_direction(isa: str, rng: np.random.Generator, rows: int) -> None:
    x, weight, bias = normal(rng, (rows, 1500)), normal(rng, (1100, 1500)), normal(rng, (1100,))
    assert_linear_close(na.Linear(weight, bias)(x), reference.Linear(weight, bias)(x), 1500)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("with_factor", [False, True])
@pytest.mark.parametrize("shape", [(1, 70, 33), (37, 70, 50), (5, 16, 16), (64, 600, 130)])
def test_epilogues(
    isa: str,
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    with_factor: bool,
    with_residual: bool,
    with_bias: bool,
    activation: str | None,
) -> None:
    rows, depth, out_features = shape
    # Products of the order of 1, where the activations bend.
    x, weight = normal(rng, (rows, depth)), normal(rng, (out_features, depth)) / np.sqrt(depth)
    weight = weight.astype(np.float32)
    bias = normal(rng, (out_features,)) if with_bias else None
    residual = normal(rng, (rows, out_features)) if with_residual else None
    options: dict[str, Any] = {"activation": activation, "residual": residual}
    if with_factor:
        options["factor"] = normal(rng, (rows, out_features))
    got = na.Linear(weight, bias)(x, **options)
    assert_linear_close(got, reference.Linear(weight, bias)(x, **options), depth)
    for name in ("factor", "residual"):
        if options.get(name) is not None:
            assert_same_bits(na.Linear(weight, bias)(x, **{**options, "out": options[name]}), got)
            break  # it is overwritten


@pytest.mark.parametrize("activation", ACTIVATIONS[1:])
def test_activations_over_their_whole_range(isa: str, activation: str) -> None:
    x = np.concatenate(
        [
            np.linspace(-40, 40, 4001),
            np.linspace(-1e-3, 1e-3, 201),
            np.array([-1e30, -1e4, -100, 0.0, 1e-30, 1e-40, 100, 1e4, 1e30]),
        ]
    ).astype(np.float32)
    got = na.Linear(np.ones((1, 1), np.float32))(x[:, np.newaxis], activation=activation)[:, 0]
    exact = reference.Linear([[1.0]])(x[:, np.newaxis], activation=activation)[:, 0]
    assert np.isfinite(got).all()
    # Each is x times a function between 0 and 1, which errs by some roundings of 1 where it bends
    # (|x| < 6), and saturates elsewhere.
    unit = UNIT_ROUNDOFF["float32"]
    bound = 4 * unit * (np.minimum(np.abs(x), 6) + np.abs(exact)) + 2.0**-126
    assert (np.abs(got - exact) <= bound).all(), (np.abs(got - exact) / bound).max()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_and_infinity(isa: str, activation: str | None) -> None:
    x = np.array([[np.nan, 1.0], [np.inf, 0.0], [-np.inf, 0.0], [1.0, 2.0]], np.float32)
    weight = np.array([[1.0, 0.0]] * 20, np.float32)
    got = na.Linear(weight)(x, activation=activation)
    with np.errstate(all="ignore"):
        exact = reference.Linear(weight)(x, activation=activation)
    # The limits at ±inf: max(x, 0) for each activation; −inf·0 in the formula may also be NaN.
    assert np.isnan(got[0]).all()
    assert (got[1] == np.inf).all()
    limit = -np.inf if activation is None else 0.0
    assert ((got[2] == limit) | np.isnan(got[2])).all()
    np.testing.assert_allclose(got[3], exact[3], rtol=1e-6)


@pytest.mark.parametrize("shape", [(70,), (1, 70), (2, 5, 70), (2, 3, 4, 70), (0, 70), (2, 0, 70)])
def test_leading_dimensions(isa: str, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    x, weight, bias = normal(rng, shape), normal(rng, (33, 70)), normal(rng, (33,))
    options = {name: normal(rng, (*shape[:-1], 33)) for name in ("factor", "residual")}
    got = na.Linear(weight, bias)(x, activation="gelu", **options)
    assert got.shape == (*shape[:-1], 33) and got.dtype == np.float32
    in_rows = {name: array.reshape(-1, 33) for name, array in options.items()}
    rows = na.Linear(weight, bias)(x.reshape(-1, 70), activation="gelu", **in_rows)
    assert_same_bits(got.reshape(-1, 33), rows)


@pytest.mark.parametrize("relayout", RELAYOUTS)
def test_strides(isa: str, rng: np.random.Generator, relayout: str) -> None:
    move = RELAYOUTS[relayout]
    x, weight, bias = normal(rng, (3, 17, 40)), normal(rng, (30, 40)), normal(rng, (30,))
    options = {name: normal(rng, (3, 17, 30)) for name in ("factor", "residual")}
    moved = {name: move(array) for name, array in options.items()}
    expected = na.Linear(weight, bias)(x, **options)
    assert_same_bits(na.Linear(weight, bias)(move(x), **moved), expected)
    assert_same_bits(na.Linear(move(weight), bias)(x, **options), expected)
    assert_same_bits(na.Linear(weight, bias[::-1].copy()[::-1])(x, **options), expected)


def test_weight_is_packed_once(isa: str, rng: np.random.Generator) -> None:
    """Later changes of the weight or bias do not reach the layer."""
    x, weight, bias = normal(rng, (5, 16)), normal(rng, (16, 16)), normal(rng, (16,))
    linear = na.Linear(weight, bias)
    before = linear(x)
    weight[:] = 0
    bias[:] = 0
    assert_same_bits(linear(x), before)


def test_out_receives_the_result(isa: str, rng: np.random.Generator) -> None:
    x, linear = normal(rng, (3, 17, 40)), na.Linear(normal(rng, (30, 40)))
    out = np.empty((3, 17, 30), np.float32)
    assert linear(x, out=out) is out
    assert_same_bits(out, linear(x))


@pytest.mark.parametrize("edge", EDGES)
def test_nothing_beside_the_arrays_is_touched(
    isa: str, rng: np.random.Generator, edge: str
) -> None:
    for rows, depth, out_features in ((1, 1, 1), (5, 33, 17), (64, 48, 130), (3, 129, 65)):
        x, weight = normal(rng, (1, 1, rows, depth)), normal(rng, (1, 1, out_features, depth))
        factor, residual = (normal(rng, (1, 1, rows, out_features)) for _ in range(2))
        out = guarded(np.zeros_like(residual), edge)
        linear = na.Linear(guarded(weight, edge)[0, 0])
        options = {"factor": factor, "residual": residual}
        places = {name: guarded(array, edge)[0, 0] for name, array in options.items()}
        linear(guarded(x, edge)[0, 0], **places, out=out[0, 0])
        exact = reference.Linear(weight[0, 0])(
            x[0, 0], factor=factor[0, 0], residual=residual[0, 0]
        )
        assert_linear_close(out[0, 0], exact, depth)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        (((4, 5),), {}, ValueError, r"x.*6.*5"),
        (((4, 6),), {"factor": (4, 6)}, ValueError, r"factor.*\(4, 7\).*\(4, 6\)"),
        (((4, 6),), {"residual": (4, 6)}, ValueError, r"residual.*\(4, 6\)"),
        (((4, 6),), {"residual": (3, 7)}, ValueError, r"residual.*\(3, 7\)"),
        (((4, 6),), {"out": (4, 6)}, ValueError, r"out.*\(4, 6\)"),
        (((4, 6),), {"activation": "tanh"}, ValueError, r"tanh.*relu|relu.*tanh"),
        (((4, 6),), {"num_threads": 0}, ValueError, r"num_threads.*0"),
        (((),), {}, ValueError, r"x.*(dimension|\(\))"),
    ],
    ids=str,
)
def test_calls_that_do_not_fit(
    arguments: Any, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    linear = na.Linear(np.zeros((7, 6), np.float32))
    arrays = [np.zeros(shape, np.float32) for shape in arguments]
    options = {
        name: np.zeros(value, np.float32) if isinstance(value, tuple) else value
        for name, value in options.items()
    }
    with pytest.raises(error, match=f"(?is){match}"):
        linear(*arrays, **options)


@pytest.mark.parametrize(
    ("weight", "bias", "error", "match"),
    [
        (np.zeros((7,), np.float32), None, ValueError, r"weight.*\(7,\)"),
        (np.zeros((7, 6, 1), np.float32), None, ValueError, r"weight.*\(7, 6, 1\)"),
        (np.zeros((7, 6), np.float32), np.zeros(6, np.float32), ValueError, r"bias.*\(6,\)"),
        (np.zeros((7, 6), np.float32), np.zeros((1, 7), np.float32), ValueError, r"bias.*\(1, 7\)"),
        (np.zeros((7, 6)), None, TypeError, r"float64.*(cast|astype).*float32"),
        (np.zeros((7, 6), np.int32), None, TypeError, r"int32.*float32"),
        (np.zeros((7, 6), ">f4"), None, TypeError, r"byte|>f4"),
        (np.zeros((7, 6), np.float32), np.zeros(7), TypeError, r"bias.*float64.*float32"),
    ],
)
def test_layers_that_do_not_fit(weight: Any, bias: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=f"(?is){match}"):
        na.Linear(weight, bias)


@pytest.mark.parametrize("dtype", ["float64", "int32", ">f4", "object"])
def test_inputs_of_other_dtypes_are_refused(dtype: str) -> None:
    linear = na.Linear(np.zeros((7, 6), np.float32))
    with pytest.raises(TypeError, match="(?i)x.*(float32|byte)"):
        linear(np.zeros((4, 6), dtype))


def test_out_that_overlaps_the_input_is_refused(rng: np.random.Generator) -> None:
    x = normal(rng, (5, 16))
    before = x.copy()
    with pytest.raises(ValueError, match="(?i)out.*overlap"):
        na.Linear(normal(rng, (16, 16)))(x, out=x)
    assert_same_bits(x, before)
