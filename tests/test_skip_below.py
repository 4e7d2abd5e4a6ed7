"""skip_below: tiles whose weights are small beside what came before are left out, and no others.

What a tile is differs from one instruction set to another. What is promised is a bound: the weights
that are left out are each below skip_below beside the largest of their row. The lse tells how much
they come to, exactly: lse − log(what is left out + what is kept).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import numattn as na
from cases import DTYPES, normal
from numattn import reference
from tolerance import assert_same_bits, expect, float32_epsilon

Array = NDArray[Any]
KEYS = 700
STRONG = 90  # fewer than any tile has but those of block masks


def peaked(
    rng: np.random.Generator, queries: int, dtype: str = "float32", heads: tuple[int, int] = (4, 2)
) -> tuple[Array, Array, Array]:
    """Return q, k, v of which the first keys have scores that are greater by 20 than the others."""
    q = normal(rng, (2, heads[0], queries, 16))
    k, v = normal(rng, (2, heads[1], KEYS, 16)), normal(rng, (2, heads[1], KEYS, 24))
    q[..., 0] = 20
    k[..., 0] = 0
    k[:, :, :STRONG, 0] = 4
    return tuple(x.astype(DTYPES[dtype]) for x in (q, k, v))  # type: ignore[return-value]


def uneven(
    rng: np.random.Generator, queries: int, heads: tuple[int, int] = (4, 2)
) -> tuple[Array, Array, Array]:
    """Return q, k, v whose scores have a standard deviation of 1 to 5, by the query."""
    q = normal(rng, (2, heads[0], queries, 16)) * (1 + np.arange(queries)[:, None] % 5)
    return q.astype(np.float32), *normal(rng, (2, 2, heads[1], KEYS, 16))


def leaves_out(q: Array, k: Array, **options: Any) -> bool:
    """Return whether the kernel can; AMX's pipeline visits every tile."""
    plan = na.plan(q.shape, k.shape, dtype=q.dtype, **options)
    return not (plan.isa == "amx" and plan.kernel in ("attend_bfloat16", "attend_high"))


@pytest.mark.parametrize("dtype", [*DTYPES])
@pytest.mark.parametrize("queries", [1, 5, 49])
def test_values_are_not_read(isa: str, dtype: str, queries: int, rng: np.random.Generator) -> None:
    q, k, v = peaked(rng, queries, dtype)
    exact = expect(q, k, v).o
    v[:, :, 400:] = np.nan
    o = na.attention(q, k, v, skip_below=1e-4).astype(np.float32)
    if not leaves_out(q, k):
        assert np.isnan(o).all(), "the docs say that all tiles are visited here"
        return
    np.testing.assert_allclose(o, exact, rtol=0, atol={"float32": 1e-4}.get(dtype, 0.1))
    assert np.isnan(na.attention(q, k, v, skip_below=1e-15).astype(np.float32)).all()


@pytest.mark.parametrize("dtype", [*DTYPES])
@pytest.mark.parametrize("queries", [1, 10])
def test_splits_know_the_first_tile(
    isa: str, dtype: str, queries: int, rng: np.random.Generator
) -> None:
    """Or a step of decoding would add what its sinks outweigh."""
    q, k, v = (
        np.tile(x, (1, 1, n, 1))
        for x, n in zip(peaked(rng, queries, dtype), (1, 4, 4), strict=True)
    )
    k[:, :, KEYS:, 0] = 0
    assert na.plan(q.shape, k.shape, dtype=q.dtype).is_split
    exact = expect(q, k, v).o
    v[:, :, 400:] = np.nan
    o = na.attention(q, k, v, skip_below=1e-4).astype(np.float32)
    if leaves_out(q, k):
        np.testing.assert_allclose(o, exact, rtol=0, atol={"float32": 1e-4}.get(dtype, 0.1))
    # And no more than their peaks: none is counted twice, none kept for the next item.
    everything = na.attention(q, k, np.ones_like(v), skip_below=1e-4).astype(np.float32)
    np.testing.assert_allclose(everything, 1, rtol=0, atol=1e-2)


