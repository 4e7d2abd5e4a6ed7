"""`precision="high"`: float32 within 2e-5, in every rule as exact as "highest", never unasked."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal, score_feature, unit_inputs
from numattn import reference
from tolerance import HIGH, assert_same_bits, distance, expect, float32_epsilon, norm


def splits() -> bool:
    """Return whether float32 products are computed from bfloat16 parts at this instruction set."""
    shape = (1, 1, 64, 64)
    return na.plan(shape, shape, precision="high").kernel == "attend_high"


# (heads, (Sq, Sk), (D, Dv), what the scores meet): prefill with and without structure, odd sizes
# and decode.
CALLS: dict[str, Any] = {
    "plain": ((2, 3, 3), (300, 300), (64, 64), "plain"),
    "causal": ((1, 4, 4), (400, 400), (64, 64), "is_causal"),
    "grouped": ((1, 8, 2), (150, 333), (128, 128), "is_causal"),
    "mask": ((2, 4, 4), (130, 257), (64, 64), "mask"),
    "bias": ((1, 2, 2), (200, 300), (32, 64), "bias"),
    "odd": ((1, 3, 1), (77, 131), (40, 129), "all"),
    "narrow": ((1, 2, 2), (50, 70), (3, 5), "plain"),
    "decode": ((2, 8, 2), (1, 1500), (64, 64), "kv_lens"),
    "few_queries": ((1, 8, 8), (4, 700), (128, 128), "is_causal"),
}


def call(rng: np.random.Generator, name: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    heads, lengths, dims, feature = CALLS[name]
    options = score_feature(feature, rng, (heads[0], heads[1], *lengths))
    return unit_inputs(rng, heads, lengths, dims), options


@pytest.mark.parametrize("name", CALLS)
def test_attention(isa: str, rng: np.random.Generator, name: str) -> None:
    inputs, options = call(rng, name)
    o, lse = na.attention(*inputs, precision="high", return_lse=True, **options)
    expected = expect(*inputs, **options)
    if not splits():
        expected.check(o, lse)
    # The bounds of "highest" are ε of some size; these are 2e-5 of the same sizes.
    factor = HIGH / float32_epsilon(inputs[1].shape[2])
    assert o.dtype == lse.dtype == np.float32
    assert distance(o, expected.o) <= factor * expected.o_bound
    assert distance(lse, expected.lse) <= factor * expected.lse_bound


@pytest.mark.parametrize("name", CALLS)
def test_attention_is_bitwise_the_same_for_threads_and_neighbours(
    isa: str, rng: np.random.Generator, name: str
) -> None:
    inputs, options = call(rng, name)
    expected = na.attention(*inputs, precision="high", num_threads=1, **options)
    for num_threads in (2, 3, None):
        got = na.attention(*inputs, precision="high", num_threads=num_threads, **options)
        assert_same_bits(got, expected, f"{num_threads} threads")
    if inputs[0].shape[0] > 1:
        own = {
            name: x[1:] if isinstance(x, np.ndarray) and len(x) == len(inputs[0]) else x
            for name, x in options.items()
        }
        alone = na.attention(*(x[1:] for x in inputs), precision="high", **own)
        assert_same_bits(alone, expected[1:], "a batch entry alone")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["causal", "odd", "decode"])
def test_attention_is_unchanged_where_nothing_is_split(
    isa: str, rng: np.random.Generator, name: str, dtype: str
) -> None:
    inputs, options = call(rng, name)
    if dtype == "float32" and splits():
        return
    inputs = tuple(x.astype(DTYPES[dtype]) for x in inputs)
    high = na.attention(*inputs, precision="high", **options)
    assert_same_bits(high, na.attention(*inputs, **options))


def test_nan_reaches_exactly_the_rows_that_attend_it(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 2), (90, 90), (64, 64))
    before = na.attention(q, k, v, is_causal=True, precision="high")
    v[0, 0, 50, 7] = np.nan
    k[0, 1, 60] = np.nan
    got = na.attention(q, k, v, is_causal=True, precision="high")
    touched = np.zeros(got.shape, bool)
    touched[0, 0, 50:, 7] = True
    touched[0, 1, 60:] = True
    assert np.isnan(got[touched]).all()
    assert_same_bits(got[~touched], before[~touched])


@pytest.mark.parametrize("computed", ["float32", "bfloat16", "high"])
@pytest.mark.parametrize("queries", [1, 40, 200])
@pytest.mark.parametrize("power", [-80, -89, -95, -110, -120])
def test_values_of_any_size(
    isa: str, rng: np.random.Generator, power: int, queries: int, computed: str
) -> None:
    """Small ones, whose products with weights are subnormal, alone and beside others."""
    dtype = "float32" if computed == "high" else computed
    q, k, v = unit_inputs(rng, (1, 2, 2), (queries, 300), (64, 64), dtype)
    ends = np.where(np.arange(queries) % 3 == 0, 100, 300)

    def attend(values: Any) -> Any:
        precision = "high" if computed == "high" else "highest"
        return na.attention(q, k, values, precision=precision, key_spans=(0, ends))

    size = np.float32(2.0**power).astype(v.dtype)
    small = v * size
    alone = attend(small)
    expected = expect(q, k, v, key_spans=(0, ends))
    factor = HIGH / float32_epsilon(300) if computed == "high" else 1.0
    # Sums of subnormals round at every step by half of the smallest, a result once.
    smallest = 2.0**-134 if computed == "bfloat16" else 300 * 2.0**-150
    bound = factor * expected.o_bound + smallest / 2.0**power * np.sqrt(alone.size)
    assert distance(alone.astype(np.float64) / 2.0**power, expected.o) <= bound

    columns = v.copy()
    columns[..., ::2] = small[..., ::2]
    among = attend(columns)
    assert_same_bits(among[..., ::2], alone[..., ::2])
    assert_same_bits(among[..., 1::2], attend(v)[..., 1::2])
    keys = v.copy()
    keys[:, :, :100] = small[:, :, :100]
    assert_same_bits(attend(keys)[:, :, ends == 100], alone[:, :, ends == 100])


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 17, 64, 65, 200])
@pytest.mark.parametrize("depth", [1, 3, 31, 384, 513])
def test_linear(isa: str, rng: np.random.Generator, rows: int, depth: int) -> None:
    for out_features in (1, 17, 48, 131):
        x, weight = normal(rng, (rows, depth)), normal(rng, (out_features, depth))
        bias, residual = normal(rng, (out_features,)), normal(rng, (rows, out_features))
        linear = na.Linear(weight, bias, precision="high")
        for options in ({}, {"activation": "silu", "residual": residual}):
            y = linear(x, **options)
            exact = reference.Linear(weight, bias)(x, **options)
            size = max(norm(exact), np.sqrt(depth * exact.size))
            assert y.dtype == np.float32
            assert distance(y, exact) <= HIGH * size
            if not splits():
                assert_same_bits(y, na.Linear(weight, bias)(x, **options))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_linear_of_other_dtypes(isa: str, rng: np.random.Generator, dtype: str) -> None:
    x, weight = normal(rng, (65, 70), dtype), normal(rng, (33, 70))
    y = na.Linear(weight, precision="high")(x)
    exact = reference.Linear(weight)(x)
    # One rounding to the dtype of a result within HIGH, as for 16 bits in tolerance.py.
    rounding = norm(exact.astype(DTYPES[dtype]).astype(np.float64) - exact)
    assert y.dtype == DTYPES[dtype]
    assert distance(y, exact) <= rounding + 2 * HIGH * norm(exact)


def test_linear_with_bfloat16_storage_is_unchanged(isa: str, rng: np.random.Generator) -> None:
    x, weight = normal(rng, (65, 70)), normal(rng, (33, 70))
    high = na.Linear(weight, dtype="bfloat16", precision="high")
    assert_same_bits(high(x), na.Linear(weight, dtype="bfloat16")(x))


def test_linear_leaves_no_trace_of_threads_and_neighbours(
    isa: str, rng: np.random.Generator
) -> None:
    x, weight = normal(rng, (200, 513)), normal(rng, (700, 513))
    linear = na.Linear(weight, precision="high")
    expected = linear(x, num_threads=1)
    for num_threads in (2, 3, None):
        assert_same_bits(linear(x, num_threads=num_threads), expected)
    for rows in (1, 2, 5, 8, 9, 17, 64, 65):
        assert_same_bits(linear(x[77 : 77 + rows]), expected[77 : 77 + rows], f"{rows} rows")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_linear_keeps_what_is_not_finite_in_its_row(
    isa: str, rng: np.random.Generator, value: float
) -> None:
    x, linear = normal(rng, (65, 33)), na.Linear(normal(rng, (50, 33)), precision="high")
    before = linear(x)
    x[40, 31] = value
    got = linear(x)
    others = np.arange(65) != 40
    assert_same_bits(got[others], before[others])
    assert not np.isfinite(got[40]).any()


def test_a_layer_packed_at_one_instruction_set_runs_at_every_other(
    isa: str, rng: np.random.Generator
) -> None:
    x, weight = normal(rng, (65, 129)), normal(rng, (131, 129))
    packed, exact = na.Linear(weight, precision="high"), reference.Linear(weight)(x)
    for other in na.isa.available():
        with na.isa.use(other):
            for rows in (1, 5, 65):
                y = packed(x[:rows])
                assert distance(y, exact[:rows]) <= HIGH * norm(exact[:rows]), f"{other}, {rows}"


@pytest.mark.parametrize("options", [{}, {"is_causal": True}])
def test_multi_head_attention(isa: str, rng: np.random.Generator, options: dict[str, Any]) -> None:
    parameters: dict[str, Any] = {
        name: (normal(rng, shape) / np.sqrt(shape[1])).astype(np.float32)
        for name, shape in {"wq": (96, 70), "wk": (48, 70), "wv": (48, 70), "wo": (50, 96)}.items()
    }
    parameters |= {"num_heads": 6, "num_kv_heads": 3, "bq": normal(rng, (96,))}
    x, context = normal(rng, (2, 60, 70)), normal(rng, (2, 33, 70))
    mha = na.MultiHeadAttention(**parameters, precision="high")
    highest, exact = na.MultiHeadAttention(**parameters), reference.MultiHeadAttention(**parameters)
    for arguments in ((x,), (x, context)):
        y, expected = mha(*arguments, **options), exact(*arguments, **options)
        assert distance(y, expected) <= HIGH * norm(expected)
        if not splits():
            assert_same_bits(y, highest(*arguments, **options))


def test_multi_head_attention_passes_its_precision_on(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from numattn.mha import heads, layer

    given: list[str] = []

    def noting(original: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            given.append(options["precision"])
            return original(*arguments, **options)

        return call

    monkeypatch.setattr(layer, "Linear", noting(na.Linear))
    monkeypatch.setattr(heads, "Linear", noting(na.Linear))
    monkeypatch.setattr(layer, "attention", noting(layer.attention))
    one = np.eye(16, dtype=np.float32)
    x = normal(rng, (3, 16))
    for precision in ("highest", "high"):
        given.clear()
        mha = na.MultiHeadAttention(2, one, one, one, one, precision=precision)
        mha(x), mha(x, x)
        # The projections into heads are one, and that of the result another; and two attentions.
        assert given == [precision] * 4


@pytest.mark.parametrize("precision", ["low", "HIGH", "", None, 1])
def test_other_precisions_are_refused(precision: Any) -> None:
    one, x = np.eye(4, dtype=np.float32), np.zeros((1, 1, 4, 4), np.float32)
    out = np.full_like(x, 7)
    for library in (na, reference):
        for refused in (
            lambda library=library: library.attention(x, x, x, precision=precision, out=out),
            lambda library=library: library.Linear(one, precision=precision),
            lambda library=library: library.MultiHeadAttention(
                2, one, one, one, one, precision=precision
            ),
        ):
            with pytest.raises(ValueError) as caught:
                refused()
            assert str(caught.value) == (
                f"precision must be 'highest' or 'high', not {precision!r}"
            )
    with pytest.raises(ValueError, match="precision must be 'highest' or 'high'"):
        na.plan(x.shape, x.shape, precision=precision)
    assert (out == 7).all()


@pytest.mark.parametrize("function", [na.attention, na.plan, na.Linear, na.MultiHeadAttention])
def test_it_must_be_asked_for(function: Any) -> None:
    assert inspect.signature(function).parameters["precision"].default == "highest"
