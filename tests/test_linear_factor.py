"""A `Linear` whose factor is another one: the bits of two calls, in one."""

from __future__ import annotations

from itertools import product

import ml_dtypes
import numpy as np
import pytest

import numattn as na
from cases import normal
from numattn.linear import part_of
from tolerance import assert_same_bits

STORED = ["float32", "bfloat16", "int8", "groups8", "groups4", "split"]


def stored_linear(rng: np.random.Generator, stored: str, shape: tuple[int, int]) -> na.Linear:
    if not stored.startswith("groups"):
        split = stored == "split"
        return na.Linear(
            normal(rng, shape),
            normal(rng, shape[:1]),
            dtype=None if split else stored,
            precision="high" if split else "highest",
        )
    integers = rng.integers(0, 16, shape).astype(np.int8 if stored == "groups8" else np.uint8)
    return na.Linear.from_integers(integers, normal(rng, (shape[0], shape[1] // 32)))


# Some pairs are enough of those that are stored otherwise.
@pytest.mark.parametrize(
    ("stored", "stored_factor", "rows"),
    [
        (stored, stored_factor, rows)
        for stored, stored_factor, rows in product(STORED, STORED, [1, 5, 33, 700])
        if rows <= 5 or stored == stored_factor or "float32" in (stored, stored_factor)
    ],
)
def test_a_layer_as_factor_has_the_bits_of_its_results(
    isa: str, rng: np.random.Generator, stored: str, stored_factor: str, rows: int
) -> None:
    x = normal(rng, (rows, 160))
    gate, up = (stored_linear(rng, kind, (450, 160)) for kind in (stored, stored_factor))
    expected = gate(x, activation="silu", factor=up(x))
    assert_same_bits(gate(x, activation="silu", factor=up), expected)
    assert_same_bits(gate(x, activation="silu", factor=up, num_threads=2), expected)
    residual = normal(rng, expected.shape)
    expected = gate(x, activation="silu", factor=up(x), residual=residual)
    assert gate(x, activation="silu", factor=up, residual=residual, out=residual) is residual
    assert_same_bits(residual, expected)


@pytest.mark.parametrize("out_dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("stored", ["bfloat16", "int8"])
def test_a_layer_as_factor_is_rounded_to_the_dtype_of_the_result(
    isa: str, rng: np.random.Generator, stored: str, out_dtype: str
) -> None:
    x = normal(rng, (2, 20, 96)).astype(ml_dtypes.bfloat16)
    gate, up = (na.Linear(normal(rng, (150, 96)), dtype=stored) for _ in range(2))
    between, expected, out = (np.empty((2, 20, 150), np.dtype(out_dtype)) for _ in range(3))
    gate(x, activation="gelu", factor=up(x, out=between), out=expected)
    assert_same_bits(gate(x, activation="gelu", factor=up, out=out), expected)


def test_a_layer_may_be_its_own_factor(isa: str, rng: np.random.Generator) -> None:
    x, linear = normal(rng, (3, 40)), na.Linear(normal(rng, (50, 40)))
    assert_same_bits(linear(x, factor=linear), linear(x, factor=linear(x)))


def test_factors_in_parts_of_layers(isa: str, rng: np.random.Generator) -> None:
    x = normal(rng, (3, 40))
    gate, up = (na.Linear(normal(rng, (200, 40)), normal(rng, (200,))) for _ in range(2))
    (gate_part, before), (up_part, _) = (part_of(layer, 100, 180) for layer in (gate, up))
    expected = gate(x, activation="silu", factor=up(x))[:, 100:180]
    assert_same_bits(gate_part(x, activation="silu", factor=up_part)[:, before:], expected)


@pytest.mark.parametrize("shape", [(7, 5), (6, 6), (8, 6)])
def test_factor_layers_of_other_shapes_are_refused(shape: tuple[int, int]) -> None:
    linear, other = (na.Linear(np.ones(each, np.float32)) for each in ((7, 6), shape))
    out = np.zeros((4, 7), np.float32)
    with pytest.raises(ValueError, match=rf"factor.* 6 to 7 .* {shape[1]} to {shape[0]}"):
        linear(np.ones((4, 6), np.float32), factor=other, out=out)
    assert not out.any()


def test_a_factor_layer_of_float32_gives_its_own_dtype_alone() -> None:
    short, exact = (na.Linear(np.ones((7, 6), np.float32), dtype=d) for d in ("bfloat16", None))
    x = np.ones((4, 6), np.float32)
    with pytest.raises(ValueError, match="out.*float32.*float16"):
        short(x, factor=exact, out=np.zeros((4, 7), np.float16))
