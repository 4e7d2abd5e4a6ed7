"""`key_spans` and `block_mask` of the caches' `attend`, which name keys by their positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numattn as na
from caches import HEADS, SIZES, WIDTH, Array, both, contiguous, paged, tokens
from cases import DTYPES, block_mask, key_spans, normal
from numattn import BlockMask
from numattn.cache import Cache
from tolerance import assert_same_bits, expect

BATCH = 2
STEPS = ((5, [5, 2]), (1, None), (70, [70, 33]), (1, [1, 0]), (1, None), (4, None), (100, [3, 100]))
KINDS = ("key_spans", "block_mask", "both")


def queries(rng: np.random.Generator, batch: int, count: int) -> Array:
    return rng.standard_normal((batch, 2 * HEADS, count, WIDTH), np.float32)


def structure(rng: np.random.Generator, kind: str, count: int, keys: int) -> dict[str, Any]:
    """Return random intervals and lists for so many queries of each row and head."""
    given: dict[str, Any] = {}
    if kind != "block_mask":
        given["key_spans"] = key_spans(rng, (BATCH, 2 * HEADS, count), keys)
    if kind != "key_spans":
        given["block_mask"] = block_mask(rng, (BATCH, 1, count, keys))
    return given


def read(
    cache: Cache,
    rng: np.random.Generator,
    kind: str,
    layout: str = "bhsd",
    of_cache: dict[str, Any] | None = None,
    **rules: Any,
) -> None:
    """Attend in steps, of which each is held to attention over all tokens of the rows so far.

    By rules, and those that the cache has of its own.
    """
    dtype = cache.dtype
    held = [np.zeros((BATCH, HEADS, 0, SIZES[name]), dtype) for name in ("head_dim", "value_dim")]
    before = np.zeros(BATCH, np.int64)
    for count, counts in STEPS:
        q, k, v = (
            x.astype(dtype) for x in (queries(rng, BATCH, count), *tokens(rng, BATCH, count))
        )
        real = np.full(BATCH, count) if counts is None else np.array(counts)
        ends = before + real
        keys = int(ends.max())
        for place, new in enumerate((k, v)):
            whole = np.zeros((*new.shape[:2], keys, new.shape[3]), dtype)
            whole[:, :, : held[place].shape[2]] = held[place]
            for row in range(BATCH):
                whole[row, :, before[row] : ends[row]] = new[row, :, : real[row]]
            held[place] = whole
        rules_now = {**rules, **structure(rng, kind, count, keys)}
        turned = [x.swapaxes(1, 2) if layout == "bshd" else x for x in (q, k, v)]
        o = cache.attend(0, *turned, counts=counts, layout=layout, **rules_now)
        o = o.swapaxes(1, 2) if layout == "bshd" else o
        expected = expect(
            q, *held, is_causal=True, q_offset=before, kv_lens=ends, **rules_now,
            **(of_cache or {}),
        )  # fmt: skip
        for row in range(BATCH):  # what is no token has no meaning
            o[row, :, real[row] :] = expected.o[row, :, real[row] :]
        expected.check(o)
        before = ends


@both
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_queries_see_what_is_named(
    isa: str,
    rng: np.random.Generator,
    make: Callable[..., Cache],
    layout: str,
    dtype: str,
    kind: str,
) -> None:
    read(make(BATCH, dtype=DTYPES[dtype], **more(make)), rng, kind, layout)


def more(make: Callable[..., Cache]) -> dict[str, Any]:
    return {"pages": 200} if make is paged else {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sinks", [0, 3])
@pytest.mark.parametrize("left", [2, 20])
def test_positions_are_those_of_the_text_whatever_a_window_dropped(
    isa: str, rng: np.random.Generator, left: int, sinks: int, kind: str
) -> None:
    cache = contiguous(BATCH, window=left, sink_tokens=sinks)
    read(cache, rng, kind, of_cache={"window": (left, -1), "sink_tokens": sinks})
    assert cache._stores[0].first.all()  # something was dropped


@both
def test_with_the_other_rules(
    isa: str, rng: np.random.Generator, make: Callable[..., Cache]
) -> None:
    rules: dict[str, Any] = {
        "window": (9, None),
        "sink_tokens": 4,
        "scale": 0.3,
        "softcap": 5.0,
        "alibi_slopes": np.linspace(0.002, 0.01, 2 * HEADS, dtype=np.float32),
        "sinks": normal(rng, (2 * HEADS,)),
    }
    read(make(BATCH, **more(make)), rng, "both", **rules)


@both
@pytest.mark.parametrize("options", [{}, {"storage": "int8"}, {"dtype": "bfloat16"}])
def test_a_row_alone_and_beside_another(
    isa: str, rng: np.random.Generator, make: Callable[..., Cache], options: dict[str, Any]
) -> None:
    """Whatever the other's length is, that of the keys that a mask names included."""
    together = make(BATCH, **more(make), **options)
    alone = [make(1, **more(make), **options) for _ in range(BATCH)]
    ends = np.zeros(BATCH, np.int64)
    for count, counts in STEPS:
        q, k, v = (
            x.astype(together.dtype)
            for x in (queries(rng, BATCH, count), *tokens(rng, BATCH, count))
        )
        real = np.full(BATCH, count) if counts is None else np.array(counts)
        ends += real
        dense = rng.random((BATCH, 1, count, int(ends.max()))) < 0.7
        begin, end = key_spans(rng, (BATCH, 1, count), int(ends.min()))
        o = together.attend(
            0, q, k, v, counts=counts, block_mask=BlockMask.from_mask(dense), key_spans=(begin, end)
        )
        for row, cache in enumerate(alone):
            one, n = slice(row, row + 1), int(real[row])
            got = cache.attend(
                0, q[one, :, :n], k[one, :, :n], v[one, :, :n],
                block_mask=BlockMask.from_mask(dense[row, :, :n, : ends[row]]),
                key_spans=(begin[one, :, :n], end[one, :, :n]),
            )  # fmt: skip
            assert_same_bits(o[one, :, :n], got)


