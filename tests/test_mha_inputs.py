"""What `MultiHeadAttention` is made of, and what calls take beside x: values, axes, sinks."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import numattn as na
from cases import normal
from numattn import reference
from test_mha import SIZES, assert_close, weights
from tolerance import assert_same_bits

Array = np.ndarray[Any, Any]


def pair(rng: np.random.Generator, size: str, **options: Any) -> tuple[Any, Any]:
    """Return a module, and the reference's."""
    parameters = {**weights(rng, size, True), **options}
    return na.MultiHeadAttention(**parameters), reference.MultiHeadAttention(**parameters)


def inputs(rng: np.random.Generator, size: str) -> tuple[Array, Array, Array]:
    """Return x, a context, and another array like it."""
    width, context_width = SIZES[size][0], SIZES[size][5]
    shape = (2, 11, context_width)
    return normal(rng, (2, 7, width)), normal(rng, shape), normal(rng, shape)


# --- values made of another input than keys -------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_values_from_beside_a_context(isa: str, rng: np.random.Generator, size: str) -> None:
    mha, exact = pair(rng, size)
    x, context, values = inputs(rng, size)
    expected = exact(x, context, values_from=values)
    assert_close(mha(x, context, values_from=values), expected, size)
    assert_close(mha(x[0], context[0], values_from=values[0]), expected[0], size)
    source = mha.project_context(context, values_from=values)
    assert_same_bits(mha(x, source), mha(x, context, values_from=values))
    assert np.linalg.norm(expected - exact(x, context)) > 0.1 * np.linalg.norm(expected)


@pytest.mark.parametrize("size", [name for name in SIZES if name != "other_context"])
def test_values_from_without_a_context(isa: str, rng: np.random.Generator, size: str) -> None:
    mha, exact = pair(rng, size)
    x, values = normal(rng, (2, 7, SIZES[size][0])), normal(rng, (2, 7, SIZES[size][0]))
    options = {"is_causal": True, "return_weights": True}
    y, attended = mha(x, values_from=values, **options)
    assert_close(y, exact(x, values_from=values, is_causal=True), size)
    assert_same_bits(attended, mha(x, **options)[1])  # queries and keys are as they were


@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}, {"precision": "high"}])
@pytest.mark.parametrize("size", SIZES)
def test_parts_of_the_packed_weights_give_the_same_bits(
    isa: str, rng: np.random.Generator, size: str, options: dict[str, Any]
) -> None:
    """One pass over x, a pass for some, or a pass for each."""
    mha, _ = pair(rng, size, **options)
    x, context, _ = inputs(rng, size)
    assert_same_bits(mha(x, context, values_from=context), mha(x, context))
    if size != "other_context":
        assert_same_bits(mha(x, values_from=x), mha(x))
        assert_same_bits(mha(x, x), mha(x))
        assert_same_bits(mha(x, x, values_from=x), mha(x))


def test_values_of_another_width(isa: str, rng: np.random.Generator) -> None:
    parameters = weights(rng, "grouped", True)
    parameters["wv"] = (normal(rng, (32, 20)) / np.sqrt(20)).astype(np.float32)
    mha, exact = na.MultiHeadAttention(**parameters), reference.MultiHeadAttention(**parameters)
    x, values = normal(rng, (2, 7, 64)), normal(rng, (2, 7, 20))
    assert_close(mha(x, values_from=values), exact(x, values_from=values), "grouped")
    assert_close(mha(x, x, values_from=values), exact(x, x, values_from=values), "grouped")
    for call in (lambda: mha(x), lambda: mha(x, x), lambda: mha.project_context(x)):
        with pytest.raises(ValueError, match=r"values_from.*wk and wv.*\(32, 64\).*\(32, 20\)"):
            call()


@pytest.mark.parametrize("q_offset", [0, 3])
def test_rope_turns_queries_and_keys_alone(
    isa: str, rng: np.random.Generator, q_offset: int
) -> None:
    parameters = weights(rng, "grouped", True)
    mha = na.MultiHeadAttention(**parameters, rope=na.position.Rope(16))
    exact = reference.MultiHeadAttention(**parameters, rope=reference.Rope(16))
    x, values = normal(rng, (2, 7, 64)), normal(rng, (2, 7, 64))
    options = {"values_from": values, "q_offset": q_offset}
    assert_close(mha(x, **options), exact(x, **options), "grouped")


