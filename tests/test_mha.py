"""`MultiHeadAttention` against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import normal
from mha_weights import mha_weights
from numattn import reference
from tolerance import assert_same_bits, assert_weights_close, linear_epsilon

# (E, Hq, Hkv, D, Dv, width of the context)
SIZES: dict[str, tuple[int, int, int, int, int, int]] = {
    "plain": (48, 4, 4, 12, 12, 48),
    "grouped": (64, 8, 2, 16, 16, 64),
    "one_kv_head": (40, 5, 1, 8, 8, 40),
    "other_value_size": (33, 3, 3, 10, 7, 33),
    "other_context": (48, 4, 2, 16, 24, 70),
}


def weights(rng: np.random.Generator, size: str, with_bias: bool) -> dict[str, Any]:
    return mha_weights(rng, SIZES[size], with_bias)


def assert_close(got: Any, expected: Any, size: str) -> None:
    """Check the output: two projections and the attention between them add their errors."""
    width, heads, _, _, value_dim, context_width = SIZES[size]
    bound = linear_epsilon(max(width, context_width)) + 1e-6 + linear_epsilon(heads * value_dim)
    assert got.dtype == np.float32 and got.shape == expected.shape
    error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    assert error <= bound, f"error {error:.3g} exceeds {bound:.3g}"


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("size", [name for name in SIZES if name != "other_context"])
@pytest.mark.parametrize("shape", [(2, 19), (1, 1), (3, 70), (33,)])
def test_self_attention(
    isa: str, rng: np.random.Generator, shape: tuple[int, ...], size: str, with_bias: bool
) -> None:
    parameters = weights(rng, size, with_bias)
    x = normal(rng, (*shape, SIZES[size][0]))
    mha, exact = na.MultiHeadAttention(**parameters), reference.MultiHeadAttention(**parameters)
    assert_close(mha(x), exact(x), size)
    assert_close(mha(x, is_causal=True), exact(x, is_causal=True), size)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("lengths", [(19, 33), (1, 70), (50, 1)])
def test_cross_attention(
    isa: str, rng: np.random.Generator, lengths: tuple[int, int], size: str, with_bias: bool
) -> None:
    parameters = weights(rng, size, with_bias)
    x = normal(rng, (2, lengths[0], SIZES[size][0]))
    context = normal(rng, (2, lengths[1], SIZES[size][5]))
    mha, exact = na.MultiHeadAttention(**parameters), reference.MultiHeadAttention(**parameters)
    assert_close(mha(x, context), exact(x, context), size)
    assert_close(mha(x[0], context[0]), exact(x[0], context[0]), size)


@pytest.mark.parametrize(
    "options",
    [
        {"mask": np.arange(23) % 3 != 1},
        {"bias": np.linspace(-1, 1, 23 * 23, dtype=np.float32).reshape(1, 1, 23, 23)},
        {"is_causal": True, "q_offset": np.array([0, 4])},
        {"window": (3, 2)},
        {"scale": 0.1, "softcap": 2.0},
        {"kv_lens": np.array([5, 23])},
        {"alibi_slopes": np.linspace(0.1, 0.5, 8, dtype=np.float32)},
        {"sinks": np.linspace(-1, 1, 8, dtype=np.float32)},
        {"relative": na.position.shaw(np.linspace(-1, 1, 80, dtype=np.float32).reshape(5, 16))},
    ],
    ids=lambda options: "+".join(options),
)
def test_score_arguments_reach_the_attention(
    isa: str, rng: np.random.Generator, options: dict[str, Any]
) -> None:
    parameters = weights(rng, "grouped", True)
    x = normal(rng, (2, 23, 64))
    mha, exact = na.MultiHeadAttention(**parameters), reference.MultiHeadAttention(**parameters)
    assert_close(mha(x, **options), exact(x, **options), "grouped")
    assert np.linalg.norm(exact(x, **options) - exact(x)) > 0.01  # the option does something


@pytest.mark.parametrize("shape", [(2, 23), (23,)])
def test_weights(isa: str, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    parameters = weights(rng, "grouped", True)
    x = normal(rng, (*shape, 64))
    mha, exact = na.MultiHeadAttention(**parameters), reference.MultiHeadAttention(**parameters)
    y, got = mha(x, is_causal=True, return_weights=True)
    expected_y, expected = exact(x, is_causal=True, return_weights=True)
    assert_close(y, expected_y, "grouped")
    assert_same_bits(y, mha(x, is_causal=True))
    assert got.shape == (*shape[:-1], 8, 23, 23)
    # The scores carry the errors of both projections.
    np.testing.assert_array_equal(got[expected == 0], 0.0)
    np.testing.assert_allclose(got, expected, atol=2e-6, rtol=2e-5)


def test_same_bits_for_any_thread_count(isa: str, rng: np.random.Generator) -> None:
    mha = na.MultiHeadAttention(**weights(rng, "grouped", True))
    x = normal(rng, (3, 70, 64))
    expected = mha(x, num_threads=1)
    for num_threads in (2, 3, None):
        assert_same_bits(mha(x, num_threads=num_threads), expected)


def test_one_head_of_identities_is_attention(isa: str, rng: np.random.Generator) -> None:
    one = np.eye(16, dtype=np.float32)
    x = normal(rng, (2, 30, 16))
    o = na.attention(x[:, np.newaxis], x[:, np.newaxis], x[:, np.newaxis])[:, 0]
    np.testing.assert_allclose(na.MultiHeadAttention(1, one, one, one, one)(x), o, atol=1e-6)


def test_weights_of_wrong_shape_are_named(rng: np.random.Generator) -> None:
    good = weights(rng, "grouped", True)
    wrong: list[tuple[str, tuple[int, ...], str]] = [
        ("wq", (63, 64), "63"),
        ("wk", (33, 64), "33"),
        ("wv", (31, 64), "31"),
        ("wo", (64, 100), "100"),
        ("bq", (127,), "127"),
        ("bo", (63,), "63"),
    ]
    for name, shape, named in wrong:
        with pytest.raises(ValueError, match=named):
            na.MultiHeadAttention(**{**good, name: np.zeros(shape, np.float32)})


def test_heads_that_do_not_divide_are_refused(rng: np.random.Generator) -> None:
    good = weights(rng, "grouped", False)
    with pytest.raises(ValueError, match="(?s)8.*3|3.*8"):
        na.MultiHeadAttention(**{**good, "num_kv_heads": 3})
    for heads in (0, -1):
        with pytest.raises(ValueError, match="num_heads"):
            na.MultiHeadAttention(**{**good, "num_heads": heads})


def test_inputs_that_do_not_fit_are_named(rng: np.random.Generator) -> None:
    mha = na.MultiHeadAttention(**weights(rng, "other_context", False))
    x, context = np.zeros((2, 5, 48), np.float32), np.zeros((2, 6, 70), np.float32)
    calls: list[tuple[Any, Any, str]] = [
        (np.zeros((2, 5, 47), np.float32), context, "47"),
        (x, np.zeros((2, 6, 71), np.float32), "71"),
        (x, context[0], "dimension"),
        (x, np.zeros((3, 6, 70), np.float32), "3"),
        (x, None, "48"),  # self-attention, though keys are made of 70 features
    ]
    for first, second, named in calls:
        with pytest.raises(ValueError) as caught:
            mha(first, second)
        assert named in str(caught.value)
    with pytest.raises(TypeError, match="float64"):
        mha(x.astype(np.float64), context)


def test_weights_close_is_strict_about_zeros() -> None:
    with pytest.raises(AssertionError):
        assert_weights_close(np.full((1, 2), 0.5, np.float32), np.array([[1.0, 0.0]]))
