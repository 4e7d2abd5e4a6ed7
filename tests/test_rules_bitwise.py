"""Rule 6: the same bits for any thread count, repeat, batch neighbours and memory layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, SCORE_FEATURES, normal, score_feature, unit_inputs
from strides import RELAYOUTS
from tolerance import assert_same_bits

THREADS = (1, 2, 3, 7)
# (heads, (Sq, Sk), (D, Dv)): one block, many blocks, decode by heads and by keys.
SHAPES: dict[str, Any] = {
    "small": ((3, 4, 2), (17, 33), (16, 16)),
    "blocks": ((2, 4, 2), (150, 210), (64, 64)),
    "odd": ((2, 3, 1), (49, 131), (40, 129)),
    "decode": ((3, 8, 2), (1, 700), (64, 64)),
    "decode_long": ((2, 2, 1), (1, 5000), (64, 64)),
    "few_queries": ((2, 8, 8), (4, 1500), (32, 48)),
}


def problem(
    rng: np.random.Generator, name: str, feature: str, dtype: str
) -> tuple[list[Any], dict[str, Any]]:
    heads, lengths, dims = SHAPES[name]
    options = score_feature(feature, rng, (heads[0], heads[1], *lengths))
    return list(unit_inputs(rng, heads, lengths, dims, dtype)), options


def assert_same_result(got: Any, expected: Any, what: str) -> None:
    for x, y in zip(got, expected, strict=True):
        assert_same_bits(x, y, what)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("feature", ["plain", "is_causal", "all"])
@pytest.mark.parametrize("name", SHAPES)
def test_thread_count_and_repeat(
    isa: str, rng: np.random.Generator, name: str, feature: str, dtype: str
) -> None:
    inputs, options = problem(rng, name, feature, dtype)
    expected = na.attention(*inputs, return_lse=True, num_threads=1, **options)
    for num_threads in (*THREADS, None):
        got = na.attention(*inputs, return_lse=True, num_threads=num_threads, **options)
        assert_same_result(got, expected, f"{num_threads} threads")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("feature", ["plain", "all"])
@pytest.mark.parametrize("name", SHAPES)
def test_batch_neighbours(
    isa: str, rng: np.random.Generator, name: str, feature: str, dtype: str
) -> None:
    inputs, options = problem(rng, name, feature, dtype)
    together = na.attention(*inputs, return_lse=True, **options)
    per_entry = ("bias", "mask", "kv_lens")
    for b in range(inputs[0].shape[0]):
        own = {
            name: x[b : b + 1] if name in per_entry and x.shape[0] > 1 else x
            for name, x in options.items()
        }
        alone = na.attention(*(x[b : b + 1] for x in inputs), return_lse=True, **own)
        assert_same_result(alone, [x[b : b + 1] for x in together], f"batch entry {b}")
        repeated = na.attention(
            *(np.repeat(x[b : b + 1], 5, axis=0) for x in inputs),
            return_lse=True,
            **{
                name: np.repeat(x, 5, axis=0) if name in per_entry and x.shape[0] == 1 else x
                for name, x in own.items()
            },
        )
        assert_same_result(
            [x[3:4] for x in repeated], [x[b : b + 1] for x in together], f"entry {b} five times"
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("relayout", RELAYOUTS)
@pytest.mark.parametrize("name", SHAPES)
def test_memory_layout(
    isa: str, rng: np.random.Generator, name: str, relayout: str, dtype: str
) -> None:
    inputs, options = problem(rng, name, "is_causal", dtype)
    expected = na.attention(*inputs, return_lse=True, **options)
    moved = [RELAYOUTS[relayout](x) for x in inputs]
    assert_same_result(na.attention(*moved, return_lse=True, **options), expected, relayout)
    for i in range(3):  # one alone
        mixed = [moved[j] if i == j else inputs[j] for j in range(3)]
        assert_same_result(na.attention(*mixed, return_lse=True, **options), expected, relayout)


@pytest.mark.parametrize("name", SHAPES)
def test_layout_argument(isa: str, rng: np.random.Generator, name: str) -> None:
    inputs, options = problem(rng, name, "all", "float32")
    o, lse = na.attention(*inputs, return_lse=True, **options)
    by_token = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in inputs]
    got = na.attention(*by_token, return_lse=True, layout="bshd", **options)
    assert_same_result(got, (o.swapaxes(1, 2), lse), "bshd")


@pytest.mark.parametrize("relayout", RELAYOUTS)
@pytest.mark.parametrize("feature", ["bias", "mask"])
def test_memory_layout_of_bias_and_mask(
    isa: str, rng: np.random.Generator, feature: str, relayout: str
) -> None:
    inputs, options = problem(rng, "odd", feature, "float32")
    expected = na.attention(*inputs, return_lse=True, **options)
    moved = {feature: RELAYOUTS[relayout](options[feature])}
    assert_same_result(na.attention(*inputs, return_lse=True, **moved), expected, relayout)
    heads, lengths, _ = SHAPES["odd"]
    # Expanded with zero strides, and expanded for good.
    wide = np.broadcast_to(options[feature], (heads[0], heads[1], *lengths))
    for x in (wide, wide.copy()):
        got = na.attention(*inputs, return_lse=True, **{feature: x})
        assert_same_result(got, expected, "expanded")


@pytest.mark.parametrize("feature", SCORE_FEATURES)
def test_weights(isa: str, rng: np.random.Generator, feature: str) -> None:
    inputs, options = problem(rng, "blocks", feature, "float32")
    q, k, _ = inputs
    expected = na.attention_weights(q, k, num_threads=1, **options)
    for num_threads in THREADS:
        assert_same_bits(na.attention_weights(q, k, num_threads=num_threads, **options), expected)
    for name, relayout in RELAYOUTS.items():
        assert_same_bits(na.attention_weights(relayout(q), relayout(k), **options), expected, name)


@pytest.mark.parametrize("rows", [1, 3, 40, 200])
def test_projections(isa: str, rng: np.random.Generator, rows: int) -> None:
    x, weight, bias = normal(rng, (rows, 70)), normal(rng, (90, 70)), normal(rng, (90,))
    linear = na.Linear(weight, bias)
    expected = linear(x, activation="gelu", num_threads=1)
    for num_threads in THREADS:
        assert_same_bits(linear(x, activation="gelu", num_threads=num_threads), expected)
    for name in ("fortran", "reversed_axes", "every_other", "padded_rows", "misaligned"):
        relayout = RELAYOUTS[name]
        assert_same_bits(linear(relayout(x), activation="gelu"), expected, name)
        assert_same_bits(na.Linear(relayout(weight), bias)(x, activation="gelu"), expected, name)


@pytest.mark.parametrize("norm", [na.layer_norm, na.rms_norm])
def test_norms(isa: str, rng: np.random.Generator, norm: Callable[..., Any]) -> None:
    x, weight = normal(rng, (900, 45)), normal(rng, (45,))
    expected = norm(x, weight, num_threads=1)
    for num_threads in THREADS:
        assert_same_bits(norm(x, weight, num_threads=num_threads), expected)
    for name in ("fortran", "reversed_axes", "every_other", "padded_rows", "misaligned"):
        assert_same_bits(norm(RELAYOUTS[name](x), weight), expected, name)