def test_shared_by_rows_heads_and_queries(isa: str, rng: np.random.Generator) -> None:
    """One interval for all queries, and one list for all rows, of which each dropped others."""
    cache, other = (contiguous(BATCH, window=6, sink_tokens=2) for _ in range(2))
    for count, counts in ((30, [30, 20]), (1, None), (3, [3, 1])):
        q, (k, v) = queries(rng, BATCH, count), tokens(rng, BATCH, count)
        keys = int((cache.layer_lengths(0) + (count if counts is None else counts)).max())
        dense = rng.random((1, 1, count, keys)) < 0.7
        full = (BATCH, 2 * HEADS, count)
        one = cache.attend(
            0, q, k, v, counts=counts, key_spans=(1, [keys - 2]),
            block_mask=BlockMask.from_mask(dense),
        )  # fmt: skip
        each = other.attend(
            0, q, k, v, counts=counts, key_spans=(np.full(full, 1), np.full(full, keys - 2)),
            block_mask=BlockMask.from_mask(np.broadcast_to(dense, (*full, keys))),
        )  # fmt: skip
        assert_same_bits(one, each)


@pytest.mark.parametrize("name", ["contiguous", "window", "paged"])
def test_where_values_are_parts_of_keys(isa: str, rng: np.random.Generator, name: str) -> None:
    """A cache of latents beside one that holds values of their own."""
    given: dict[str, Any] = {"paged": {"pages": 40}, "window": {"window": 9}}.get(name, {})
    kind: Any = na.PagedKVCache if name == "paged" else na.KVCache
    latents = kind(1, BATCH, 1, 24, value_dim=16, shared_values=True, **given)
    plain = kind(1, BATCH, 1, 24, value_dim=16, **given)
    ends = np.zeros(BATCH, np.int64)
    for count, counts in STEPS:
        q, k = normal(rng, (BATCH, 4, count, 24)), normal(rng, (BATCH, 1, count, 24))
        ends += count if counts is None else np.array(counts)
        rules = structure(rng, "both", count, int(ends.max()))
        o = latents.attend(0, q, k, counts=counts, **rules)
        expected = plain.attend(0, q, k, k[..., :16], counts=counts, **rules)
        np.testing.assert_allclose(o, expected, rtol=1e-5, atol=1e-6)


@both
def test_through_a_layer_of_a_model(rng: np.random.Generator, make: Callable[..., Cache]) -> None:
    weights = [normal(rng, (32, 32)) / 6 for _ in range(4)]
    mha = na.MultiHeadAttention(4, *weights)
    x = normal(rng, (1, 90, 32))
    kind = na.KVCache if make is contiguous else na.PagedKVCache
    cache = kind(1, 1, 4, 8, **({} if make is contiguous else {"pages": 8}))
    mask = block_mask(rng, (1, 1, 90, 90))
    spans = key_spans(rng, (1, 1, 90), 90)
    o = [
        mha(
            x[:, rows], cache=cache.layer(0),
            key_spans=[np.minimum(end[..., rows], rows.stop) for end in spans],
            block_mask=BlockMask.from_mask(mask.to_dense()[:, :, rows, : rows.stop]),
        )
        for rows in (slice(0, 80), slice(80, 81), slice(81, 90))
    ]  # fmt: skip
    expected = mha(x, is_causal=True, block_mask=mask, key_spans=spans)
    np.testing.assert_allclose(np.concatenate(o, axis=1), expected, rtol=1e-4, atol=1e-5)


