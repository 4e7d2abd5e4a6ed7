"""`na.approx.top_blocks` and `top_pages`: exact attention to what they choose."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import numattn as na
from cases import DTYPES, normal
from numattn import approx
from tolerance import UNIT_ROUNDOFF, assert_same_bits, distance, expect
from tolerance import norm as size_of

Array = NDArray[Any]


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def peaked(rng: np.random.Generator, heads: tuple[int, int, int], length: int) -> tuple[Array, ...]:
    """Topics that last for some blocks: queries look for keys of their own topic."""
    batch, q_heads, kv_heads = heads
    topics = 3 * normal(rng, (5, 16))
    of_token = np.repeat(rng.integers(0, 5, length // 40 + 1), 40)[:length]
    q = normal(rng, (batch, q_heads, length, 16)) / 2 + topics[of_token]
    k = normal(rng, (batch, kv_heads, length, 16)) / 2 + topics[of_token]
    return q, k, normal(rng, (batch, kv_heads, length, 8))


@pytest.mark.parametrize("heads", [(1, 1, 1), (2, 4, 2), (1, 6, 1)])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(("length", "block"), [(200, 32), (192, 64), (30, 64), (65, 1)])
@pytest.mark.parametrize("mass", [0.3, 0.9, 1.0])
def test_top_blocks_is_exact_on_its_choice(
    isa: str,
    rng: np.random.Generator,
    heads: tuple[int, int, int],
    is_causal: bool,
    length: int,
    block: int,
    mass: float,
) -> None:
    q, k, v = peaked(rng, heads, length)
    options: dict[str, Any] = {"mass": mass, "block": block, "is_causal": is_causal}
    chosen = approx.choose_blocks(q, k, **options)
    mask = chosen.repeat(block, axis=2).repeat(block, axis=3)[:, :, :length, :length]
    o = approx.top_blocks(q, k, v, **options)
    expected = expect(q, k, v, mask=mask, is_causal=is_causal)
    # The scores here are some ten times those of unit-normal queries and keys.
    assert distance(o, expected.o) <= 10 * expected.o_bound
    visible = np.tri(chosen.shape[2], dtype=bool) if is_causal else np.ones(chosen.shape[2:], bool)
    if mass == 1:
        assert np.array_equal(chosen, np.broadcast_to(visible, chosen.shape))
    elif length == 200:
        assert chosen.sum() < 0.8 * visible.sum() * np.prod(chosen.shape[:2])


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_choice_is_the_smallest_with_that_mass(
    rng: np.random.Generator, is_causal: bool
) -> None:
    q, k, _ = peaked(rng, (1, 2, 1), 330)
    mass, block = 0.8, 32
    chosen = approx.choose_blocks(q, k, mass=mass, block=block, is_causal=is_causal)
    starts = np.arange(0, 330, block)
    counts = np.diff(starts, append=330)[:, None]
    means = [np.add.reduceat(x.astype(np.float64), starts, axis=2) / counts for x in (q, k)]
    scores = means[0] @ means[1].swapaxes(2, 3) / 4
    if is_causal:
        scores = np.where(np.tri(11, dtype=bool), scores, -np.inf)
    shares = softmax(scores)
    assert np.all((shares * chosen).sum(axis=-1) >= mass - 1e-5)
    forced = np.zeros((11, 11), bool)
    forced[:, 0] = True
    if is_causal:
        forced |= np.eye(11, dtype=bool)
    for row in np.ndindex(chosen.shape[:3]):
        free = shares[row][chosen[row] & ~forced[row[-1]]]
        if free.size:  # without the least of the others, it would not be enough
            larger = shares[row][shares[row] > free.min()].sum()
            assert larger < mass + 1e-5


@pytest.mark.parametrize("dtype", DTYPES)
def test_top_blocks_in_other_forms(isa: str, rng: np.random.Generator, dtype: str) -> None:
    q, k, v = (x.astype(DTYPES[dtype]) for x in peaked(rng, (2, 4, 2), 150))
    o = approx.top_blocks(q, k, v, mass=0.7, is_causal=True, num_threads=1)
    assert o.dtype == q.dtype
    assert_same_bits(o, approx.top_blocks(q, k, v, mass=0.7, is_causal=True, num_threads=2))
    wide = approx.top_blocks(
        *(x.astype(np.float32) for x in (q, k, v)), mass=0.7, is_causal=True
    )  # fmt: skip
    assert_same_bits(o, wide.astype(q.dtype))
    one = approx.top_blocks(q[1], k[1], v[1], mass=0.7, is_causal=True)
    tolerance = (2 * UNIT_ROUNDOFF[dtype] + 1e-5) * size_of(o)
    assert distance(one, o[1].astype(np.float64)) <= tolerance
    turned = [x.swapaxes(1, 2) for x in (q, k, v)]
    bshd = approx.top_blocks(*turned, mass=0.7, is_causal=True, layout="bshd")
    assert distance(bshd.swapaxes(1, 2), o.astype(np.float64)) <= tolerance


def test_more_queries_than_keys_and_none(rng: np.random.Generator) -> None:
    q, k, v = normal(rng, (1, 2, 90, 8)), normal(rng, (1, 1, 40, 8)), normal(rng, (1, 1, 40, 8))
    o = approx.top_blocks(q, k, v, mass=1.0, block=16)
    expect(q, k, v).check(o)
    assert approx.top_blocks(q[:, :, :0], k, v).shape == (1, 2, 0, 8)
    assert not approx.top_blocks(q, k[:, :, :0], v[:, :, :0]).any()


# --- pages ----------------------------------------------------------------------------------------

PAGE, LENGTHS = 8, np.array([100, 37, 0, 5])


def paged(
    rng: np.random.Generator, dtype: str = "float32", heads: int = 2
) -> tuple[Array, Array, Array, Array]:
    """Pages in random order, those that nobody names full of NaN."""
    k, v = normal(rng, (60, PAGE, heads, 16), dtype), normal(rng, (60, PAGE, heads, 12), dtype)
    table = rng.permutation(60)[: 4 * 13].reshape(4, 13)
    named = table[np.arange(13) < -(-LENGTHS // PAGE)[:, None]]
    unused = np.setdiff1d(np.arange(60), named)
    k[unused] = v[unused] = np.nan
    for row, length in zip(table, LENGTHS, strict=True):
        if length % PAGE:
            k[row[length // PAGE], length % PAGE :] = np.nan
            v[row[length // PAGE], length % PAGE :] = np.nan
    return 2 * normal(rng, (4, 6, 1, 16), dtype), k, v, table


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pages", [1, 3, 13, 50])
@pytest.mark.parametrize("order", ["token", "head"])
def test_top_pages_is_exact_on_its_choice(
    isa: str, rng: np.random.Generator, dtype: str, pages: int, order: str
) -> None:
    q, k, v, table = paged(rng, dtype)
    if order == "head":  # the tokens of a head side by side
        k, v = (np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in (k, v))
    with np.errstate(invalid="ignore"):
        bounds = approx.page_bounds(k)
    chosen = approx.choose_pages(q, k, table, LENGTHS, pages, bounds=bounds)
    o = approx.top_pages(q, k, v, table, LENGTHS, pages, bounds=bounds)
    assert o.dtype == q.dtype and o.shape == (4, 6, 1, 12)
    for b, length in enumerate(LENGTHS):
        for h in range(2):
            places = chosen[b, h][chosen[b, h] >= 0]
            assert len(places) == min(pages, -(-length // PAGE))
            tokens = np.concatenate(
                [np.arange(p * PAGE, min((p + 1) * PAGE, length)) for p in places] or [np.arange(0)]
            )
            rows = table[b][tokens // PAGE], tokens % PAGE
            heads = slice(3 * h, 3 * h + 3)
            keys, values = k[rows][:, h], v[rows][:, h]
            one = q[b : b + 1, heads]
            expected = expect(one, keys[None, None], values[None, None])
            # Queries are twice as large as unit-normal ones.
            assert distance(o[b : b + 1, heads], expected.o) <= 2 * expected.o_bound + 1e-12


def test_the_pages_chosen_have_the_largest_bounds(rng: np.random.Generator) -> None:
    q, k, v, table = paged(rng)
    bounds = approx.page_bounds(k)
    chosen = approx.choose_pages(q, k, table, LENGTHS, 4, bounds=bounds)
    for b, h in np.ndindex(4, 2):
        count = -(-LENGTHS[b] // PAGE)
        if count <= 4:
            assert np.array_equal(chosen[b, h][chosen[b, h] >= 0], np.arange(count))
            continue
        query = q[b, 3 * h : 3 * h + 3, 0].astype(np.float64)
        scores = []
        for p in range(count - 1):  # the last is always there
            low, high = bounds.low[table[b, p], h], bounds.high[table[b, p], h]
            scores.append(np.maximum(query * low, query * high).sum(axis=-1).max())
            true = (query @ k[table[b, p], :, h].T).max()
            assert true <= scores[-1] + 1e-5
        expected = np.sort([*np.argsort(scores)[-3:], count - 1])
        assert np.array_equal(chosen[b, h], expected)
    whole = approx.page_bounds(k[:40])
    again = pickle.loads(pickle.dumps(whole))
    assert_same_bits(again.low, whole.low)


def test_all_pages_are_attention_paged(isa: str, rng: np.random.Generator) -> None:
    q, k, v, table = paged(rng)
    expected = na.attention_paged(q, k, v, table, LENGTHS)
    o = approx.top_pages(q, k, v, table, LENGTHS, 13)
    assert distance(o, expected.astype(np.float64)) <= 4e-6 * size_of(expected)


def test_pages_are_read_where_they_lie(rng: np.random.Generator) -> None:
    import tracemalloc

    k, v = normal(rng, (2, 512, 16, 2, 64))
    q = normal(rng, (1, 4, 1, 64))
    table, bounds = np.arange(512)[None], approx.page_bounds(k)
    tracemalloc.start()
    approx.top_pages(q, k, v, table, [512 * 16], 32, bounds=bounds)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < k.nbytes / 2


ONES = np.ones((1, 2, 1, 8), np.float32)
PAGES = np.ones((4, 3, 2, 8), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: approx.top_blocks(ONES, ONES, ONES, mass=0), ValueError, "mass must be above 0"),
        (lambda: approx.top_blocks(ONES, ONES, ONES, mass=1.5), ValueError, "up to 1, not 1.5"),
        (lambda: approx.top_blocks(ONES, ONES, ONES, block=0), ValueError, "block must be 1 or"),
        (lambda: approx.top_blocks(ONES, PAGES, PAGES, is_causal=True), ValueError,
         r"q \(1, 2, 1, 8\) and k \(4, 3, 2, 8\) must agree"),
        (lambda: approx.top_pages(ONES, PAGES, PAGES, [[0, 1]], [5], 0), ValueError,
         "pages must be 1 or more, not 0"),
        (lambda: approx.top_pages(ONES, PAGES, PAGES, [[0, 4]], [5], 2), ValueError,
         "block_table names page 4, but there are 4 pages"),
        (lambda: approx.top_pages(ONES, PAGES, PAGES, [[0, 1]], [7], 2), ValueError,
         r"kv_lens must be 1 numbers up to 6, not \[7\]"),
        (lambda: approx.top_pages(ONES, PAGES, PAGES, [0, 1], [5], 2), ValueError,
         r"block_table must have shape \(1, n\), not \(2,\)"),
        (lambda: approx.top_pages(ONES, PAGES, PAGES[:3], [[0]], [3], 2), ValueError,
         r"k_pages \(4, 3, 2, 8\) and v_pages \(3, 3, 2, 8\) must agree"),
        (lambda: approx.top_pages(ONES[..., :4], PAGES, PAGES, [[0]], [3], 2), ValueError,
         r"q \(1, 2, 1, 4\) and k_pages \(4, 3, 2, 8\) do not fit"),
        (lambda: approx.top_pages(
            ONES, PAGES, PAGES, [[0]], [3], 2, bounds=approx.page_bounds(PAGES[:2])), ValueError,
         r"bounds must have shape \(4, 2, 8\), not \(2, 2, 8\)"),
        (lambda: approx.page_bounds(PAGES[0]), ValueError, r"k_pages must have shape \(P, page"),
    ],
)  # fmt: skip
def test_what_is_refused(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
