"""`sink_tokens`: the first keys stay visible beside a window, and in caches whose window evicts."""

from __future__ import annotations

import mmap
import pickle
from typing import Any

import numpy as np
import pytest

import numattn as na
from caches import HEADS, SIZES, VALUE_WIDTH, WIDTH, Array, contiguous, paged, tokens
from cases import DTYPES, key_spans, normal, unit_inputs
from guard_pages import PAGE, forbid
from numattn import reference
from tolerance import assert_same_bits, assert_weights_close, expect

# --- attention ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("query_len", [1, 3, 130])
@pytest.mark.parametrize("sinks", [1, 4, 70, 500])
def test_the_first_keys_stay(
    isa: str, rng: np.random.Generator, sinks: int, query_len: int, dtype: str
) -> None:
    q, k, v = unit_inputs(rng, (2, 4, 2), (query_len, 400), (40, 24), dtype)
    options: dict[str, Any] = {"window": (30, None), "q_offset": 400 - query_len}
    for causal in (False, True):
        options |= {"is_causal": causal, "sink_tokens": sinks}
        o, lse = na.attention(q, k, v, return_lse=True, **options)
        expect(q, k, v, **options).check(o, lse)
        weights = na.attention_weights(q, k, **options)
        assert_weights_close(weights, reference.attention_weights(q, k, **options))


