"""T5's relative position bias against transformers and the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal, unit_inputs
from numattn import reference
from tolerance import assert_same_bits, distance, float32_epsilon, norm

GOLDEN = Path(__file__).parent / "data" / "position_golden.npz"  # see make_position_golden.py


def test_buckets_are_those_of_transformers() -> None:
    with np.load(GOLDEN) as golden:
        settings, relative = golden["t5_settings"], golden["t5_relative"]
        expected = golden["t5_buckets"]
    for (num_buckets, bidirectional, max_distance), buckets in zip(
        settings.tolist(), expected, strict=True
    ):
        options = {
            "num_buckets": num_buckets,
            "bidirectional": bool(bidirectional),
            "max_distance": max_distance,
        }
        got = na.position.t5_buckets(relative, **options)
        assert got.dtype == np.int64
        np.testing.assert_array_equal(got, buckets, str(options))
        np.testing.assert_array_equal(reference.t5_buckets(relative, **options), buckets)


@pytest.mark.parametrize("shape", [(), (0,), (2, 3, 4)])
def test_buckets_of_any_shape(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    relative = rng.integers(-300, 300, shape)
    got = na.position.t5_buckets(relative)
    assert got.shape == shape
    np.testing.assert_array_equal(got.ravel(), na.position.t5_buckets(relative.ravel()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [(1, 1), (7, 7), (1, 40), (40, 3), (12, 50), (0, 5), (5, 0)])
@pytest.mark.parametrize("q_offset", [0, 33, -4])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_bias_agrees_with_the_reference(
    rng: np.random.Generator,
    dtype: str,
    lengths: tuple[int, int],
    q_offset: int,
    bidirectional: bool,
) -> None:
    table = normal(rng, (32, 3), dtype)
    options = {"bidirectional": bidirectional, "max_distance": 40, "q_offset": q_offset}
    got = na.position.t5_bias(table, *lengths, **options)
    assert got.dtype == table.dtype and got.shape == (3, *lengths)
    np.testing.assert_array_equal(got.astype(float), reference.t5_bias(table, *lengths, **options))


def test_bias_takes_memory_for_its_distances_alone(rng: np.random.Generator) -> None:
    table = normal(rng, (32, 8))
    bias = na.position.t5_bias(table, 30_000, 40_000, bidirectional=True, max_distance=128)
    reach = sum((n - 1) * abs(step) for n, step in zip(bias.shape, bias.strides, strict=True))
    assert bias.shape == (8, 30_000, 40_000) and reach < 8 * 70_000 * 4
    assert not bias.flags.writeable


@pytest.mark.parametrize("q_offset", [0, 30])
def test_bias_is_what_attention_takes(isa: str, rng: np.random.Generator, q_offset: int) -> None:
    q, k, v = unit_inputs(rng, (2, 4, 4), (70, 100))
    bias = na.position.t5_bias(
        normal(rng, (32, 4)), 70, 100, bidirectional=True, max_distance=128, q_offset=q_offset
    )
    got = na.attention(q, k, v, bias=bias, scale=0.25)
    expected = reference.attention(q, k, v, bias=bias, scale=0.25)
    assert distance(got, expected) <= float32_epsilon(100) * norm(expected)
    assert_same_bits(got, na.attention(q, k, v, bias=np.array(bias), scale=0.25))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_buckets": 3}, "num_buckets.*4.*3"),
        ({"num_buckets": 0}, "num_buckets.*0"),
        ({"num_buckets": 1, "bidirectional": False}, "num_buckets.*2.*1"),
        ({"max_distance": 8}, "max_distance.*8"),
        ({"max_distance": -1}, "max_distance.*-1"),
    ],
)
def test_settings_that_are_refused(options: dict[str, int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        na.position.t5_buckets([1], **options)


def test_arguments_that_are_refused(rng: np.random.Generator) -> None:
    table = normal(rng, (32, 4))
    common = {"bidirectional": True, "max_distance": 128}
    with pytest.raises(TypeError, match="relative.*float64"):
        na.position.t5_buckets([0.5])
    with pytest.raises(TypeError, match="table.*float64.*astype"):
        na.position.t5_bias(table.astype(float), 3, 3, **common)
    with pytest.raises(ValueError, match=r"table.*\(32,\)"):
        na.position.t5_bias(table[:, 0], 3, 3, **common)
    with pytest.raises(ValueError, match="q_len.*-1"):
        na.position.t5_bias(table, -1, 3, **common)
    with pytest.raises(ValueError, match="k_len.*-2"):
        na.position.t5_bias(table, 3, -2, **common)
