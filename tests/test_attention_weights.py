"""`attention_weights`: the probabilities themselves, all or of chosen rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, SCORE_FEATURES, score_feature, unit_inputs
from numattn import reference
from tolerance import assert_same_bits, assert_weights_close, expect

FULL = (2, 4, 37, 70)


@pytest.fixture
def inputs(rng: np.random.Generator) -> tuple[Any, Any, Any]:
    return unit_inputs(rng, (2, 4, 2), (37, 70), (24, 20))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("feature", SCORE_FEATURES)
def test_all_rows(isa: str, rng: np.random.Generator, feature: str, dtype: str) -> None:
    q, k, _ = unit_inputs(rng, (2, 4, 2), (37, 70), (24, 20), dtype)
    options = score_feature(feature, rng, FULL)
    got = na.attention_weights(q, k, **options)
    assert got.shape == FULL
    assert_weights_close(got, reference.attention_weights(q, k, **options))


@pytest.mark.parametrize("feature", SCORE_FEATURES)
@pytest.mark.parametrize("rows", [[0], [36], [5, 5, 3], list(range(30, 2, -2)), [-1, 0]])
def test_chosen_rows_are_those_of_the_whole(
    isa: str, rng: np.random.Generator, rows: list[int], feature: str, inputs: tuple[Any, Any, Any]
) -> None:
    q, k, _ = inputs
    options = score_feature(feature, rng, FULL)
    expected = reference.attention_weights(q, k, **options)[:, :, rows]
    assert_weights_close(na.attention_weights(q, k, rows=rows, **options), expected)
    as_array = na.attention_weights(q, k, rows=np.array(rows, np.int32), **options)
    assert_weights_close(as_array, expected)


def test_no_rows(isa: str, inputs: tuple[Any, Any, Any]) -> None:
    q, k, _ = inputs
    assert na.attention_weights(q, k, rows=[]).shape == (2, 4, 0, 70)


def test_both_layouts_return_heads_first(isa: str, inputs: tuple[Any, Any, Any]) -> None:
    q, k, _ = inputs
    expected = na.attention_weights(q, k, is_causal=True)
    by_token = na.attention_weights(
        q.swapaxes(1, 2), k.swapaxes(1, 2), is_causal=True, layout="bshd"
    )
    assert_same_bits(by_token, expected)


def test_three_dimensions_are_one_batch_entry(isa: str, inputs: tuple[Any, Any, Any]) -> None:
    q, k, _ = inputs
    assert_same_bits(na.attention_weights(q[0], k[0]), na.attention_weights(q, k)[0])


@pytest.mark.parametrize("feature", SCORE_FEATURES)
def test_weights_times_values_is_attention(
    isa: str, rng: np.random.Generator, feature: str, inputs: tuple[Any, Any, Any]
) -> None:
    q, k, v = inputs
    options = score_feature(feature, rng, FULL)
    weights = na.attention_weights(q, k, **options).astype(np.float64)
    o = weights @ np.repeat(v, 2, axis=1)
    expect(q, k, v, **options).check(o.astype(np.float32))


def test_rows_sum_to_one_or_to_zero(isa: str, inputs: tuple[Any, Any, Any]) -> None:
    q, k, _ = inputs
    weights = na.attention_weights(q, k, is_causal=True, q_offset=-3)
    assert (weights[:, :, :3] == 0).all()
    np.testing.assert_allclose(weights[:, :, 3:].sum(axis=3), 1.0, rtol=1e-6)


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_thread_count_changes_no_bit(
    isa: str, inputs: tuple[Any, Any, Any], num_threads: int
) -> None:
    q, k, _ = inputs
    assert_same_bits(
        na.attention_weights(q, k, num_threads=num_threads), na.attention_weights(q, k)
    )


@pytest.mark.parametrize("rows", [[37], [-38], [0, 99]])
def test_rows_out_of_range_are_named(inputs: tuple[Any, Any, Any], rows: list[int]) -> None:
    q, k, _ = inputs
    with pytest.raises(ValueError, match=rf"(?s)row.*({rows[-1]}.*37|37.*{rows[-1]})"):
        na.attention_weights(q, k, rows=rows)


def test_rows_that_are_no_integers_are_refused(inputs: tuple[Any, Any, Any]) -> None:
    q, k, _ = inputs
    with pytest.raises(TypeError, match="rows"):
        na.attention_weights(q, k, rows=np.array([0.5]))


def test_integer_keys_are_told_what_helps() -> None:
    """There are no scales here to be advised."""
    q = np.ones((1, 1, 2, 8), np.float32)
    with pytest.raises(TypeError, match=r"k has dtype int8; it must be float32, float16 or bfloat"):
        na.attention_weights(q, q.astype(np.int8))