def test_what_they_mean() -> None:
    """Whatever the window, on both sides; as far as the other rules let them."""
    k = np.zeros((1, 1, 8, 1), np.float32)
    q = k[:, :, :6]

    def seen(**options: Any) -> list[list[int]]:
        weights = na.attention_weights(q, k, sink_tokens=2, **options)
        return [np.flatnonzero(row).tolist() for row in weights[0, 0]]

    assert seen(window=(0, 0))[0] == [0, 1] and seen(window=(0, 0))[5] == [0, 1, 5]
    assert seen(window=(0, 0), is_causal=True)[0] == [0]
    assert seen(window=(1, 0), kv_lens=[1])[5] == [0]
    assert seen(window=(0, 0), key_spans=([1], [8]))[3] == [1, 3]
    assert seen()[5] == list(range(8))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_of_rows_alone(isa: str, rng: np.random.Generator, dtype: str) -> None:
    q, k, v = unit_inputs(rng, (1, 4, 2), (200, 900), dtype=dtype)
    begin, end = key_spans(rng, (1, 4, 200), 900)
    rules: dict[str, Any] = {"sink_tokens": 37, "window": (200, 3)}
    o = na.attention(q, k, v, key_spans=(begin, end), num_threads=2, **rules)
    assert_same_bits(o, na.attention(q, k, v, key_spans=(begin, end), num_threads=1, **rules))
    far = na.attention(q, k, v, q_offset=600, **rules)
    expect(q, k, v, q_offset=600, **rules).check(far)
    first = na.attention(q[:, :, 120:], k, v, q_offset=720, **rules)
    assert_same_bits(first, far[:, :, 120:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("query_len", [1, 100])
def test_what_lies_between_is_not_mapped(
    isa: str, rng: np.random.Generator, query_len: int, dtype: str
) -> None:
    """Sinks in the first page and the window in later ones, in one tile of keys and far apart."""
    width = PAGE // 16 // DTYPES[dtype].itemsize  # 16 keys a page
    for offset in (40, 900):
        q, k, v = unit_inputs(rng, (1, 1, 1), (query_len, 1024), (width, width), dtype)
        options: dict[str, Any] = {"window": (7, 0), "sink_tokens": 5, "q_offset": offset}
        expected = expect(q, k, v, **options)
        places = []
        for x in (k, v):
            there = np.frombuffer(mmap.mmap(-1, x.nbytes), x.dtype).reshape(x.shape)
            there[:] = x
            first = (offset - 7) // 16
            forbid(there.ctypes.data + PAGE, (first - 1) * PAGE)
            places.append(there)
        o, lse = na.attention(q, *places, return_lse=True, **options)
        expected.check(o, lse)
        weights = na.attention_weights(q, places[0], **options)
        assert_weights_close(weights, reference.attention_weights(q, k, **options))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nan_among_the_hidden(isa: str, rng: np.random.Generator, dtype: str) -> None:
    """Key 20 is hidden from later rows, key 2 from none."""
    q, k, v = unit_inputs(rng, (1, 2, 1), (100, 100), dtype=dtype)
    options: dict[str, Any] = {"window": (8, 0), "sink_tokens": 3, "is_causal": True}
    clean = na.attention(q, k, v, **options)
    v[:, :, 20] = np.nan
    o = na.attention(q, k, v, **options)
    hit = np.zeros(100, bool)
    hit[20:29] = True
    assert_same_bits(o[:, :, ~hit], clean[:, :, ~hit])
    assert np.all(np.isnan(o[:, :, hit]))


def test_sequences_and_pages(isa: str, rng: np.random.Generator) -> None:
    options: dict[str, Any] = {"window": (9, 0), "sink_tokens": 2, "is_causal": True}
    q, k, v = normal(rng, (3, 100, 2, 16))
    starts = [0, 30, 100]
    o = na.attention_varlen(q, k, v, starts, starts, **options)
    for begin, end in zip(starts, starts[1:], strict=False):
        rows = [x[begin:end] for x in (q, k, v)]
        assert_same_bits(o[begin:end], na.attention(*rows, layout="bshd", **options))
    q, k, v = unit_inputs(rng, (2, 2, 2), (9, 64))
    pages = [x.swapaxes(1, 2).reshape(8, 16, 2, 16) for x in (k, v)]
    options |= {"q_offset": [55, 41]}
    o = na.attention_paged(q, *pages, np.arange(8).reshape(2, 4), [64, 50], **options)
    assert_same_bits(o, na.attention(q, k, v, kv_lens=[64, 50], **options))


@pytest.mark.parametrize(
    ("sinks", "error", "message"),
    [
        (-1, ValueError, "sink_tokens must be 0 or more, not -1"),
        (1.5, TypeError, "sink_tokens must be an integer"),
        (2**63, ValueError, "sink_tokens must fit 64 signed bits"),
    ],
)
def test_errors(rng: np.random.Generator, sinks: Any, error: type, message: str) -> None:
    q, k, v = unit_inputs(rng, (1, 1, 1), (3, 5))
    with pytest.raises(error, match=message):
        na.attention(q, k, v, sink_tokens=sinks)


# --- caches ---------------------------------------------------------------------------------------


def queries(rng: np.random.Generator, batch: int, count: int) -> Array:
    return rng.standard_normal((batch, 2 * HEADS, count, WIDTH), np.float32)


@pytest.mark.parametrize("sinks", [0, 1, 4, 30])
@pytest.mark.parametrize("left", [0, 6])
@pytest.mark.parametrize("slack", [0, 3])
def test_eviction_keeps_them(sinks: int, left: int, slack: int, rng: np.random.Generator) -> None:
    """Two rows of different lengths, in chunks of several sizes, against all keys at once."""
    sizes = [3, 1, 1, 9, 1, 1, 1, 20, *[1] * 30]
    total = sum(sizes)
    k, v = tokens(rng, 2, total)
    q = queries(rng, 2, total)
    cache = contiguous(2, window=left, sink_tokens=sinks, slack=slack)
    cache.append(0, k[:, :, :4], v[:, :, :4], counts=[4, 0])
    before = np.array([4, 0])
    o = np.zeros((2, 2 * HEADS, total, VALUE_WIDTH), np.float32)
    for size in sizes:
        counts = np.clip(total - before, 0, size)
        chunk = []
        for x in (q, k, v):
            rows = [x[b, :, before[b] : before[b] + size] for b in range(2)]
            pads = [((0, 0), (0, size - row.shape[1]), (0, 0)) for row in rows]
            chunk.append(
                np.stack([np.pad(r, p, constant_values=np.nan) for r, p in zip(rows, pads)])  # noqa: B905
            )
        got = cache.attend(0, *chunk, counts=counts)
        for b in range(2):
            o[b, :, before[b] : before[b] + counts[b]] = got[b, :, : counts[b]]
        before += counts
    expected = expect(q, k, v, is_causal=True, window=(left, None), sink_tokens=sinks)
    o[0, :, :4] = expected.o[0, :, :4]  # appended without a query
    assert np.linalg.norm(o - expected.o) <= expected.o_bound
    most = left + sinks + slack
    assert cache.append(0, k[:, :, :0], v[:, :, :0]).k.shape[2] <= most + max(most, 20)


@pytest.mark.parametrize("options", [{}, {"storage": "int8"}, {"dtype": "bfloat16"}])
def test_append_and_attention(options: dict[str, Any], rng: np.random.Generator) -> None:
    """What `append` returns attends as `attend` does, with the window and the sinks."""
    rules: dict[str, Any] = {"window": 5, "sink_tokens": 3}
    mine, other = (contiguous(2, **rules, **options) for _ in range(2))
    for _ in range(40):
        k, v, q = (x.astype(mine.dtype) for x in (*tokens(rng, 2, 1), queries(rng, 2, 1)))
        got = mine.attend(1, q, k, v)
        held = other.append(1, k, v)
        score: dict[str, Any] = {"window": (5, None), "sink_tokens": 3, "is_causal": True}
        assert_same_bits(got, na.attention(q, **held._asdict(), **score))
    assert held.k.shape[2] <= 16 and held.q_offset[0] == held.kv_lens[0] - 1


def test_taken_back_copied_and_pickled(rng: np.random.Generator) -> None:
    k, v = tokens(rng, 1, 60)
    q = queries(rng, 1, 60)
    cache = na.KVCache(1, 1, **SIZES, window=6, sink_tokens=2, slack=4)
    for n in range(50):
        cache.append(0, k[:, :, n : n + 1], v[:, :, n : n + 1])
    cache.truncate(46)
    cache.fork([0, 0])
    again = pickle.loads(pickle.dumps(cache))
    expected = na.attention(
        q[:, :, 46:47], k[:, :, :47], v[:, :, :47], q_offset=46, window=(6, None), sink_tokens=2
    )
    for each in (cache, again):
        new = (np.repeat(x[:, :, 46:47], 2, axis=0) for x in (q, k, v))
        got = each.attend(0, *new)
        np.testing.assert_allclose(got, np.repeat(expected, 2, axis=0), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="cannot be cut to 20 tokens"):
        cache.truncate(20)
    cache.truncate(0)
    assert cache.append(0, *(np.repeat(x[:, :, :1], 2, axis=0) for x in (k, v))).kv_lens[0] == 1


def test_without_a_window_and_in_pages(rng: np.random.Generator) -> None:
    """Nothing is evicted there: any number of sinks beside a window of the call."""
    k, v = tokens(rng, 2, 30)
    q = queries(rng, 2, 30)
    expected = expect(q, k, v, is_causal=True, window=(4, None), sink_tokens=3)
    for cache in (contiguous(2), paged(2)):
        expected.check(cache.attend(0, q, k, v, window=(4, 0), sink_tokens=3))
    layer = contiguous(2).layer(1)
    expected.check(layer.attend(q, k, v, window=(4, 0), sink_tokens=3))
    counts = contiguous(2).attend(0, q, k, v, counts=[30, 7], window=(4, 0), sink_tokens=3)
    assert np.linalg.norm(counts[0] - expected.o[0]) <= expected.o_bound


def test_what_a_cache_refuses(rng: np.random.Generator) -> None:
    k, v = tokens(rng, 1, 1)
    q = queries(rng, 1, 1)
    cache = na.KVCache(1, 1, **SIZES, window=4, sink_tokens=2)
    with pytest.raises(ValueError, match="sink_tokens must be 2 at most, as .*, not 3"):
        cache.attend(0, q, k, v, sink_tokens=3)
    with pytest.raises(ValueError, match="alibi_slopes and relative go by distance"):
        cache.attend(0, q, k, v, alibi_slopes=np.ones(2 * HEADS, np.float32))
    cache.attend(0, q, k, v, alibi_slopes=np.ones(2 * HEADS, np.float32), sink_tokens=0)
    assert cache.lengths.tolist() == [1]
    with pytest.raises(ValueError, match="sink_tokens must be 0 or more, not -1"):
        na.KVCache(1, 1, **SIZES, sink_tokens=-1)