@pytest.mark.parametrize("kind", [na.KVCache, na.PagedKVCache])
@pytest.mark.parametrize("rope", [None, na.position.Rope(16)])
def test_values_from_over_a_cache(isa: str, rng: np.random.Generator, rope: Any, kind: Any) -> None:
    mha = na.MultiHeadAttention(**weights(rng, "grouped", True), rope=rope)
    x, values = normal(rng, (2, 9, 64)), normal(rng, (2, 9, 64))
    pages = {"pages": 20} if kind is na.PagedKVCache else {}
    cache, alone = kind(1, 2, 2, 16, **pages), kind(1, 1, 2, 16, **pages)
    steps = [slice(0, 4), slice(4, 5), slice(5, 9)]
    y = np.concatenate(
        [mha(x[:, step], values_from=values[:, step], cache=cache) for step in steps], axis=1
    )
    assert_close(y, mha(x, values_from=values, is_causal=True), "grouped")
    first = [mha(x[0, step], values_from=values[0, step], cache=alone) for step in steps]
    assert_same_bits(np.concatenate(first), y[0])


def test_values_that_do_not_fit_are_refused(rng: np.random.Generator) -> None:
    mha, _ = pair(rng, "plain")
    x, context = normal(rng, (2, 7, 48)), normal(rng, (2, 11, 48))
    cache = na.KVCache(1, 2, 4, 12)
    calls: list[tuple[dict[str, Any], str]] = [
        ({"values_from": context}, r"values_from must have rows \(2, 7\).*not \(2, 11\)"),
        ({"context": context, "values_from": x}, r"\(2, 11\).*not \(2, 7\)"),
        ({"values_from": x[0]}, r"\(2, 7\).*not \(7,\)"),
        ({"values_from": x[..., :47]}, "48 features in its last dimension, not 47"),
        ({"values_from": x[0, 0]}, r"values_from must have shape \(B, S, E\)"),
        ({"context": mha.project_context(context), "values_from": context}, "is projected"),
        ({"cache": cache, "values_from": context}, r"\(2, 7\).*not \(2, 11\)"),
    ]
    for options, named in calls:
        with pytest.raises(ValueError, match=named):
            mha(x, **options)
    with pytest.raises(TypeError, match="float64"):
        mha(x, values_from=x.astype(np.float64))
    assert cache.lengths.tolist() == [0, 0]


# --- the order of the axes, and sinks of the module -----------------------------------------------


def test_positions_before_rows(isa: str, rng: np.random.Generator) -> None:
    parameters = weights(rng, "grouped", True)
    mha, swapped = (
        part.MultiHeadAttention(**parameters, batch_first=False) for part in (na, reference)
    )
    usual = na.MultiHeadAttention(**parameters)
    x, context, values = inputs(rng, "grouped")
    other_x, other_context, other_values = (each.swapaxes(0, 1) for each in (x, context, values))
    y, attended = mha(other_x, other_context, values_from=other_values, return_weights=True)
    expected = usual(x, context, values_from=values, return_weights=True)
    assert_same_bits(y, expected[0].swapaxes(0, 1))
    assert_same_bits(attended, expected[1])  # these have no axis that would be swapped
    assert_close(y, swapped(other_x, other_context, values_from=other_values), "grouped")
    assert_same_bits(
        mha(other_x, mha.project_context(other_context)).swapaxes(0, 1), usual(x, context)
    )
    assert_same_bits(mha(x[0], is_causal=True), usual(x[0], is_causal=True))
    cache, other_cache = na.KVCache(1, 2, 2, 16), na.KVCache(1, 2, 2, 16)
    assert_same_bits(mha(other_x, cache=cache).swapaxes(0, 1), usual(x, cache=other_cache))
    with pytest.raises(ValueError, match=r"x must have shape \(S, B, E\)"):
        mha(x[0, 0])


