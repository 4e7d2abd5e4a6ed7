"""`MultiHeadAttention(rope=…)` against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal
from numattn import reference
from numattn.position import Rope
from test_mha import assert_close, weights
from test_mha_bfloat16 import SIZES as BFLOAT16_SIZES
from test_mha_bfloat16 import naive_mha
from test_mha_bfloat16 import weights as bfloat16_weights
from tolerance import assert_same_bits, distance

TRAINED = 16
# Of heads of 16 elements.
ROPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "interleaved": {"interleaved": True},
    "base": {"base": 500.0},
    "partial": {"scaling": {"partial_rotary_factor": 0.5}},
    "linear": {"scaling": {"rope_type": "linear", "factor": 4.0}},
    "yarn": {
        "scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": TRAINED,
            "attention_factor": 1.2,
        }
    },
    "dynamic": {
        "scaling": {"rope_type": "dynamic", "factor": 4.0, "max_position_embeddings": TRAINED}
    },
    "longrope_partial_interleaved": {
        "interleaved": True,
        "scaling": {
            "rope_type": "longrope",
            "factor": 4.0,
            "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": [1.0, 2.0, 3.0, 4.0],
            "original_max_position_embeddings": TRAINED,
            "partial_rotary_factor": 0.5,
        },
    },
}


def pair(rng: np.random.Generator, rope: str) -> tuple[Any, Any]:
    """Return a module of 8 query heads, 2 key heads of 16 elements, and the reference's."""
    parameters = weights(rng, "grouped", True)
    return (
        na.MultiHeadAttention(**parameters, rope=Rope(16, **ROPES[rope])),
        reference.MultiHeadAttention(**parameters, rope=reference.Rope(16, **ROPES[rope])),
    )


@pytest.mark.parametrize("shape", [(2, 23), (1, 1), (3, 0), (33,)])
@pytest.mark.parametrize("rope", ROPES)
def test_self_attention(
    isa: str, rng: np.random.Generator, rope: str, shape: tuple[int, ...]
) -> None:
    mha, exact = pair(rng, rope)
    x = normal(rng, (*shape, 64))
    y = mha(x, is_causal=True)
    if x.size == 0:
        assert y.shape == x.shape
        return
    assert_close(y, exact(x, is_causal=True), "grouped")
    if shape[-1] > 1:
        plain = reference.MultiHeadAttention(**weights(rng, "grouped", True))
        assert np.linalg.norm(y - plain(x, is_causal=True)) > 0.01 * np.linalg.norm(y)


@pytest.mark.parametrize("q_offset", [0, 5, -3, [0, 0], [0, 9], np.array([4]), np.int64(2)])
@pytest.mark.parametrize("rope", ["plain", "interleaved", "dynamic"])
def test_queries_stand_at_their_offset(
    isa: str, rng: np.random.Generator, rope: str, q_offset: Any
) -> None:
    mha, exact = pair(rng, rope)
    x = normal(rng, (2, 23, 64))
    options = {"q_offset": q_offset, "window": (9, 3)}
    assert_close(mha(x, **options), exact(x, **options), "grouped")


def test_an_offset_of_one_row_without_a_batch(isa: str, rng: np.random.Generator) -> None:
    mha, exact = pair(rng, "plain")
    x = normal(rng, (23, 64))
    assert_close(mha(x, q_offset=[4]), exact(x, q_offset=4), "grouped")


def test_weights_are_those_of_turned_heads(isa: str, rng: np.random.Generator) -> None:
    mha, exact = pair(rng, "plain")
    x = normal(rng, (2, 23, 64))
    y, got = mha(x, is_causal=True, return_weights=True)
    expected = exact(x, is_causal=True, return_weights=True)[1]
    np.testing.assert_allclose(got, expected, atol=3e-6, rtol=3e-5)
    assert_same_bits(y, mha(x, is_causal=True))


def test_only_differences_of_positions_count(isa: str, rng: np.random.Generator) -> None:
    """The same tokens, further on in their sequence, attend to one another in the same way."""
    mha, _ = pair(rng, "plain")
    x = normal(rng, (1, 40, 64))
    here = mha(x[:, :20], window=(6, 0))
    later = mha(x[:, ::-1].copy()[:, ::-1], window=(6, 0))
    moved = mha(np.concatenate([normal(rng, (1, 7, 64)), x[:, :20]], axis=1), window=(6, 0))
    assert_same_bits(later[:, :20], here)
    np.testing.assert_allclose(moved[:, 7 + 6 :], here[:, 6:], atol=2e-5)


def test_same_bits_for_any_thread_count(isa: str, rng: np.random.Generator) -> None:
    mha, _ = pair(rng, "plain")
    x = normal(rng, (3, 70, 64))
    expected = mha(x, num_threads=1)
    for num_threads in (2, 3, None):
        assert_same_bits(mha(x, num_threads=num_threads), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{"is_causal": True}, {"q_offset": [3, 0], "window": (9, 4)}])
def test_weights_in_bfloat16(
    isa: str, rng: np.random.Generator, dtype: str, options: dict[str, Any]
) -> None:
    """Heads are rounded once more, after they are turned: by the naive computation, too."""
    parameters = bfloat16_weights(rng, "grouped")
    x = normal(rng, (2, 70, BFLOAT16_SIZES["grouped"][0]), dtype)
    mha = na.MultiHeadAttention(**parameters, dtype="bfloat16", rope=Rope(32))
    exact = reference.MultiHeadAttention(**parameters, dtype="bfloat16", rope=reference.Rope(32))
    y, expected = mha(x, **options), exact(x, **options)
    assert y.dtype == x.dtype

    def turn(name: str, heads: Any) -> Any:
        first = np.asarray(options.get("q_offset", 0) if name == "q" else 0)
        positions = first[..., np.newaxis] + np.arange(70)
        return reference.apply_rope(heads, *reference.Rope(32).tables(positions))

    naive = naive_mha(parameters, x, x, turn, **options)
    assert distance(y, expected) <= 1.15 * distance(naive.astype(y.dtype), expected)


def test_what_is_refused(rng: np.random.Generator) -> None:
    parameters = weights(rng, "grouped", False)
    with pytest.raises(ValueError, match="rope turns 18 elements, but heads have 16"):
        na.MultiHeadAttention(**parameters, rope=Rope(18))
    with pytest.raises(TypeError, match="rope must be a numattn.position.Rope, not float"):
        na.MultiHeadAttention(**parameters, rope=10000.0)
    mha, exact = pair(rng, "plain")
    x = normal(rng, (2, 5, 64))
    for module in (mha, exact):
        with pytest.raises(ValueError, match="rope turns by positions in one sequence"):
            module(x, x)
    with pytest.raises(ValueError, match=r"q_offset .*one for each row, not of shape \(3,\)"):
        mha(x, q_offset=[1, 2, 3])
    with pytest.raises(TypeError, match="q_offset must hold integers"):
        mha(x, q_offset=0.5)
