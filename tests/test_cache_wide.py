"""Caches of integers that give some channels of keys 16 bits."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numattn as na
from caches import HEADS, LAYERS, VALUE_WIDTH, WIDTH, both, contiguous, tokens
from cases import STORAGES
from numattn import reference
from numattn.cache import Cache
from tolerance import assert_same_bits

# Of the second layer alone: two channels of one head, one of the other.
WIDE = np.zeros((LAYERS, HEADS, WIDTH), dtype=bool)
WIDE[1, 0, [2, 7]] = WIDE[1, 1, 0] = True
TABLE = np.array([[2, 7, *[-1] * 6], [0, *[-1] * 7]])


@pytest.fixture(params=STORAGES)
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"storage": request.param, "wide_keys": WIDE}


def large_tokens(rng: np.random.Generator, batch: int, count: int, size: float = 50) -> Any:
    k, v = tokens(rng, batch, count)
    return k + np.where(WIDE[1], size, 0).astype(np.float32)[:, np.newaxis], v


def held(cache: Cache, layer: int) -> list[dict[str, Any]]:
    """Return what each row holds, k (H, n, D + E) and so on, by an append of nothing."""
    k = np.empty((cache.batch, HEADS, 0, WIDTH), cache.dtype)
    got = cache.append(layer, k, k[..., :VALUE_WIDTH])._asdict()
    names = ("k", "v", "k_scale", "v_scale")
    if isinstance(cache, na.KVCache):
        rows = [{name: got[name][b] for name in names} for b in range(len(k))]
    else:
        pools = [got["k_pages"], got["v_pages"], got["k_scale"], got["v_scale"]]
        rows = [
            {
                name: pool[table].reshape(-1, *pool.shape[2:]).swapaxes(0, 1)
                for name, pool in zip(names, pools, strict=True)
            }
            for table in got["block_table"]
        ]
    return [
        {name: array[:, :length].copy() for name, array in row.items()}
        for row, length in zip(rows, got["kv_lens"], strict=True)
    ]


@both
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rows_hold_the_numbers_of_their_tokens(
    make: Callable[..., Cache], options: dict[str, Any], dtype: str, rng: np.random.Generator
) -> None:
    cache = make(2, dtype=dtype, **options)
    k, v = (x.astype(cache.dtype) for x in large_tokens(rng, 2, 9))
    for layer in range(LAYERS):
        cache.append(layer, k[:, :, :4], v[:, :, :4], counts=[4, 2])
        cache.append(layer, k[:, :, 4:], v[:, :, 4:])
    cache.fork([1, 0, 1])
    cache.truncate([7, 8, 3])
    order = [[0, 1, 4, 5, 6, 7, 8], [0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 4]]
    wide: dict[int, Any] = {0: None, 1: TABLE[:, np.newaxis]}
    for layer in range(LAYERS):
        for row, (source, kept) in enumerate(zip([1, 0, 1], order, strict=True)):
            got = held(cache, layer)[row]
            for name, x, table in (("k", k, wide[layer]), ("v", v, None)):
                numbers, scale = na.quantize(x[source][:, kept], wide=table)
                assert_same_bits(got[name], numbers)
                assert_same_bits(got[f"{name}_scale"], scale)


@both
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_steps_attend_to_the_numbers(
    isa: str,
    make: Callable[..., Cache],
    options: dict[str, Any],
    layout: Any,
    rng: np.random.Generator,
) -> None:
    """By `attend`, and by attention of what `append` returns."""
    cache, other = make(2, **options), make(2, **options)
    k, v = large_tokens(rng, 2, 6)
    q = rng.standard_normal((2, 2 * HEADS, 6, WIDTH), np.float32)
    (k8, k_scale), (v8, v_scale) = na.quantize(k, wide=TABLE[:, np.newaxis]), na.quantize(v)
    for first, last in ((0, 4), (4, 5), (5, 6)):
        part = [x[:, :, first:last] for x in (q, k, v)]
        if layout == "bshd":
            part = [x.swapaxes(1, 2) for x in part]
        o = cache.attend(1, *part, layout=layout)
        expected = na.attention(
            q[:, :, first:last], k8[:, :, :last], v8[:, :, :last], is_causal=True, q_offset=first,
            k_scale=k_scale[:, :, :last], v_scale=v_scale[:, :, :last], k_wide=TABLE,
        )  # fmt: skip
        assert_same_bits(o if layout == "bhsd" else o.swapaxes(1, 2), expected)
        stored = other.append(1, *part[1:], layout=layout)._asdict()
        attention = na.attention if isinstance(other, na.KVCache) else na.attention_paged
        assert_same_bits(attention(part[0], is_causal=True, layout=layout, **stored), o)


@both
@pytest.mark.parametrize("chunk", [1, 7, 40])
def test_chunks_and_neighbours_change_no_number(
    make: Callable[..., Cache], options: dict[str, Any], chunk: int, rng: np.random.Generator
) -> None:
    k, v = large_tokens(rng, 3, 40)
    whole, parts, alone = make(3, **options), make(3, **options), make(1, **options)
    whole.append(1, k, v)
    alone.append(1, k[1:2], v[1:2])
    for start in range(0, 40, chunk):
        parts.append(1, k[:, :, start : start + chunk], v[:, :, start : start + chunk])
    expected = held(whole, 1)
    for row, got in enumerate(held(parts, 1)):
        for name, array in expected[row].items():
            assert_same_bits(got[name], array)
    for name, array in held(alone, 1)[0].items():
        assert_same_bits(expected[1][name], array)


@both
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_rows_with_other_numbers_of_tokens_are_as_alone(
    isa: str,
    make: Callable[..., Cache],
    options: dict[str, Any],
    layout: Any,
    rng: np.random.Generator,
) -> None:
    counts, (k, v) = np.array([5, 0, 9]), large_tokens(rng, 3, 9)
    q = rng.standard_normal((3, 2 * HEADS, 9, WIDTH), np.float32)
    given = [x if layout == "bhsd" else x.swapaxes(1, 2) for x in (q, k, v)]
    o = make(3, **options).attend(1, *given, counts=counts, layout=layout)
    for row in (0, 2):
        alone = [x[row : row + 1, :, : counts[row]] for x in (q, k, v)]
        expected = make(1, **options).attend(1, *alone)
        got = o[row] if layout == "bhsd" else o[row].swapaxes(0, 1)
        assert_same_bits(got[:, : counts[row]], expected[0])


@both
@pytest.mark.parametrize("base", [0, 100, 1e6])
def test_results_are_near_those_of_the_keys(
    isa: str,
    make: Callable[..., Cache],
    options: dict[str, Any],
    base: float,
    rng: np.random.Generator,
) -> None:
    """Prompt and steps, with constants beside what varies, which rotary positions may turn.

    Within 3 % of the result's norm, at each token; without wide channels it is more than that by
    far.
    """
    count, prompt = 90, 60
    q = rng.standard_normal((2, 2 * HEADS, count, WIDTH), np.float32)
    k, v = large_tokens(rng, 2, count, size=150)
    wide = WIDE.copy()
    if base:
        wide |= np.roll(wide, WIDTH // 2, axis=2)
        cos, sin = na.position.Rope(WIDTH, base=base).tables(np.arange(count))
        q, k = na.apply_rope(q, cos, sin), na.apply_rope(k, cos, sin)
    expected = reference.attention(q, k, v, is_causal=True)
    parts = [slice(0, prompt), *(slice(i, i + 1) for i in range(prompt, count))]

    def error(**storage: Any) -> float:
        cache = make(2, **storage)
        rows = [cache.attend(1, q[:, :, at], k[:, :, at], v[:, :, at]) for at in parts]
        o = np.concatenate(rows, axis=2)
        return float(np.linalg.norm(o - expected) / np.linalg.norm(expected))

    assert error(storage=options["storage"], wide_keys=wide) < 0.03
    assert error(storage=options["storage"]) > 0.1


@both
def test_a_shared_page_or_row_is_copied_whole(
    make: Callable[..., Cache], options: dict[str, Any], rng: np.random.Generator
) -> None:
    cache = make(1, **options)
    for layer in range(LAYERS):
        cache.append(layer, *large_tokens(rng, 1, 5))
    before = [held(cache, layer)[0] for layer in range(LAYERS)]
    cache.fork([0, 0])
    for layer in range(LAYERS):
        cache.append(layer, *large_tokens(rng, 2, 1))
        first, second = held(cache, layer)
        for name, array in before[layer].items():
            assert_same_bits(first[name][:, :5], array)
            assert_same_bits(second[name][:, :5], array)
            assert (first[name][:, 5] != second[name][:, 5]).any()


@both
def test_a_pickled_cache_goes_on(
    make: Callable[..., Cache], options: dict[str, Any], rng: np.random.Generator
) -> None:
    cache = make(2, **options)
    for layer in range(LAYERS):
        cache.append(layer, *large_tokens(rng, 2, 5), counts=[5, 3])
    other = pickle.loads(pickle.dumps(cache, protocol=5))
    assert np.array_equal(other.wide_keys, WIDE)
    q, (k, v) = rng.standard_normal((2, 2 * HEADS, 1, WIDTH), np.float32), large_tokens(rng, 2, 1)
    for layer in range(LAYERS):
        assert_same_bits(other.attend(layer, q, k, v), cache.attend(layer, q, k, v))


def test_a_window_drops_and_takes_back_the_same_tokens(
    options: dict[str, Any], rng: np.random.Generator
) -> None:
    k, v = large_tokens(rng, 2, 60)
    q = rng.standard_normal((2, 2 * HEADS, 60, WIDTH), np.float32)
    whole = contiguous(2, **options)
    short = contiguous(2, window=10, slack=4, **options)
    expected = whole.attend(1, q, k, v, window=(10, None))
    for first in range(0, 60, 3):
        part = [x[:, :, first : first + 3] for x in (q, k, v)]
        if first > 30:  # three wrong guesses
            short.attend(1, *(x + 1 for x in part))
            short.truncate(first)
        o = short.attend(1, *part)
        # Tiles begin elsewhere, and scores of up to 128 have steps of 8e-6.
        limit = 1e-5 * np.linalg.norm(o)
        assert np.linalg.norm(o - expected[:, :, first : first + 3]) <= limit
    assert short.nbytes < whole.nbytes


def test_memory() -> None:
    """A byte of each head and token for the most wide channels of a head, in eights, by layer."""
    sizes: dict[str, Any] = {"layers": 3, "batch": 1, "kv_heads": 2, "head_dim": 64}
    wide = np.zeros((3, 2, 64), dtype=bool)
    wide[1, 1, :3] = wide[2, 0, :9] = True
    plain = na.PagedKVCache(**sizes, pages=10, storage="int8")
    cache = na.PagedKVCache(**sizes, pages=10, storage="int8", wide_keys=wide)
    assert cache.nbytes == plain.nbytes + 160 * 2 * (8 + 16)
    single = na.KVCache(**sizes, storage="int8", wide_keys=wide, capacity=160)
    single.reserve(1)
    assert single.nbytes == cache.nbytes
    x = np.zeros((1, 2, 1, 64), np.float32)
    got = [each.append(layer, x, x) for each in (single, cache) for layer in range(3)]
    shapes = [None if each.k_wide is None else each.k_wide.shape for each in got]
    assert shapes == [None, (2, 8), (2, 16)] * 2
    nothing = na.KVCache(**sizes, storage="int8", wide_keys=False)
    assert nothing.append(0, x, x).k_wide is None


@both
@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"wide_keys": WIDE}, ValueError, "wide_keys is for caches that store integers, of storag"),
        (
            {"storage": "int8", "wide_keys": WIDE[..., 1:]},
            ValueError,
            r"= \(2, 2, 8\), or be broad",
        ),
        (
            {"storage": "int8", "wide_keys": TABLE},
            TypeError,
            r"must hold flags \(bool\), not int64",
        ),
        (
            {"storage": "int8", "wide_keys": [[1]]},
            TypeError,
            r"must hold flags \(bool\), not int64",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    make: Callable[..., Cache], options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make(1, **options)