def test_sinks_of_the_module(isa: str, rng: np.random.Generator) -> None:
    sinks = np.linspace(-1, 2, 8, dtype=np.float32)
    parameters = weights(rng, "grouped", True)
    plain, x = na.MultiHeadAttention(**parameters), normal(rng, (2, 7, 64))
    mha, exact = (part.MultiHeadAttention(**parameters, sinks=sinks) for part in (na, reference))
    expected = plain(x, sinks=sinks, return_weights=True)
    for got, wanted in zip(mha(x, return_weights=True), expected, strict=True):
        assert_same_bits(got, wanted)
    assert_close(mha(x), exact(x), "grouped")
    assert_same_bits(mha(x, sinks=-sinks), plain(x, sinks=-sinks))
    assert_same_bits(
        mha(x, cache=na.KVCache(1, 2, 2, 16)), plain(x, sinks=sinks, cache=na.KVCache(1, 2, 2, 16))
    )
    for wrong in (sinks[:7], np.float32(0), sinks[:, np.newaxis]):
        with pytest.raises(ValueError, match=r"sinks must have shape \(8,\)"):
            na.MultiHeadAttention(**parameters, sinks=wrong)
    with pytest.raises(TypeError, match="sinks has dtype float64"):
        na.MultiHeadAttention(**parameters, sinks=np.zeros(8))


# --- weights --------------------------------------------------------------------------------------


def test_weights_are_those_of_the_construction(isa: str, rng: np.random.Generator) -> None:
    """A loader may read the next layer into the same memory."""
    given = weights(rng, "plain", True)
    expected = na.MultiHeadAttention(**given)
    mha, x = na.MultiHeadAttention(**given), normal(rng, (2, 7, 48))
    y, crossed = expected(x), expected(x, x[:, :3])
    for array in given.values():
        if isinstance(array, np.ndarray):
            array[...] = 7.0
    assert_same_bits(mha(x), y)
    assert_same_bits(mha(x, x[:, :3]), crossed)


@pytest.mark.parametrize("size", ["plain", "other_context"])
def test_given_weights_are_not_kept(rng: np.random.Generator, size: str) -> None:
    given = weights(rng, size, True)
    arrays = [weakref.ref(array) for array in given.values() if isinstance(array, np.ndarray)]
    mha = na.MultiHeadAttention(**given)
    del given
    gc.collect()
    assert len(arrays) == 8 and [array() for array in arrays] == [None] * 8
    assert mha.num_heads == 4


UNFIT = ["int8", "uint8", "bool", "float64", "int32", ">f4"]
NARROW = [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.int4]


@pytest.mark.parametrize("dtype", [*UNFIT, *NARROW], ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("name", ["wq", "wk", "wv", "wo", "bq", "bk", "bv", "bo"])
def test_dtypes_that_cannot_be_packed_are_named_at_once(
    rng: np.random.Generator, name: str, dtype: Any
) -> None:
    given = weights(rng, "plain", True)
    with pytest.raises(TypeError, match=f"{name} has dtype {np.dtype(dtype)}"):
        na.MultiHeadAttention(**{**given, name: given[name].astype(dtype)})


@pytest.mark.parametrize("name", ["wq", "wk", "wv", "wo", "bq", "bk", "bv", "bo"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_dtypes_may_be_mixed(rng: np.random.Generator, dtype: str, name: str) -> None:
    given = weights(rng, "plain", True)
    narrow = given[name].astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    x = normal(rng, (2, 7, 48))
    mha = na.MultiHeadAttention(**{**given, name: narrow})
    assert_same_bits(mha(x), na.MultiHeadAttention(**{**given, name: narrow.astype(np.float32)})(x))


def test_two_narrow_dtypes_side_by_side(rng: np.random.Generator) -> None:
    given, x = weights(rng, "plain", False), normal(rng, (2, 7, 48))
    given |= {"wq": given["wq"].astype(np.float16), "wk": given["wk"].astype(ml_dtypes.bfloat16)}
    wide = {name: given[name].astype(np.float32) for name in ("wq", "wk")}
    assert_same_bits(
        na.MultiHeadAttention(**given)(x), na.MultiHeadAttention(**{**given, **wide})(x)
    )