@pytest.mark.parametrize("queries", [1, 3, 49])
@pytest.mark.parametrize("level", [1e-6, 1e-3, 0.02, 0.3])
@pytest.mark.parametrize("with_sinks", [False, True])
def test_the_bound(
    isa: str, queries: int, level: float, with_sinks: bool, rng: np.random.Generator
) -> None:
    q, k, v = uneven(rng, queries)
    options: dict[str, Any] = {"is_causal": True, "q_offset": KEYS - queries}
    if with_sinks:
        options["sinks"] = normal(rng, (4,))
    exact, exact_lse = reference.attention(q, k, v, return_lse=True, **options)
    o, lse = na.attention(q, k, v, return_lse=True, skip_below=level, **options)
    share = np.expm1(exact_lse - lse)  # of what is left out in what is kept
    rounding = 20 * float32_epsilon(KEYS) * (1 + abs(exact_lse))
    assert (share >= -rounding).all()
    assert (share <= KEYS * level + rounding).all()
    error = abs(o - exact).max(-1)
    assert (error <= 2 * (share.clip(0) + rounding) * abs(v).max()).all()


@pytest.mark.parametrize("queries", [1, 49])
def test_something_is_left_out(isa: str, queries: int, rng: np.random.Generator) -> None:
    """Where scores differ as much as is usual, or the bound would say nothing."""
    q, k, v = uneven(rng, queries)
    q *= 3
    plain, lse = na.attention(q, k, v, return_lse=True)
    o, less = na.attention(q, k, v, return_lse=True, skip_below=0.3)
    assert (less <= lse).all() and (less < lse).any() and (o != plain).any()


@pytest.mark.parametrize("queries", [1, 49])
def test_off_by_default(isa: str, queries: int, rng: np.random.Generator) -> None:
    q, k, v = peaked(rng, queries)
    assert_same_bits(na.attention(q, k, v, skip_below=0.0), na.attention(q, k, v))


