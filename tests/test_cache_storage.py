"""Caches that store smaller numbers: what they hold is what the form's function makes of tokens.

"doubled" is a form that only this file knows: a row of FORMATS is all that one takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest

import numattn as na
from caches import HEADS, LAYERS, VALUE_WIDTH, WIDTH, both, tokens
from cases import STORAGES
from numattn.cache import Cache
from numattn.quantize import FORMATS, Storage, quantize
from tolerance import assert_same_bits


def doubled(x: Any) -> tuple[Any, Any]:
    """Return 7-bit integers and scales: every second integer is left out."""
    integers, scale = quantize(x)
    return integers // 2, 2 * scale


@pytest.fixture(params=[*STORAGES, "doubled"])
def storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(FORMATS, "doubled", doubled)
    return request.param


def test_every_form_is_tried() -> None:
    assert set(FORMATS) == set(STORAGES) == set(get_args(get_args(Storage)[0]))


def held(cache: Cache, layer: int) -> list[dict[str, Any]]:
    """Return what each row holds, k (H, n, D) and so on, by an append of nothing."""
    k = np.empty((cache.batch, HEADS, 0, WIDTH), cache.dtype)
    got = cache.append(layer, k, k[..., :VALUE_WIDTH])._asdict()
    if isinstance(cache, na.KVCache):
        rows = [{n: got[n][b] for n in ("k", "v", "k_scale", "v_scale")} for b in range(len(k))]
    else:
        pools = {n: got[n] for n in ("k_scale", "v_scale")}
        pools |= {"k": got["k_pages"], "v": got["v_pages"]}
        rows = [
            {n: p[table].reshape(-1, *p.shape[2:]).swapaxes(0, 1) for n, p in pools.items()}
            for table in got["block_table"]
        ]
    return [
        {n: array[:, :length].copy() for n, array in row.items()}
        for row, length in zip(rows, got["kv_lens"], strict=True)
    ]


@both
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rows_hold_the_numbers_of_their_tokens(
    make: Callable[..., Cache], storage: Any, dtype: str, rng: np.random.Generator
) -> None:
    cache = make(2, storage=storage, dtype=dtype)
    k, v = (x.astype(cache.dtype) for x in tokens(rng, 2, 9))
    for layer in range(LAYERS):
        cache.append(layer, k[:, :, :4], v[:, :, :4], counts=[4, 2])
        cache.append(layer, k[:, :, 4:], v[:, :, 4:])
    cache.fork([1, 0, 1])
    cache.truncate([7, 8, 3])
    order = [[0, 1, 4, 5, 6, 7, 8], [0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 4]]
    for row, (source, kept) in enumerate(zip([1, 0, 1], order, strict=True)):
        got = held(cache, 1)[row]
        for name, x in (("k", k), ("v", v)):
            numbers, scale = FORMATS[storage](x[source][:, kept])
            assert_same_bits(got[name], numbers)
            assert_same_bits(got[f"{name}_scale"], scale)


@both
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_steps_attend_to_the_numbers(
    isa: str, make: Callable[..., Cache], storage: Any, layout: Any, rng: np.random.Generator
) -> None:
    cache = make(2, storage=storage)
    k, v = tokens(rng, 2, 6)
    q = rng.standard_normal((2, 2 * HEADS, 6, WIDTH), np.float32)
    (k8, k_scale), (v8, v_scale) = FORMATS[storage](k), FORMATS[storage](v)
    for first, last in ((0, 4), (4, 5), (5, 6)):
        part = [x[:, :, first:last] for x in (q, k, v)]
        if layout == "bshd":
            part = [x.swapaxes(1, 2) for x in part]
        o = cache.attend(0, *part, layout=layout)
        expected = na.attention(
            q[:, :, first:last], k8[:, :, :last], v8[:, :, :last], is_causal=True, q_offset=first,
            k_scale=k_scale[:, :, :last], v_scale=v_scale[:, :, :last],
        )  # fmt: skip
        assert_same_bits(o if layout == "bhsd" else o.swapaxes(1, 2), expected)


@both
def test_a_shared_page_or_row_is_copied_with_its_scales(
    make: Callable[..., Cache], storage: Any, rng: np.random.Generator
) -> None:
    cache = make(1, storage=storage)
    for layer in range(LAYERS):
        cache.append(layer, *tokens(rng, 1, 5))
    before = held(cache, 0)[0]
    cache.fork([0, 0])
    cache.append(0, *tokens(rng, 2, 1))
    first, second = held(cache, 0)
    for name, array in before.items():
        assert_same_bits(first[name][:, :5], array)
        assert_same_bits(second[name][:, :5], array)
        assert (first[name][:, 5] != second[name][:, 5]).any()


def test_a_quarter_of_the_memory() -> None:
    """And 4 bytes of scale for each token and head, of keys and of values."""
    sizes: dict[str, Any] = {"layers": 1, "batch": 1, "kv_heads": 2, "head_dim": 64}
    whole = na.PagedKVCache(**sizes, pages=10).nbytes
    assert na.PagedKVCache(**sizes, pages=10, storage="int8").nbytes == whole / 4 + 160 * 2 * 2 * 4
    k = np.ones((1, 2, 160, 64), np.float32)
    cache = na.KVCache(**sizes, storage="int8")
    cache.append(0, k, k)
    assert cache.nbytes == whole / 4 + 160 * 2 * 2 * 4


@both
@pytest.mark.parametrize("other", ["int4", "", 8, ["int8"]])
def test_other_storage_is_refused(make: Callable[..., Cache], other: Any) -> None:
    with pytest.raises(
        ValueError, match=f"storage must be None or 'int8', not {re.escape(repr(other))}"
    ):
        make(1, storage=other)
