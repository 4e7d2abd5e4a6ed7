"""Layers and caches through pickle and copy: the same bits on the other side."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import numattn as na
from caches import HEADS, VALUE_WIDTH, WIDTH, assert_holds, both, contents, tokens
from cases import normal
from test_mha import SIZES, weights
from tolerance import assert_same_bits

WAYS = ["in band", "out of band", "read-only buffers", "copy", "deepcopy"]
PACKING = [{}, {"dtype": "bfloat16"}, {"precision": "high"}]


def through(thing: Any, way: str) -> Any:
    """Return what comes out on the other side."""
    if way in ("copy", "deepcopy"):
        return getattr(copy, way)(thing)
    if way == "in band":
        return pickle.loads(pickle.dumps(thing))
    data, buffers = out_of_band(thing)
    if way == "read-only buffers":
        buffers = [bytes(buffer) for buffer in buffers]
    return pickle.loads(data, buffers=buffers)


def out_of_band(thing: Any) -> tuple[bytes, list[Any]]:
    buffers: list[Any] = []
    data = pickle.dumps(thing, protocol=5, buffer_callback=buffers.append)
    return data, buffers


def addresses(buffers: list[Any]) -> list[int]:
    return [np.frombuffer(buffer, np.uint8).ctypes.data for buffer in buffers]


# --- projections ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("options", PACKING)
@pytest.mark.parametrize("shape", [(1, 1), (48, 32), (131, 129)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_linear(
    isa: str,
    rng: np.random.Generator,
    with_bias: bool,
    shape: tuple[int, int],
    options: dict[str, Any],
    way: str,
) -> None:
    weight, bias = normal(rng, shape), normal(rng, shape[:1]) if with_bias else None
    linear, x = na.Linear(weight, bias, **options), normal(rng, (5, shape[1]))
    other = through(linear, way)
    assert other is not linear and repr(other) == repr(linear)
    for name in na.isa.available():
        with na.isa.use(name):
            assert_same_bits(other(x), linear(x))
            assert_same_bits(other(x[0], activation="gelu"), linear(x[0], activation="gelu"))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol(rng: np.random.Generator, protocol: int) -> None:
    linear, x = na.Linear(normal(rng, (70, 33))), normal(rng, (5, 33))
    assert_same_bits(pickle.loads(pickle.dumps(linear, protocol))(x), linear(x))


@pytest.mark.parametrize("options", PACKING)
def test_weights_go_out_of_band_without_a_copy(
    isa: str, rng: np.random.Generator, options: dict[str, Any]
) -> None:
    linear = na.Linear(normal(rng, (96, 64)), normal(rng, (96,)), **options)
    data, buffers = out_of_band(linear)
    assert len(data) < 1000
    assert buffers[0].raw().nbytes >= 96 * 64 * (2 if "dtype" in options else 4)
    assert addresses(buffers) == addresses(out_of_band(linear)[1])  # the layer's own memory
    with pytest.raises(ValueError, match="read-only"):
        np.frombuffer(buffers[0], np.uint8)[0] = 1


def test_buffers_keep_the_memory(rng: np.random.Generator) -> None:
    linear, x = na.Linear(normal(rng, (480, 480))), normal(rng, (2, 480))
    expected = linear(x)
    data, buffers = out_of_band(linear)
    del linear
    na.Linear(normal(rng, (480, 480)))  # where memory that was given back would go
    assert_same_bits(pickle.loads(data, buffers=buffers)(x), expected)


def test_copies_share_the_weights_that_never_change(rng: np.random.Generator) -> None:
    linear = na.Linear(normal(rng, (96, 64)))
    for other in (copy.copy(linear), copy.deepcopy(linear)):
        assert addresses(out_of_band(other)[1]) == addresses(out_of_band(linear)[1])


def state_of(linear: na.Linear) -> dict[str, Any]:
    names = ("version", "format", "out_features", "in_features", "panels", "bias")
    return dict(zip(names, linear._packed.__reduce__()[1], strict=True))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"version": 2}, "version 2"),
        ({"version": 0}, "version 0"),
        ({"format": "float8"}, "'float8'"),
        ({"format": "bfloat16"}, "bfloat16, not float32"),
        ({"format": "split"}, "bfloat16, not float32"),
        ({"out_features": 0}, r"\(0, 33\)"),
        ({"in_features": -1}, r"\(70, -1\)"),
        ({"out_features": 97}, r"\(2, 1584\) do not hold a weight of shape \(97, 33\)"),
        ({"out_features": 2**63 - 1}, "9223372036854775807"),
        ({"in_features": 34}, r"\(70, 34\)"),
        ({"in_features": 2**63 - 1}, "9223372036854775807"),
        ({"panels": np.zeros((2, 1583), np.float32)}, r"\(2, 1583\)"),
        ({"panels": np.zeros((1, 1584), np.float32)}, r"\(1, 1584\)"),
        ({"panels": np.zeros(3168, np.float32)}, "dimension"),
        ({"panels": np.zeros((1584, 2), np.float32).T}, "do not hold"),
        ({"bias": np.zeros(69, np.float32)}, r"bias must have shape \(70"),
        ({"bias": np.zeros(140, np.float32)[::2]}, "bias must be contiguous"),
        ({"bias": np.zeros(70, np.float16)}, "float32, not float16"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    rng: np.random.Generator, changes: dict[str, Any], named: str
) -> None:
    linear = na.Linear(normal(rng, (70, 33)), normal(rng, (70,)))
    kind, state = type(linear._packed), state_of(linear)
    kind(*state.values())
    with pytest.raises(ValueError, match=named):
        kind(*(state | changes).values())


def test_float32_as_two_parts_is_read_everywhere(isa: str, rng: np.random.Generator) -> None:
    """What "high" stores where a unit multiplies bfloat16: panel[part][k / 2][column][k % 2]."""
    weight, x = normal(rng, (48, 64)), normal(rng, (3, 64))
    kind, state = type(na.Linear(weight)._packed), state_of(na.Linear(weight))
    high = weight.astype(ml_dtypes.bfloat16)
    low = (weight - high.astype(np.float32)).astype(ml_dtypes.bfloat16)
    parts = [part.reshape(48, 32, 2).transpose(1, 0, 2) for part in (high, low)]
    panels = np.stack(parts).reshape(1, -1).view(np.uint16)
    split = kind(*(state | {"format": "split", "panels": panels}).values())
    got = split.run(x, "", None, None, None, 0)
    exact = x.astype(np.float64) @ weight.astype(np.float64).T
    assert np.linalg.norm(got - exact) <= 2e-5 * np.linalg.norm(exact)
    assert np.linalg.norm(got - x @ high.astype(np.float32).T) > 1e-4 * np.linalg.norm(exact)
    with pytest.raises(ValueError, match="in split"):
        kind(*(state | {"format": "split", "panels": panels[:, : panels.size // 2]}).values())


# --- multi-head attention -------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("options", PACKING)
@pytest.mark.parametrize("size", SIZES)
def test_multi_head_attention(
    isa: str, rng: np.random.Generator, size: str, options: dict[str, Any], way: str
) -> None:
    mha = na.MultiHeadAttention(**weights(rng, size, True), **options)
    other = through(mha, way)
    x, context = normal(rng, (2, 7, SIZES[size][0])), normal(rng, (2, 5, SIZES[size][5]))
    assert_same_bits(other(x, context), mha(x, context))
    source = mha.project_context(context)
    assert_same_bits(other(x, through(source, way)), mha(x, context))
    if size != "other_context":
        assert_same_bits(other(x, is_causal=True), mha(x, is_causal=True))


def test_weights_of_all_projections_go_out_of_band_once(rng: np.random.Generator) -> None:
    mha, x = na.MultiHeadAttention(**weights(rng, "plain", False)), normal(rng, (2, 7, 48))
    mha(x), mha(x, x)
    data, buffers = out_of_band(mha)
    assert len(data) < 2000
    assert sum(buffer.raw().nbytes for buffer in buffers) == 4 * 48 * 48 * 4


@pytest.mark.parametrize("way", WAYS)
def test_rope_goes_along(rng: np.random.Generator, way: str) -> None:
    scaling = {"rope_type": "dynamic", "factor": 2.0, "max_position_embeddings": 8}
    rope = na.position.Rope(16, scaling=scaling)
    mha, x = (
        na.MultiHeadAttention(**weights(rng, "grouped", False), rope=rope),
        normal(rng, (9, 64)),
    )
    assert_same_bits(through(mha, way)(x), mha(x))


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_pool_map(rng: np.random.Generator, method: str) -> None:
    linear = na.Linear(normal(rng, (70, 33)))
    mha = na.MultiHeadAttention(**weights(rng, "grouped", True))
    rows, x = list(normal(rng, (3, 2, 33))), list(normal(rng, (3, 5, 64)))
    with multiprocessing.get_context(method).Pool(1) as pool:
        for layer, inputs in ((linear, rows), (mha, x)):
            for got, each in zip(pool.map(layer, inputs), inputs, strict=True):
                assert_same_bits(got, layer(each))


# --- caches ---------------------------------------------------------------------------------------


def filled(cache: na.cache.Cache, rng: np.random.Generator) -> na.cache.Cache:
    """Return the cache with rows of 5, 3 and 0 tokens; some are shared in pages."""
    for layer in range(cache.layers):
        cache.append(layer, *tokens(rng, 3, 5), counts=[5, 3, 0])
    cache.fork([0, 1, 2, 0])
    return cache


@both
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "options", [{}, {"storage": "int8"}, {"storage": "int8", "wide_keys": np.eye(HEADS, WIDTH) > 0}]
)
def test_a_cache_goes_on_as_before(
    rng: np.random.Generator, options: dict[str, Any], way: str, make: Any
) -> None:
    cache = filled(make(3, **options), rng)
    free = getattr(cache, "free_pages", None)
    other = through(cache, way)
    if isinstance(cache, na.KVCache):
        assert repr(other) == repr(cache)
    q, (k, v) = normal(rng, (4, 2 * HEADS, 2, WIDTH)), tokens(rng, 4, 2)
    expected = through(cache, "in band").attend(0, q, k, v)
    assert_same_bits(other.attend(0, q, k, v), expected)
    assert cache.layer_lengths(0).tolist() == [5, 3, 0, 5]  # each has memory of its own
    assert getattr(cache, "free_pages", None) == free
    assert_same_bits(cache.attend(0, q, k, v), expected)
    if not options:
        assert_holds(other, [contents(cache, layer) for layer in range(cache.layers)])


@both
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_tokens_of_two_bytes(rng: np.random.Generator, dtype: str, make: Any) -> None:
    cache = make(3, dtype=dtype)
    k, v = (array.astype(cache.dtype) for array in tokens(rng, 3, 4))
    cache.append(0, k, v)
    for way in WAYS:
        other = through(cache, way)
        assert other.dtype == cache.dtype
        assert_holds(other, [contents(cache, 0)])


@both
def test_free_memory_stays_behind(rng: np.random.Generator, make: Any) -> None:
    large = {"pages": 4000} if make.__name__ == "paged" else {"capacity": 4000}
    cache = filled(make(3, **large), rng)
    assert sum(buffer.raw().nbytes for buffer in out_of_band(cache)[1]) < cache.nbytes / 50
    assert len(pickle.dumps(cache)) < cache.nbytes / 50


def test_a_full_cache_goes_out_of_band_without_a_copy(rng: np.random.Generator) -> None:
    cache = na.KVCache(1, 2, HEADS, WIDTH, value_dim=VALUE_WIDTH, capacity=6)
    cache.append(0, *tokens(rng, 2, 6))
    data, buffers = out_of_band(cache)
    mine = addresses(out_of_band(cache)[1])
    assert addresses(buffers) == mine and sum(b.raw().nbytes for b in buffers) >= cache.nbytes
    other = pickle.loads(data, buffers=buffers)
    assert not set(addresses(out_of_band(other)[1])) & set(mine)


def test_a_window_that_has_dropped_keys(rng: np.random.Generator) -> None:
    cache = na.KVCache(1, 2, HEADS, WIDTH, value_dim=VALUE_WIDTH, window=3)
    for _ in range(20):
        cache.append(0, *tokens(rng, 2, 1))
    other, (k, v) = through(cache, "in band"), tokens(rng, 2, 1)
    q = normal(rng, (2, HEADS, 1, WIDTH))
    assert other.windows == (3,) and other.lengths.tolist() == [20, 20]
    assert_same_bits(other.attend(0, q, k, v), cache.attend(0, q, k, v))
    with pytest.raises(ValueError, match="window of 3 has dropped"):
        other.truncate(5)


@both
def test_a_layer_of_a_cache_stays_with_its_cache(rng: np.random.Generator, make: Any) -> None:
    cache = filled(make(3), rng)
    for way in ("in band", "out of band", "deepcopy"):
        other, layer = through([cache, cache.layer(1)], way)
        assert layer.cache is other and layer.index == 1
        assert layer.lengths.tolist() == cache.layer_lengths(1).tolist()