@pytest.mark.parametrize("dtype", [*DTYPES])
@pytest.mark.parametrize(("queries", "times"), [(1, 1), (49, 1), (130, 1), (1, 4), (20, 4)])
def test_bits_follow_from_the_entry_alone(
    isa: str, dtype: str, queries: int, times: int, rng: np.random.Generator
) -> None:
    """Whatever the threads, neighbours and strides, and wherever tokens lie."""
    q, k, v = (x.astype(DTYPES[dtype]) for x in uneven(rng, queries))
    q = (q * DTYPES[dtype].type(3)).astype(q.dtype)
    keys = times * KEYS
    k, v = (np.tile(x, (1, 1, times, 1)) for x in (k, v))
    level: dict[str, Any] = {"skip_below": 0.3}
    o = na.attention(q, k, v, num_threads=1, **level)
    assert_same_bits(na.attention(q, k, v, num_threads=4, **level), o, "threads")
    alone = [na.attention(q[b : b + 1], k[b : b + 1], v[b : b + 1], **level) for b in range(2)]
    assert_same_bits(np.concatenate(alone), o, "neighbours")
    inside = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, v)]
    got = na.attention(*inside, layout="bshd", **level)
    assert_same_bits(got.swapaxes(1, 2), o, "heads inside")
    wide = [np.repeat(x, 2, -1)[..., ::2] for x in (q, k, v)]
    assert_same_bits(na.attention(*wide, **level), o, "gaps between elements")
    pages = [x.swapaxes(1, 2).reshape(2 * keys // 10, 10, 2, 16) for x in (k, v)]
    table = np.arange(2 * keys // 10, dtype=np.int32).reshape(2, -1)
    got = na.attention_paged(q, *pages, table, np.array([keys, keys]), **level)
    assert_same_bits(got, o, "pages")
    packed = [x.swapaxes(1, 2).reshape(-1, x.shape[1], x.shape[3]) for x in (q, k, v)]
    starts = [np.array([0, n, 2 * n], np.int32) for n in (queries, keys)]
    got = na.attention_varlen(*packed, *starts, **level)
    assert_same_bits(got.reshape(2, queries, 4, 16).swapaxes(1, 2), o, "one after the other")


@pytest.mark.parametrize("make", [na.KVCache, lambda *a: na.PagedKVCache(*a, pages=100)])
def test_caches(isa: str, make: Callable[..., na.Cache], rng: np.random.Generator) -> None:
    q, k, v = uneven(rng, KEYS)
    q *= 3
    cache = make(1, 2, 2, 16)
    for part in (slice(0, KEYS - 1), slice(KEYS - 1, KEYS)):
        o = cache.attend(0, q[:, :, part], k[:, :, part], v[:, :, part], skip_below=0.3)
        expected = na.attention(
            q[:, :, part], k[:, :, : part.stop], v[:, :, : part.stop], is_causal=True,
            q_offset=part.start, skip_below=0.3,
        )  # fmt: skip
        assert_same_bits(o, expected)


@pytest.mark.parametrize("queries", [1, 49])
def test_a_nan_among_scores_is_visited(isa: str, queries: int, rng: np.random.Generator) -> None:
    q, k, v = peaked(rng, queries)
    k[:, :, 500, 3] = np.nan
    assert np.isnan(na.attention(q, k, v, skip_below=1e-4)).all()
    hidden = np.arange(KEYS) != 500
    o = na.attention(q, k, v, skip_below=1e-4, mask=hidden[None])
    assert np.isfinite(o).all()


@pytest.mark.parametrize("queries", [1, 49])
def test_rows_without_keys(isa: str, queries: int, rng: np.random.Generator) -> None:
    q, k, v = peaked(rng, queries)
    options: dict[str, Any] = {"is_causal": True, "q_offset": -1, "return_lse": True}
    o, lse = na.attention(q, k, v, skip_below=0.5, **options)
    assert (o[:, :, 0] == 0).all() and (lse[:, :, 0] == -np.inf).all()
    assert np.isfinite(lse[:, :, 1:]).all()


def calls(rng: np.random.Generator) -> dict[str, Callable[[Any], Any]]:
    q, k, v = (normal(rng, (1, 2, 4, 8)) for _ in range(3))
    pages, starts = k.swapaxes(1, 2), np.array([0, 4], np.int32)
    cache = na.KVCache(1, 1, 2, 8)
    return {
        "attention": lambda s: na.attention(q, k, v, skip_below=s),
        "weights": lambda s: na.attention_weights(q, k, skip_below=s),
        "varlen": lambda s: na.attention_varlen(
            *(x[0].swapaxes(0, 1) for x in (q, k, v)), starts, starts, skip_below=s
        ),
        "paged": lambda s: na.attention_paged(
            q, pages, pages, np.zeros((1, 1), np.int32), np.array([4]), skip_below=s
        ),
        "cache": lambda s: cache.attend(0, q, k, v, skip_below=s),
        "plan": lambda s: na.plan(q.shape, k.shape, skip_below=s),
    }


@pytest.mark.parametrize("name", ["attention", "weights", "varlen", "paged", "cache", "plan"])
def test_bad_levels(name: str, rng: np.random.Generator) -> None:
    call = calls(rng)[name]
    for level, text in ((-0.1, "-0.1"), (1.0, "1"), (np.nan, "nan"), (np.inf, "inf")):
        with pytest.raises(ValueError, match=f"skip_below must be .* not {text}"):
            call(level)
    with pytest.raises(TypeError, match="skip_below must be a real number, not 'some'"):
        call("some")
    if name == "weights":
        with pytest.raises(ValueError, match="skip_below must be 0 in attention_weights"):
            call(0.1)
    else:
        call(0.1)
    call(0)
    call(np.float32(0))
