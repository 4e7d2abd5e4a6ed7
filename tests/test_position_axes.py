"""Rotary positions along several axes, and sinusoidal tables in halves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import normal
from numattn import position, reference
from tolerance import distance
from tolerance import norm as size_of


def test_sections_pick_the_axis_of_each_pair(rng: np.random.Generator) -> None:
    rope = position.Rope(16, base=500.0)
    places = rng.integers(0, 50, (3, 2, 7))
    cos, sin = position.section_tables(rope, places, [2, 3, 3])
    axes = [0, 0, 1, 1, 1, 2, 2, 2]
    angles = np.stack([places[a] * 500.0 ** (-i / 8) for i, a in enumerate(axes)], axis=-1)
    np.testing.assert_array_equal(cos, np.cos(angles).astype(np.float32))
    np.testing.assert_array_equal(sin, np.sin(angles).astype(np.float32))
    text = np.broadcast_to(np.arange(7), (3, 7))
    for made, plain in zip(
        position.section_tables(rope, text, [2, 3, 3]), rope.tables(np.arange(7)), strict=True
    ):
        np.testing.assert_array_equal(made, plain)
    taken = position.section_tables(rope, places, [4, 3, 1], interleaved=True)
    axes = [0, 1, 2, 0, 1, 0, 0, 1]
    angles = np.stack([places[a] * 500.0 ** (-i / 8) for i, a in enumerate(axes)], axis=-1)
    np.testing.assert_array_equal(taken[1], np.sin(angles).astype(np.float32))


def test_axial(rng: np.random.Generator) -> None:
    places = position.grid_positions(3, 5)
    cos, sin = position.axial_tables(position.Rope(8), places)
    angles = np.concatenate([along[:, None] * 1e4 ** (-np.arange(4) / 4) for along in places], 1)
    np.testing.assert_array_equal(cos, np.cos(angles).astype(np.float32))
    np.testing.assert_array_equal(sin, np.sin(angles).astype(np.float32))


def test_scores_depend_on_differences(isa: str, rng: np.random.Generator) -> None:
    """A shift of the image, along either axis, changes no score."""
    x, y = normal(rng, (2, 1, 1, 15, 16))
    scores = []
    for shift in ([0, 0], [7, -3]):
        places = position.grid_positions(3, 5) + np.array(shift)[:, None]
        tables = position.axial_tables(position.Rope(8), places)
        turned = [na.apply_rope(part, *tables)[0, 0] for part in (x, y)]
        scores.append(turned[0] @ turned[1].T)
    assert distance(scores[1], scores[0].astype(np.float64)) <= 2e-6 * size_of(scores[0])


def test_qwen2_vl(isa: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    qwen = pytest.importorskip("transformers.models.qwen2_vl.modeling_qwen2_vl")
    configuration = pytest.importorskip("transformers.models.qwen2_vl.configuration_qwen2_vl")
    sections = [4, 6, 6]
    config = configuration.Qwen2VLTextConfig(
        hidden_size=128, num_attention_heads=4, num_key_value_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections},
    )  # fmt: skip
    embedding = qwen.Qwen2VLRotaryEmbedding(config)
    places = rng.integers(0, 40, (3, 2, 11))
    q, k = normal(rng, (2, 2, 4, 11, 32))
    given = [torch.from_numpy(x) for x in (q, k)]
    expected = qwen.apply_rotary_pos_emb(*given, *embedding(given[0], torch.from_numpy(places)))
    tables = position.section_tables(position.Rope(32), places, sections)
    for x, theirs in zip((q, k), expected, strict=True):
        got = na.apply_rope(x, *tables)
        # Their angles are float32: 2^-24 of up to 40 radians, and of the frequency as much again.
        assert distance(got, theirs.numpy()) <= 4e-6 * size_of(got)


def test_qwen2_vl_vision(isa: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    qwen = pytest.importorskip("transformers.models.qwen2_vl.modeling_qwen2_vl")
    places = position.grid_positions(4, 6)
    q, k = normal(rng, (2, 24, 4, 32))  # tokens, heads, elements
    frequencies = 1.0 / 1e4 ** (torch.arange(0, 16, 2, dtype=torch.float) / 16)
    angles = torch.from_numpy(places.T)[..., None].float() * frequencies
    joined = torch.cat([angles.flatten(1)] * 2, dim=-1)
    given = [torch.from_numpy(x) for x in (q, k)]
    expected = qwen.apply_rotary_pos_emb_vision(*given, joined.cos(), joined.sin())
    tables = position.axial_tables(position.Rope(16), places)
    for x, theirs in zip((q, k), expected, strict=True):
        got = na.apply_rope(x, *tables, layout="bshd")
        assert distance(got, theirs.numpy()) <= 1e-6 * size_of(got)


def test_what_does_not_fit() -> None:
    rope: Any = position.Rope(8)
    with pytest.raises(ValueError, match=r"sections must be 3 numbers that add up to the 4 pairs"):
        position.section_tables(rope, [[0], [0], [0]], [1, 1, 1])
    with pytest.raises(ValueError, match=r"positions must have shape \(axes, ...\), not \(\)"):
        position.axial_tables(rope, 3)
    with pytest.raises(TypeError, match="rope must be a numattn.position.Rope, not int"):
        position.axial_tables(8, [[0]])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="height must be 0 or more, not -1"):
        position.grid_positions(-1, 2)


@pytest.mark.parametrize("width", [1, 2, 7, 16])
def test_sinusoidal_halves(width: int) -> None:
    pairs = position.sinusoidal(9, width)
    halves = position.sinusoidal(9, width, halves=True)
    np.testing.assert_array_equal(halves, np.concatenate((pairs[:, ::2], pairs[:, 1::2]), axis=1))
    exact = reference.sinusoidal(9, width, halves=True)
    np.testing.assert_array_equal(halves, exact.astype(np.float32))


def test_sinusoidal_of_marian() -> None:
    marian = pytest.importorskip("transformers.models.marian.modeling_marian")
    table = marian.MarianSinusoidalPositionalEmbedding(30, 16)
    weight = table.create_weight().numpy()
    np.testing.assert_allclose(position.sinusoidal(30, 16, halves=True), weight, atol=1e-6)
