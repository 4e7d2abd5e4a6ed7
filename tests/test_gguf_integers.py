"""Quantised tensors of GGUF as integers: the floats that gguf makes, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

import numattn as na
from cases import normal
from numattn.models.files.gguf_integers import KINDS, integers_of
from tolerance import assert_same_bits, linear_epsilon

pytest.importorskip("gguf")
from gguf import GGMLQuantizationType  # noqa: E402
from gguf.quants import dequantize  # noqa: E402


def block_bytes(rng: np.random.Generator, kind: str, rows: int, blocks: int) -> np.ndarray:
    """Return random blocks, whose scales alone are no NaN or infinity."""
    size, _, _ = KINDS[kind]
    data = rng.integers(0, 256, (rows, blocks, size)).astype(np.uint8)
    places = {"Q4_1": (0, 2), "Q4_K": (0, 2), "Q6_K": (208,)}.get(kind, (0,))
    for place in places:
        scales = normal(rng, (rows, blocks, 1), "float16")
        data[..., place : place + 2] = scales.view(np.uint8)
    return data.reshape(rows, -1)


@pytest.mark.parametrize("kind", KINDS)
def test_they_stand_for_what_the_library_makes(rng: np.random.Generator, kind: str) -> None:
    data = block_bytes(rng, kind, 50, 6)
    expected = dequantize(data, GGMLQuantizationType[kind])
    integers, scale, minimum = integers_of(data, kind)
    group = integers.shape[1] // scale.shape[1]
    numbers = integers.astype(np.float32) * np.repeat(scale, group, axis=1)
    if minimum is not None:
        numbers = numbers + np.repeat(minimum, group, axis=1)
    np.testing.assert_array_equal(numbers, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_of_them(isa: str, rng: np.random.Generator, kind: str) -> None:
    data = block_bytes(rng, kind, 60, 5)
    expected = dequantize(data, GGMLQuantizationType[kind])
    linear = na.Linear.from_integers(*integers_of(data, kind))
    np.testing.assert_array_equal(linear(np.eye(expected.shape[1], dtype=np.float32)), expected.T)
    x = normal(rng, (7, expected.shape[1]))
    exact = x.astype(np.float64) @ expected.astype(np.float64).T
    size = np.linalg.norm(x) * np.linalg.norm(expected)
    assert np.linalg.norm(linear(x) - exact) <= linear_epsilon(expected.shape[1]) * size
    assert_same_bits(linear(x[:1]), linear(x)[:1])
