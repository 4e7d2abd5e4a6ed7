"""`position.Rope` against transformers and the reference."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numattn import reference
from numattn.position import Rope

GOLDEN_FILE = Path(__file__).parent / "data" / "position_golden.npz"  # see make_position_golden.py
with np.load(GOLDEN_FILE) as golden_file:
    GOLDEN: dict[str, Any] = json.loads(str(golden_file["ropes"]))

POSITIONS = np.array([0, 1, 2, 31, 32, 1000, 4095])


def scaling_of(name: str) -> dict[str, Any]:
    """Return a case's scaling with nothing left to its configuration."""
    config = GOLDEN[name]["config"]
    return {"max_position_embeddings": 8192, **config["rope_parameters"]}


@pytest.mark.parametrize("name", GOLDEN)
def test_frequencies_are_those_of_transformers(name: str) -> None:
    case = GOLDEN[name]
    rope = Rope.from_config(case["config"])
    got, expected = rope.frequencies(case["length"]), np.array(case["frequencies"])
    assert rope.dim == 2 * len(expected)
    # transformers computes base^(2i/dim) in float32: an exponent wrong by u gives ln(base)·u; some
    # roundings more for the scaling.
    unit = 2.0**-24
    np.testing.assert_allclose(got, expected, rtol=(math.log(rope.base) + 8) * unit)
    assert rope.attention_factor == pytest.approx(case["attention_factor"], rel=1e-12)


@pytest.mark.parametrize("name", GOLDEN)
def test_tables_agree_with_the_reference(name: str) -> None:
    scaling, length = scaling_of(name), GOLDEN[name]["length"] or 5000
    rope = Rope(32, scaling=scaling)
    exact = reference.Rope(32, scaling=scaling)
    assert rope.dim == exact.dim and rope.base == exact.base
    for got, expected in zip(
        rope.tables(POSITIONS[POSITIONS < length], length=length),
        exact.tables(POSITIONS[POSITIONS < length], length=length),
        strict=True,
    ):
        assert got.dtype == np.float32
        # One rounding; angles up to 4095 err by as many ulp of 1 in float64.
        bound = 4096 * 2.0**-51 * exact.attention_factor
        np.testing.assert_allclose(got, expected, atol=bound, rtol=2.0**-24)


@pytest.mark.parametrize("shape", [(), (0,), (6,), (2, 3)])
def test_positions_of_any_shape(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    positions = rng.integers(-50, 5000, shape)
    for got, expected in zip(
        Rope(12).tables(positions), reference.Rope(12).tables(positions), strict=True
    ):
        assert got.shape == (*shape, 6)
        np.testing.assert_allclose(got, expected, atol=3.1e-8, rtol=0)


def test_far_positions_keep_their_angle() -> None:
    """Angles computed in float32 would be wrong by 0.03 here."""
    cos, sin = Rope(2).tables(1_000_001)
    assert abs(float(cos[0]) - math.cos(1_000_001)) < 3.1e-8
    assert abs(float(sin[0]) - math.sin(1_000_001)) < 3.1e-8


@pytest.mark.parametrize("name", ["dynamic_long", "longrope_long"])
def test_the_longest_position_decides_unless_a_length_is_given(name: str) -> None:
    rope = Rope(32, scaling=scaling_of(name))
    short, long = rope.tables([5]), rope.tables([5], length=20000)
    assert np.abs(short[1] - long[1]).max() > 1e-4
    together = rope.tables([5, 19999])
    for table, expected in zip(together, long, strict=True):
        np.testing.assert_array_equal(table[:1], expected)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_length_for_each_row(name: str) -> None:
    rope, exact = (kind(32, scaling=scaling_of(name)) for kind in (Rope, reference.Rope))
    positions, lengths = np.array([[0, 5, 90], [7, 6, 5]]), np.array([20000, 8])
    for each in (rope, exact):
        together = each.tables(positions, length=lengths)
        for row in range(2):
            alone = each.tables(positions[row], length=int(lengths[row]))
            for got, expected in zip(together, alone, strict=True):
                np.testing.assert_array_equal(got[row], expected)
    varies = not np.array_equal(rope.frequencies(20000), rope.frequencies(8))
    assert rope.depends_on_length == varies


def test_the_caller_s_mapping_is_kept_apart() -> None:
    config = GOLDEN["longrope_long"]["config"]
    before = copy.deepcopy(config)
    rope = Rope.from_config(config)
    assert config == before
    config["rope_parameters"]["long_factor"] = [1.0] * 16
    assert not np.array_equal(rope.frequencies(5000), rope.frequencies(1))


def test_names_of_old_configurations() -> None:
    old = {"type": "linear", "factor": 4.0}
    np.testing.assert_array_equal(
        Rope(8, scaling=old).frequencies(),
        Rope(8, scaling={"rope_type": "linear", "factor": 4.0}).frequencies(),
    )
    su = {**scaling_of("longrope_long"), "rope_type": "su"}
    np.testing.assert_array_equal(
        Rope(32, scaling=su).frequencies(9999),
        Rope(32, scaling=scaling_of("longrope_long")).frequencies(9999),
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"hidden_size": 96, "num_attention_heads": 4}, "Rope(24, base=10000.0)"),
        ({"head_dim": 24, "rope_scaling": None}, "Rope(24, base=10000.0)"),
        ({"head_dim": 24, "rope_theta": 500.0}, "Rope(24, base=500.0)"),
        ({"head_dim": 24, "partial_rotary_factor": 0.5}, "Rope(12, base=10000.0)"),
        (
            {"head_dim": 8, "rope_theta": 5.0, "rope_parameters": {"rope_theta": 7.0}},
            "Rope(8, base=7.0)",
        ),
    ],
)
def test_configurations(config: dict[str, Any], expected: str) -> None:
    assert repr(Rope.from_config(config)) == expected


