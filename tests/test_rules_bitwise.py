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
# How many rows stand together: around the heights of every kernel's tiles, blocks and few rows.
ROW_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 31, 33, 47, 48, 49, 64, 65, 129, 300)
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


def of_entry(name: str, x: Any, entry: int, keys: int) -> Any:
    """What of an argument one entry has, alone and over so many keys."""
    if name in ("bias", "mask"):
        return x[entry : entry + 1, ..., :keys]
    return x[entry : entry + 1] if isinstance(x, np.ndarray) else x


@pytest.mark.parametrize("computed", [*DTYPES, "high"])
@pytest.mark.parametrize("feature", ["plain", "all", "large"])
@pytest.mark.parametrize("name", SHAPES)
def test_an_lse_changes_no_bit_of_the_output(
    isa: str, rng: np.random.Generator, name: str, feature: str, computed: str
) -> None:
    """Whatever is summed for it; "large" scores move shifts as keys go by."""
    dtype = "float32" if computed == "high" else computed
    inputs, options = problem(rng, name, "plain" if feature == "large" else feature, dtype)
    if feature == "large":
        options = {"scale": 8.0}
    precision = "high" if computed == "high" else "highest"
    o = na.attention(*inputs, precision=precision, **options)
    beside = na.attention(*inputs, precision=precision, return_lse=True, **options)
    assert_same_bits(o, beside[0], "with and without an lse")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("feature", ["plain", "spans", "dense"])
@pytest.mark.parametrize("queries", [1, 3, 40])
def test_keys_that_do_not_exist(
    isa: str, rng: np.random.Generator, queries: int, feature: str, dtype: str
) -> None:
    """An entry's keys are split as if there were no neighbour of more."""
    lengths = np.array([4000, 0, 5, 1151, 2303, 2304, 3457])
    heads, widths = (len(lengths), 2, 1), (16, 24)
    inputs = list(unit_inputs(rng, heads, (queries, 4000), widths, dtype))
    bias = normal(rng, (7, 1, 1, 4000))
    options: dict[str, Any] = {
        "plain": {},
        "spans": {"is_causal": True, "q_offset": lengths - 1, "window": (2500, None)},
        "dense": {"bias": bias, "mask": bias < 1, "alibi_slopes": normal(rng, (7, 2))},
    }[feature]
    together = na.attention(*inputs, kv_lens=lengths, return_lse=True, num_threads=3, **options)
    for b, length in enumerate(lengths):
        own = {name: of_entry(name, x, b, length) for name, x in options.items()}
        q, k, v = (x[b : b + 1] for x in inputs)
        alone = na.attention(q, k[:, :, :length], v[:, :, :length], return_lse=True, **own)
        assert_same_result([x[b : b + 1] for x in together], alone, f"entry {b}")
    turned = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in inputs]
    o = na.attention(*turned, kv_lens=lengths, layout="bshd", **options)
    assert_same_bits(o.swapaxes(1, 2), together[0], "bshd")


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


# Whether one projection and its peer of other rows share bits is asked at a depth of several
# slices, an odd one, and of features that do not fill their last panel.
@pytest.mark.parametrize("depth", [64, 1203])
@pytest.mark.parametrize("x_dtype", DTYPES)
@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8", "high"])
def test_rows_of_projections_are_as_if_alone(
    isa: str, rng: np.random.Generator, storage: str, x_dtype: str, depth: int
) -> None:
    x = normal(rng, (700, depth)).astype(DTYPES[x_dtype])
    weight, bias = normal(rng, (70, depth)) / np.float32(depth**0.5), normal(rng, (70,))
    precision: Any = "high" if storage == "high" else "highest"
    linear = na.Linear(
        weight, bias, dtype="float32" if storage == "high" else storage, precision=precision
    )
    added = normal(rng, (700, 70)).astype(x.dtype)
    for activation in ("gelu", "silu"):
        together = linear(x, activation=activation, residual=added)
        start = 0
        for count in ROW_COUNTS:
            rows = slice(start % 401, start % 401 + count)  # not always at the start of a tile
            alone = linear(x[rows], activation=activation, residual=added[rows])
            assert_same_bits(alone, together[rows], f"{count} rows of 700")
            start += 37


@pytest.mark.parametrize("x_dtype", DTYPES)
@pytest.mark.parametrize("norm", [na.layer_norm, na.rms_norm])
def test_rows_of_norms_are_as_if_alone(
    isa: str, rng: np.random.Generator, norm: Callable[..., Any], x_dtype: str
) -> None:
    x, weight = normal(rng, (700, 45)).astype(DTYPES[x_dtype]), normal(rng, (45,))
    together = norm(x, weight)
    for start, count in enumerate(ROW_COUNTS):
        rows = slice(37 * start % 401, 37 * start % 401 + count)
        assert_same_bits(norm(x[rows], weight), together[rows], f"{count} rows of 700")
