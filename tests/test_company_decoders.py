"""A row of a decoder's batch is bitwise what it is if it is alone (test_company.py: encoders)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import numattn as na
from cases import DTYPES as ARRAY_DTYPES
from cases import normal
from numattn.cache import Cache
from numattn.models import Gpt, Llama
from numattn.models.token_lists import padded
from tiny_decoders import VOCABULARY, load, write_folder
from tolerance import assert_same_bits

DTYPES = ("float32", "bfloat16")

# --- caches ---------------------------------------------------------------------------------------

CACHES: dict[str, Callable[..., Cache]] = {
    "contiguous": na.KVCache,
    "int8": partial(na.KVCache, storage="int8"),
    "window": partial(na.KVCache, window=2500),
    "paged": partial(na.PagedKVCache, pages=500, page_size=16),
}
HELD = (2600, 30, 2400, 0, 2304, 5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("kind", CACHES)
def test_rows_of_a_cache(
    isa: str, rng: np.random.Generator, kind: str, layout: Any, dtype: str
) -> None:
    """Of contexts of many lengths, some of which are split, and of several new tokens or one."""
    slopes = np.linspace(0.1, 0.9, 2 * len(HELD)).reshape(-1, 2)
    sizes = {"layers": 1, "kv_heads": 1, "head_dim": 16, "dtype": dtype}

    def tokens(heads: int, count: int) -> NDArray[Any]:
        x = normal(rng, (len(HELD), heads, count, 16)).astype(ARRAY_DTYPES[dtype])
        return x if layout == "bhsd" else np.ascontiguousarray(x.swapaxes(1, 2))

    def part(x: NDArray[Any], row: int, count: int) -> NDArray[Any]:
        return x[row : row + 1, :count] if layout == "bshd" else x[row : row + 1, :, :count]

    cache = CACHES[kind](batch=len(HELD), **sizes)
    alone = [CACHES[kind](batch=1, **sizes) for _ in HELD]
    k, v = tokens(1, max(HELD)), tokens(1, max(HELD))
    cache.append(0, k, v, counts=HELD, layout=layout)
    for row, (own, count) in enumerate(zip(alone, HELD, strict=True)):
        own.append(0, part(k, row, count), part(v, row, count), layout=layout)
    for count, counts in (
        (20, (20, 3, 1, 9, 0, 8)),
        (1, (1, 1, 1, 1, 1, 1)),
        (2, (1, 2, 0, 1, 1, 1)),
    ):
        q, k, v = tokens(2, count), tokens(1, count), tokens(1, count)
        given: dict[str, Any] = {"layout": layout, "alibi_slopes": slopes}
        out = np.full_like(q, 7)
        o = cache.attend(0, q, k, v, counts=counts, out=out, num_threads=2, **given)
        assert o is out
        for row, own in enumerate(alone):
            new, given["alibi_slopes"] = counts[row], slopes[row : row + 1]
            expected = own.attend(0, *(part(x, row, new) for x in (q, k, v)), **given)
            assert_same_bits(part(o, row, new), expected, f"row {row}, {new} of {count} tokens")
    assert cache.lengths.tolist() == [own.lengths[0] for own in alone]


@pytest.mark.parametrize("kind", ["contiguous", "paged"])
def test_an_out_that_does_not_fit(kind: str) -> None:
    cache = CACHES[kind](layers=1, batch=2, kv_heads=1, head_dim=16)
    x = np.ones((2, 1, 5, 16), np.float32)
    for out, error in (
        (np.empty((2, 1, 6, 16), np.float32), ValueError),
        (np.empty((2, 1, 5, 16), np.float16), ValueError),
        (np.broadcast_to(np.float32(0), x.shape), ValueError),
    ):
        with pytest.raises(error, match="out"):
            cache.attend(0, x, x, x, counts=[5, 2], out=out)
        assert cache.lengths.tolist() == [0, 0]
    with pytest.raises(ValueError, match="batch size|per batch entry"):
        cache.attend(0, x[:1], x, x, counts=[5, 2])
    assert cache.lengths.tolist() == [0, 0]
    o = cache.attend(0, x, x, x, counts=[5, 2])
    assert not o[1, :, 2:].any()


# --- decoders -------------------------------------------------------------------------------------


def caches(model: Gpt | Llama, batch: int, dtype: str) -> dict[str, Cache | None]:
    return {
        "none": None,
        "contiguous": model.new_cache(batch),
        "int8": model.new_cache(batch, storage="int8"),
        "paged": model.new_paged_cache(batch, pages=60, page_size=5),
    }


@pytest.mark.parametrize(
    "family", ["llama", "gpt2", "gemma2", "phi3", "olmo2", "mixtral", "gpt_oss", "gpt_neox"]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_of_a_row(
    isa: str, tmp_path: Path, rng: np.random.Generator, family: str, dtype: str
) -> None:
    folder = write_folder(tmp_path, family)
    model = load(folder, family, dtype=dtype)
    lists = [rng.integers(0, VOCABULARY, length) for length in (2, 30, 1, 9, 4, 8)]
    rows, lengths = padded(lists, 7)
    after = rng.integers(0, VOCABULARY, (len(lists), 4))
    counts = [3, 4, 1, 0, 2, 4]  # as after guesses of several tokens
    for name, cache in caches(model, len(lists), dtype).items():
        logits = model(rows, lengths, cache=cache)
        if cache is not None:
            more = [model(after, counts, cache=cache), model(after[:, :1], cache=cache)]
        for row, ids in enumerate(lists):
            own = caches(model, 1, dtype)[name]
            assert_same_bits(logits[row, : ids.size], model([ids], cache=own)[0], name)
            if own is not None:
                count = counts[row]
                if count:
                    expected = model(after[row : row + 1, :count], cache=own)[0]
                    assert_same_bits(more[0][row, :count], expected, name)
                assert_same_bits(more[1][row], model(after[row : row + 1, :1], cache=own)[0], name)


@pytest.mark.parametrize(
    ("family", "dynamic"), [("llama", False), ("llama", True), ("gpt2", False), ("gpt_neox", False)]
)
def test_padding_goes_through_no_layer(
    tmp_path: Path, rng: np.random.Generator, family: str, dynamic: bool
) -> None:
    """Unless rows turn by frequencies for their own lengths; the real tokens have the same bits."""
    scaling = {"rope_type": "dynamic", "factor": 2.0}
    config = {"rope_scaling": scaling, "max_position_embeddings": 16} if dynamic else {}
    model = load(write_folder(tmp_path, family, config), family)
    assert model.depends_on_length == dynamic
    lists = [rng.integers(0, VOCABULARY, length) for length in (2, 30, 1, 0, 9)]
    rows, lengths = padded(lists, 7)
    alone = [model([ids])[0] for ids in lists]
    shapes: list[tuple[int, ...]] = []
    hidden, head = model._hidden, model._logits

    def noted(ids: Any, step: Any) -> Any:
        shapes.append(ids.shape)
        return hidden(ids, step)

    def noted_head(states: Any, num_threads: Any) -> Any:
        shapes.append(states.shape[:-1])
        return head(states, num_threads)

    model._hidden, model._logits = noted, noted_head  # type: ignore[method-assign]
    for cache in (None, model.new_cache(5)):
        logits = model(rows, lengths, cache=cache)
        last = model(
            rows, lengths, cache=None if cache is None else model.new_cache(5), only_last=True
        )
        for row, own in enumerate(alone):
            assert_same_bits(logits[row, : len(own)], own, str(row))
            if len(own):
                assert_same_bits(last[row], own[-1], str(row))
    left = np.arange(30) >= 30 - lengths[:, np.newaxis]  # padding on the left
    moved = np.array([np.roll(row, 30 - length) for row, length in zip(rows, lengths, strict=True)])
    for row, own in enumerate(alone):
        assert_same_bits(model(moved, attention_mask=left)[row, 30 - len(own) :], own, str(row))
    assert set(shapes) == {(5,), (5, 30) if dynamic else (1, 42)}


def test_prompts_of_a_generation(tmp_path: Path, rng: np.random.Generator) -> None:
    model = load(write_folder(tmp_path, "llama"), "llama")
    prompts = [rng.integers(0, VOCABULARY, length).tolist() for length in (2, 30, 1, 9)]
    together = model.generate(prompts, 12)
    assert together == [model.generate([prompt], 12)[0] for prompt in prompts]