def test_trained_length_beside_the_parameters() -> None:
    """As Phi-3 has it: outside, where it takes precedence, and the factor left to the ratio."""
    factors = [1.5] * 4
    scaling = {"type": "longrope", "short_factor": factors, "long_factor": [3.0] * 4}
    config = {
        "head_dim": 8,
        "max_position_embeddings": 32768,
        "original_max_position_embeddings": 4096,
        "rope_scaling": scaling,
    }
    rope = Rope.from_config(config)
    assert rope.attention_factor == pytest.approx(math.sqrt(1 + math.log(8) / math.log(4096)))
    np.testing.assert_allclose(rope.frequencies(4097) / rope.frequencies(4096), 0.5)


def test_parameters_by_type_of_layer() -> None:
    layers = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    config = {"head_dim": 16, "rope_parameters": layers}
    assert Rope.from_config(config, layer_type="full_attention").base == 1e6
    assert Rope.from_config(config, layer_type="sliding_attention").base == 1e4
    with pytest.raises(ValueError, match="full_attention, sliding_attention, not None"):
        Rope.from_config(config)
    with pytest.raises(ValueError, match="not 'other'"):
        Rope.from_config(config, layer_type="other")


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 2048,
}
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0] * 4,
    "long_factor": [2.0] * 4,
    "original_max_position_embeddings": 64,
    "factor": 2.0,
}
REFUSED: dict[str, tuple[int, dict[str, Any]]] = {
    "unknown type of scaling 'spiral'; known are default, linear": (8, {"rope_type": "spiral"}),
    "unknown type of scaling 'mrope'": (8, {"type": "mrope"}),
    "'linear' needs 'factor'": (8, {"rope_type": "linear"}),
    "factor of the scaling must be positive and finite, not -2": (
        8,
        {"type": "linear", "factor": -2},
    ),
    "factor .* not nan": (8, {"type": "linear", "factor": math.nan}),
    "'dynamic' needs 'original_max_position_embeddings'": (8, {"type": "dynamic", "factor": 2.0}),
    "'dynamic' needs a dim of at least 4, not 2": (
        2,
        {"type": "dynamic", "factor": 2.0, "max_position_embeddings": 9},
    ),
    "'yarn' needs 'original_max_position_embeddings'": (8, {"type": "yarn", "factor": 2.0}),
    "'yarn' needs 'factor'": (8, {"type": "yarn", "original_max_position_embeddings": 9}),
    "'yarn' needs a base of more than 1": (
        8,
        {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 9, "rope_theta": 1.0},
    ),
    "original_max_position_embeddings .* more than 1": (
        8,
        {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 1},
    ),
    "'llama3' needs 'low_freq_factor'": (8, {**LLAMA3, "low_freq_factor": None}),
    "high_freq_factor .* more than low_freq_factor": (8, {**LLAMA3, "high_freq_factor": 1.0}),
    r"long_factor .* 4 numbers, one per frequency, not shape \(3,\)": (
        8,
        {**LONGROPE, "long_factor": [1.0] * 3},
    ),
    r"short_factor .* 8 numbers, one per frequency, not shape \(4,\)": (16, LONGROPE),
    "short_factor .* positive": (8, {**LONGROPE, "short_factor": [1.0, 1.0, 0.0, 1.0]}),
    "'longrope' needs 'short_factor'": (8, {**LONGROPE, "short_factor": None}),
    "partial_rotary_factor .* at most 1, not 1.5": (8, {"partial_rotary_factor": 1.5}),
    "even number of elements that turn, not 5": (10, {"partial_rotary_factor": 0.5}),
    "even number of elements that turn, not 7": (7, {}),
    "dim must be 1 or more, not 0": (0, {}),
    "base 10.0 contradicts rope_theta 20.0": (8, {"rope_theta": 20.0}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_scalings_that_are_refused(message: str) -> None:
    dim, scaling = REFUSED[message]
    options = {"base": 10.0} if "contradicts" in message else {}
    with pytest.raises(ValueError, match=message):
        Rope(dim, scaling=scaling, **options)


def test_numbers_that_are_none() -> None:
    with pytest.raises(TypeError, match="factor of the scaling must be a number, not '2'"):
        Rope(8, scaling={"type": "linear", "factor": "2"})
    with pytest.raises(TypeError, match="positions must hold integers, not float64"):
        Rope(8).tables([0.5])
    with pytest.raises(ValueError, match="base must be positive and finite, not 0"):
        Rope(8, base=0)


def test_lengths_that_are_refused() -> None:
    with pytest.raises(ValueError, match="length 5 does not hold position 5"):
        Rope(8).tables([0, 5], length=5)
    with pytest.raises(ValueError, match="length 6 does not hold position 7"):
        Rope(8).tables([[0, 5], [7, 0]], length=[9, 6])
    with pytest.raises(ValueError, match=r"each row of positions \(2, 2\), not of shape \(3,\)"):
        Rope(8).tables([[0, 5], [7, 0]], length=[9, 9, 9])
    with pytest.raises(TypeError, match="length must hold integers, not float64"):
        Rope(8).tables([0, 5], length=9.0)
    with pytest.raises(ValueError, match="length must be 1 or more, not 0"):
        Rope(8).frequencies(0)


@pytest.mark.parametrize("missing", ["hidden_size", "num_attention_heads"])
def test_configurations_without_a_size(missing: str) -> None:
    config = {"hidden_size": 32, "num_attention_heads": 4}
    del config[missing]
    with pytest.raises(ValueError, match=f"neither 'head_dim' nor '{missing}'"):
        Rope.from_config(config)
