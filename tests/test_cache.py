"""na.KVCache and na.PagedKVCache: what rows hold, whatever is done to them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import numattn as na
from caches import (
    HEADS,
    LAYERS,
    SIZES,
    VALUE_WIDTH,
    WIDTH,
    Array,
    assert_holds,
    both,
    contents,
    contiguous,
    paged,
    tokens,
)
from numattn.cache import Cache
from tolerance import assert_same_bits, expect


@both
@pytest.mark.parametrize("seed", range(4))
def test_rows_hold_what_was_appended(make: Callable[..., Cache], seed: int) -> None:
    """A walk of appends, cuts and forks, beside plain arrays that grow by concatenation."""
    rng = np.random.default_rng(seed)
    cache = make(3)
    empty = (np.empty((HEADS, 0, WIDTH), np.float32), np.empty((HEADS, 0, VALUE_WIDTH), np.float32))
    model = [[empty] * 3 for _ in range(LAYERS)]
    for _ in range(40):
        action = rng.integers(6)
        if action == 0:
            limits = rng.integers(0, 20, cache.batch)
            cache.truncate(limits)
            model = [
                [(k[:, :n], v[:, :n]) for (k, v), n in zip(rows, limits, strict=True)]
                for rows in model
            ]
        elif action == 1:
            indices = rng.integers(0, cache.batch, rng.integers(1, 5))
            cache.fork(indices)
            model = [[rows[index] for index in indices] for rows in model]
        else:
            size = int(rng.integers(1, 5))
            counts = rng.integers(0, size + 1, cache.batch) if action < 4 else None
            if action == 3:
                cache.reserve(counts)
            layout = ("bhsd", "bshd")[rng.integers(2)]
            for layer in range(LAYERS):
                k, v = tokens(rng, cache.batch, size)
                swapped = (k, v) if layout == "bhsd" else (k.swapaxes(1, 2), v.swapaxes(1, 2))
                cache.append(layer, *swapped, counts=counts, layout=layout)
                new = [size] * cache.batch if counts is None else counts
                model[layer] = [
                    tuple(
                        np.concatenate([old, fresh[row, :, : new[row]]], axis=1)
                        for old, fresh in zip(held, (k, v), strict=True)
                    )
                    for row, held in enumerate(model[layer])
                ]
        assert cache.lengths.tolist() == [k.shape[1] for k, _ in model[0]]
    assert_holds(cache, model)


@both
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_steps_attend_as_one_call_does(
    make: Callable[..., Cache], layout: str, rng: np.random.Generator
) -> None:
    """Chunks of a ragged batch, each query against all keys up to its own position."""
    lengths, order = np.array([23, 9, 1]), (slice(None), slice(None))
    k, v = tokens(rng, 3, 23)
    q = rng.standard_normal((3, 2 * HEADS, 23, WIDTH), np.float32)
    expected = expect(q, k, v, is_causal=True, kv_lens=lengths, window=(7, None))
    cache = make(3)
    parts = []
    for start in range(0, 23, 5):
        chunk = [x[(*order, slice(start, start + 5))] for x in (q, k, v)]
        if layout == "bshd":
            chunk = [x.swapaxes(1, 2) for x in chunk]
        counts = np.clip(lengths - start, 0, min(5, 23 - start))
        o = cache.attend(0, *chunk, counts=counts, layout=layout, window=(7, None))
        parts.append(o.swapaxes(1, 2) if layout == "bshd" else o)
    o = np.concatenate(parts, axis=2)
    real = np.arange(23) < lengths[:, np.newaxis]
    heads_last, reference = o.swapaxes(1, 2)[real], expected.o.swapaxes(1, 2)[real]
    assert np.linalg.norm(heads_last - reference) <= expected.o_bound


@both
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, "bfloat16"])
def test_16_bits(make: Callable[..., Cache], dtype: Any, rng: np.random.Generator) -> None:
    cache = make(1, dtype=dtype)
    k, v = (x.astype(cache.dtype) for x in tokens(rng, 1, 4))
    assert cache.attend(0, k, k, v).dtype == cache.dtype
    assert_same_bits(contents(cache, 0)[0][0], k[0])


def test_appending_copies_each_token_a_few_times_at_most(rng: np.random.Generator) -> None:
    """The memory at least doubles: the sizes before it add up to less than the last."""
    cache, sizes = contiguous(1), [0]
    k, v = tokens(rng, 1, 1)
    slot = k.nbytes + v.nbytes
    for _ in range(1000):
        cache.append(0, k, v)
        if cache.nbytes != sizes[-1]:
            sizes.append(cache.nbytes)
    assert all(later >= 2 * earlier for earlier, later in zip(sizes, sizes[1:], strict=False))
    assert sizes[-1] < 2048 * slot


def test_views_are_views_and_later_tokens_leave_them_alone(rng: np.random.Generator) -> None:
    cache = contiguous(2, capacity=8)
    k, v = tokens(rng, 2, 3)
    first = cache.append(0, k, v)
    later = cache.append(0, k, v)
    assert np.shares_memory(first.k, later.k) and np.shares_memory(first.v, later.v)
    assert_same_bits(np.ascontiguousarray(first.k), k)
    assert_same_bits(np.ascontiguousarray(later.v[:, :, 3:]), v)
    assert cache.nbytes == 2 * HEADS * 8 * (WIDTH + VALUE_WIDTH) * 4  # layer 1 has none yet


# --- windows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [0, 1, 6, 100])
def test_a_window_keeps_positions_right(left: int, rng: np.random.Generator) -> None:
    """Two rows of different lengths, in chunks of several sizes, against all keys at once."""
    sizes = [3, 1, 1, 9, 1, 1, 1, 20, *[1] * 30]
    total = sum(sizes)
    k, v = tokens(rng, 2, total)
    q = rng.standard_normal((2, 2 * HEADS, total, WIDTH), np.float32)
    lead = 4  # row 1 starts when row 0 has that many
    cache = contiguous(2, window=left)
    cache.append(0, k[:, :, :lead], v[:, :, :lead], counts=[lead, 0])
    before = np.array([lead, 0])
    o = np.zeros((2, 2 * HEADS, total, VALUE_WIDTH), np.float32)
    for size in sizes:
        counts = np.clip(total - before, 0, size)
        rows = [slice(start, start + size) for start in before]
        chunk = [np.stack([pad(x[b, :, rows[b]], size) for b in range(2)]) for x in (q, k, v)]
        got = cache.attend(0, *chunk, counts=counts)
        for b in range(2):
            o[b, :, before[b] : before[b] + counts[b]] = got[b, :, : counts[b]]
        before += counts
    expected = expect(q, k, v, is_causal=True, window=(left, None))
    o[0, :, :lead] = expected.o[0, :, :lead]  # appended without a query
    assert np.linalg.norm(o - expected.o) <= expected.o_bound
    if left < 100:
        assert cache.append(0, k[:, :, :0], v[:, :, :0]).k.shape[2] <= left + max(left, 20)


def pad(x: Array, size: int) -> Array:
    """Return (H, n, D) with NaN after it up to (H, size, D)."""
    return np.pad(x, ((0, 0), (0, size - x.shape[1]), (0, 0)), constant_values=np.nan)


def test_a_window_bounds_the_memory(rng: np.random.Generator) -> None:
    cache = contiguous(1, window=[7, None])
    k, v = tokens(rng, 1, 1)
    for _ in range(200):
        for layer in range(LAYERS):
            got = cache.append(layer, k, v)
    assert got.k.shape[2] == 200  # layer 1 keeps all
    alone = na.KVCache(1, 1, **SIZES, window=7)
    for _ in range(201):
        alone.append(0, k, v)
    assert alone.nbytes == 14 * (k.nbytes + v.nbytes)
    cache.append(0, k, v)
    assert cache.layer_lengths(0).tolist() == [201] and cache.lengths.tolist() == [200]


def test_a_window_says_what_cannot_be_cut(rng: np.random.Generator) -> None:
    cache = na.KVCache(1, 1, **SIZES, window=4)
    k, v = tokens(rng, 1, 1)
    held = [cache.append(0, k * n, v)[0].shape[2] for n in range(30)]
    assert max(held) == 8
    dropped = 30 - held[-1]
    with pytest.raises(ValueError, match=rf"row 0 cannot be cut to {dropped + 3} tokens: the wind"):
        cache.truncate(dropped + 3)
    assert cache.lengths == [30]
    cache.truncate(dropped + 4)
    got = cache.append(0, k * (dropped + 4), v)
    assert_same_bits(got.k[0, :, -5:], np.stack([k[0, :, 0] * (dropped + n) for n in range(5)], 1))
    cache.truncate(0)
    assert cache.append(0, k, v).q_offset == [0]


def test_attend_refuses_a_window_wider_than_what_is_kept(rng: np.random.Generator) -> None:
    cache = contiguous(1, window=[4, None])
    k, v = tokens(rng, 1, 2)
    cache.attend(1, k, k, v, window=(9, 0))
    for window in [(5, 0), (None, 0)]:
        with pytest.raises(ValueError, match="window must reach back 4 keys at most, which layer"):
            cache.attend(0, k, k, v, window=window)
    assert cache.layer_lengths(0) == [0]


# --- pages ----------------------------------------------------------------------------------------


def test_a_fork_shares_pages_until_one_row_writes(rng: np.random.Generator) -> None:
    cache = paged(1, pages=10, page_size=4)
    for layer in range(LAYERS):
        cache.append(layer, *tokens(rng, 1, 10))
    before = [contents(cache, layer)[0] for layer in range(LAYERS)]
    cache.fork([0, 0, 0])
    assert cache.free_pages == 7
    new = [tokens(rng, 3, 1) for _ in range(LAYERS)]
    for layer in range(LAYERS):
        cache.append(layer, *new[layer], counts=[1, 1, 0])
    # Two of the three wrote into the last page; the third keeps it. The others are shared by all.
    assert cache.free_pages == 5
    assert (cache.block_table()[:, :2] == [0, 1]).all()
    assert len(set(cache.block_table()[:, 2].tolist())) == 3
    grown = [
        [
            tuple(
                np.concatenate([x, y[row]], axis=1)
                for x, y in zip(before[layer], new[layer], strict=True)
            )
            for row in range(2)
        ]
        for layer in range(LAYERS)
    ]
    assert_holds(cache, [[*grown[layer], before[layer]] for layer in range(LAYERS)])
    cache.free([0, 2])
    assert cache.free_pages == 7 and cache.lengths.tolist() == [0, 11, 0]
    assert cache.block_table([1]).shape == (1, 3) and cache.block_table([0]).shape == (1, 0)
    cache.fork([0])
    assert cache.free_pages == 10


def test_the_last_of_the_sharers_writes_in_place(rng: np.random.Generator) -> None:
    cache = paged(1, pages=3, page_size=4)
    cache.append(0, *tokens(rng, 1, 2))
    cache.fork([0, 0])
    cache.append(0, *tokens(rng, 2, 1))
    assert sorted(cache.block_table()[:, 0].tolist()) == [0, 1] and cache.free_pages == 1


def state(cache: na.PagedKVCache) -> Any:
    return copy.deepcopy(
        (cache.block_table().tolist(), cache.free_pages, cache.lengths.tolist(),
         [contents(cache, layer) for layer in range(LAYERS)])
    )  # fmt: skip


def assert_same_state(got: Any, expected: Any) -> None:
    assert got[:3] == expected[:3]
    for layers in zip(got[3], expected[3], strict=True):
        for rows in zip(*layers, strict=True):
            for x, y in zip(*rows, strict=True):
                assert_same_bits(x, y)


def test_when_pages_run_out_nothing_is_lost(rng: np.random.Generator) -> None:
    cache = paged(1, pages=4, page_size=4)
    for layer in range(LAYERS):
        cache.append(layer, *tokens(rng, 1, 6))
    cache.fork([0, 0])
    before = state(cache)
    # One row needs a copy of the second page, and each row 2 pages beyond it.
    for act in (
        lambda: cache.append(0, *tokens(rng, 2, 10)),
        lambda: cache.reserve(10),
        lambda: cache.attend(0, *(tokens(rng, 2, 10)[n] for n in (0, 0, 1))),
    ):
        with pytest.raises(MemoryError, match="5 more are needed, and 2 of 4 are free"):
            act()
        assert_same_state(state(cache), before)
    cache.reserve([2, 0])
    for layer in range(LAYERS):
        cache.append(layer, *tokens(rng, 2, 2), counts=[2, 0])
    assert cache.free_pages == 1
    cache.truncate([8, 0])
    assert cache.free_pages == 2


def test_reserved_pages_are_enough(rng: np.random.Generator) -> None:
    cache = paged(2, pages=4, page_size=4)
    cache.reserve([5, 8])
    assert cache.free_pages == 0
    for layer in range(LAYERS):
        cache.append(layer, *tokens(rng, 2, 8), counts=[5, 8])
    assert cache.lengths.tolist() == [5, 8]


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("make", [contiguous, lambda batch: paged(batch, page_size=8)])
def test_tokens_may_be_views_of_the_cache_itself(
    make: Callable[..., Cache], layout: str, order: list[int], rng: np.random.Generator
) -> None:
    """Rows may change places: what one writes, another has still to read."""
    cache = make(2)
    k, v = tokens(rng, 2, 6)
    held = cache.append(0, k, v, counts=[6, 4])
    if isinstance(cache, na.KVCache):
        views = held.k, held.v
    else:  # each row is in a page of its own
        views = tuple(pages[:2, :6].swapaxes(1, 2) for pages in (held.k_pages, held.v_pages))
    counts = np.array([6, 4])[order]
    cache.truncate(0)
    given = [x[:: 1 if order == [0, 1] else -1] for x in views]
    given = [x if layout == "bhsd" else x.swapaxes(1, 2) for x in given]
    cache.append(0, *given, counts=counts, layout=layout)
    for row, count, (got_k, got_v) in zip(order, counts, contents(cache, 0), strict=True):
        assert_same_bits(got_k, k[row, :, :count])
        assert_same_bits(got_v, v[row, :, :count])