# --- guesses --------------------------------------------------------------------------------------


def paths(parents: list[int]) -> list[list[int]]:
    """Return the guesses that lead to each, itself included."""
    found: list[list[int]] = []
    for guess, parent in enumerate(parents):
        found.append([*(found[parent] if parent >= 0 else []), guess])
    return found


@both
@pytest.mark.parametrize("options", [{}, {"storage": "int8"}, {"dtype": "bfloat16"}])
@pytest.mark.parametrize("prefix", [1, 63, 200])
def test_a_tree_of_guesses(
    isa: str,
    rng: np.random.Generator,
    make: Callable[..., Cache],
    prefix: int,
    options: dict[str, Any],
) -> None:
    """Each guess sees what the branch that leads to it sees alone; one branch is kept."""
    parents, accepted = [-1, 0, 0, 1, 3, -1, 2], [0, 1, 3]
    cache, plain = (make(1, **more(make), **options) for _ in range(2))
    text = [x.astype(cache.dtype) for x in tokens(rng, 1, prefix)]
    q, k, v = (x.astype(cache.dtype) for x in (queries(rng, 1, 7), *tokens(rng, 1, 7)))
    for each in (cache, plain):
        each.append(0, *text)
        each.append(1, *text)
    tree = na.patterns.tree(parents, prefix)
    for layer in range(2):
        o = cache.attend(layer, q, k, v, block_mask=tree)
    near = {"rtol": 2e-2, "atol": 2e-2} if "dtype" in options else {"rtol": 1e-5, "atol": 1e-6}
    for guess, path in enumerate(paths(parents)):
        own = [x[:, :, path] for x in (q, k, v)]
        alone = plain.attend(0, *own)[:, :, -1]
        both_ways = (x.astype(np.float32) for x in (o[:, :, guess], alone))
        np.testing.assert_allclose(*both_ways, **near)
        plain.truncate(prefix)
    cache.truncate(prefix)
    for layer in range(2):
        cache.append(layer, k[:, :, accepted], v[:, :, accepted])
        plain.append(layer, k[:, :, accepted], v[:, :, accepted])
    q, k, v = (x.astype(cache.dtype) for x in (queries(rng, 1, 1), *tokens(rng, 1, 1)))
    for layer in range(2):
        assert_same_bits(cache.attend(layer, q, k, v), plain.attend(layer, q, k, v))


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [None, [3, 1]])
@pytest.mark.parametrize(
    "make", [contiguous, paged, lambda batch: contiguous(batch, window=4)], ids=range(3)
)
def test_what_does_not_fit(
    rng: np.random.Generator, make: Callable[..., Cache], counts: list[int] | None
) -> None:
    cache = make(BATCH)
    cache.append(0, *tokens(rng, BATCH, 20), counts=[20, 15])
    cache.attend(0, queries(rng, BATCH, 1), *tokens(rng, BATCH, 1))
    q, (k, v) = queries(rng, BATCH, 3), tokens(rng, BATCH, 3)

    def ones(*shape: int) -> BlockMask:
        return BlockMask.from_mask(np.ones(shape, bool))

    wrong: Any = np.ones((3, 24), bool)
    for given, error, message in (
        ({"block_mask": ones(3, 23)}, ValueError,
         r"block_mask of shape \(1, 1, 3, 23\) does not fit \(B, Hq, Sq, Sk\) = \(2, 4, 3, 24\)"),
        ({"block_mask": ones(2, 24)}, ValueError, r"shape \(1, 1, 2, 24\) does not fit"),
        ({"block_mask": ones(3, 3, 24)}, ValueError, r"shape \(1, 3, 3, 24\) does not fit"),
        ({"block_mask": wrong}, TypeError, "must be a numattn.BlockMask.*not ndarray"),
        ({"block_mask": [ones(3, 24)]}, TypeError, "must be a numattn.BlockMask.*not list"),
        ({"key_spans": (0, 25)}, ValueError, r"the end 25 of row \(0, 0, 0\) is not between"),
        ({"key_spans": (-1, 3)}, ValueError, r"the begin -1 of row \(0, 0, 0\)"),
        ({"key_spans": ([0, 0], 3)}, ValueError,
         r"do not broadcast to \(B, Hq, Sq\) = \(2, 4, 3\)"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            cache.attend(0, q, k, v, counts=counts, **given)
        assert cache.layer_lengths(0).tolist() == [21, 16]
    if isinstance(cache, na.PagedKVCache):
        assert cache.free_pages == 64 - 7 - 6
    cache.attend(0, q, k, v, counts=counts, block_mask=ones(3, 24), key_spans=(0, 24))
