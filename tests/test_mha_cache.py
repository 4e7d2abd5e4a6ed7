"""`MultiHeadAttention` over a cache, and over a context that was projected before."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal
from numattn.cache import Cache
from numattn.position import Rope
from test_mha import SIZES, assert_close, weights
from test_mha_rope import ROPES, TRAINED
from tolerance import assert_same_bits

LENGTH = 40
CUTS = {
    "steps": range(LENGTH + 1),
    "chunks": range(0, LENGTH + 1, 8),
    "both": [0, 21, *range(30, 41)],
}
# Of ‖y‖: two orders of the same float32 sums. Attention's differ by the tolerance of attention
# for 40 keys, 8e-7; the projections' are the same, or end in the same rounding of 6e-8.
SAME = 1e-6


def module(rng: np.random.Generator, size: str = "grouped", **options: Any) -> Any:
    return na.MultiHeadAttention(**weights(rng, size, True), **options)


def cache_of(
    kind: str, batch: int, size: str = "grouped", layers: int = 1, **options: Any
) -> Cache:
    _, _, kv_heads, dim, value_dim, _ = SIZES[size]
    sizes = {"kv_heads": kv_heads, "head_dim": dim, "value_dim": value_dim, **options}
    if kind == "paged":
        return na.PagedKVCache(layers, batch, pages=60, page_size=3, **sizes)
    return na.KVCache(layers, batch, **sizes)


both = pytest.mark.parametrize("kind", ["contiguous", "paged"])


def in_parts(mha: Any, x: Any, cache: Any, cuts: Any, **options: Any) -> Any:
    parts = zip(cuts, list(cuts)[1:], strict=False)
    return np.concatenate(
        [mha(x[..., start:end, :], cache=cache, **options) for start, end in parts], axis=-2
    )


@both
@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("rope", [None, *(name for name in ROPES if "long" not in name)])
def test_parts_are_as_the_whole(
    isa: str, rng: np.random.Generator, rope: str | None, cuts: str, kind: str
) -> None:
    if rope == "dynamic":  # which depends on the length of what was read: within the trained one
        scaling = {**ROPES[rope]["scaling"], "max_position_embeddings": LENGTH}
        turned = Rope(16, scaling=scaling)
    else:
        turned = None if rope is None else Rope(16, **ROPES[rope])
    mha, x = module(rng, rope=turned), normal(rng, (2, LENGTH, 64))
    whole, cache = mha(x, is_causal=True), cache_of(kind, 2)
    y = in_parts(mha, x, cache, CUTS[cuts])
    assert y.dtype == np.float32 and y.shape == whole.shape
    assert np.linalg.norm(y - whole) <= SAME * np.linalg.norm(whole)
    assert cache.lengths.tolist() == [LENGTH] * 2


@both
def test_the_same_chunks_give_the_same_bits(isa: str, rng: np.random.Generator, kind: str) -> None:
    mha, x = module(rng, rope=Rope(16)), normal(rng, (2, LENGTH, 64))
    for cuts in CUTS.values():
        expected = in_parts(mha, x, cache_of(kind, 2), cuts, num_threads=1)
        for num_threads in (1, 2, 3, None):
            got = in_parts(mha, x, cache_of(kind, 2), cuts, num_threads=num_threads)
            assert_same_bits(got, expected)


@both
@pytest.mark.parametrize("size", ["plain", "one_kv_head", "other_value_size"])
def test_heads_of_any_size(isa: str, rng: np.random.Generator, size: str, kind: str) -> None:
    mha, x = module(rng, size), normal(rng, (3, LENGTH, SIZES[size][0]))
    y = in_parts(mha, x, cache_of(kind, 3, size), CUTS["both"])
    assert_close(y, mha(x, is_causal=True).astype(np.float64), size)


@both
@pytest.mark.parametrize(
    "options",
    [
        {"window": (6, None)},
        {"scale": 0.1, "softcap": 2.0},
        {"alibi_slopes": np.linspace(0.1, 0.5, 8, dtype=np.float32)},
        {"sinks": np.linspace(-1, 1, 8, dtype=np.float32)},
    ],
    ids=lambda options: "+".join(options),
)
def test_score_arguments_reach_the_cache(
    isa: str, rng: np.random.Generator, options: dict[str, Any], kind: str
) -> None:
    mha, x = module(rng, rope=Rope(16)), normal(rng, (2, LENGTH, 64))
    y = in_parts(mha, x, cache_of(kind, 2), CUTS["both"], **options)
    whole = mha(x, is_causal=True, **options)
    assert np.linalg.norm(y - whole) <= SAME * np.linalg.norm(whole)
    assert np.linalg.norm(whole - mha(x, is_causal=True)) > 0.01 * np.linalg.norm(whole)


def test_the_window_is_the_layer_s_own(isa: str, rng: np.random.Generator) -> None:
    mha, x = module(rng, rope=Rope(16)), normal(rng, (2, LENGTH, 64))
    cache = cache_of("contiguous", 2, window=4)
    y = in_parts(mha, x, cache, CUTS["steps"])
    whole = mha(x, is_causal=True, window=(4, None))
    assert np.linalg.norm(y - whole) <= SAME * np.linalg.norm(whole)


@both
def test_layers_of_one_cache(isa: str, rng: np.random.Generator, kind: str) -> None:
    """Two modules, one after the other at each step, as a decoder's."""
    first, second = (module(rng, rope=Rope(16)) for _ in range(2))
    x, cache = normal(rng, (2, LENGTH, 64)), cache_of(kind, 2, layers=2)
    parts = []
    for token in range(LENGTH):
        y = first(x[:, token : token + 1], cache=cache.layer(0))
        assert cache.lengths.tolist() == [token] * 2
        parts.append(second(y, cache=cache.layer(1)))
    whole = second(first(x, is_causal=True), is_causal=True)
    assert np.linalg.norm(np.concatenate(parts, axis=1) - whole) <= SAME * np.linalg.norm(whole)


@both
@pytest.mark.parametrize("rope", ["plain", "dynamic", "longrope_partial_interleaved"])
def test_rows_go_on_from_lengths_of_their_own(
    isa: str, rng: np.random.Generator, rope: str, kind: str
) -> None:
    """Turned by the positions, and for the length, of each row."""
    mha, x = module(rng, rope=Rope(16, **ROPES[rope])), normal(rng, (2, LENGTH, 64))
    short = TRAINED - 5
    cache = cache_of(kind, 2)
    mha(x[:, : TRAINED + 4], cache=cache)
    cache.truncate([TRAINED + 4, short])
    together = mha(x[:, -2:], cache=cache)
    for row, length in enumerate([TRAINED + 4, short]):
        alone = cache_of(kind, 1)
        mha(x[row : row + 1, : TRAINED + 4], cache=alone)
        alone.truncate(length)
        y = mha(x[row : row + 1, -2:], cache=alone)[0]
        assert np.linalg.norm(together[row] - y) <= SAME * np.linalg.norm(y)


@both
def test_a_row_without_a_batch(isa: str, rng: np.random.Generator, kind: str) -> None:
    mha, x = module(rng, rope=Rope(16)), normal(rng, (1, LENGTH, 64))
    expected = in_parts(mha, x, cache_of(kind, 1), CUTS["both"])
    assert_same_bits(in_parts(mha, x[0], cache_of(kind, 1), CUTS["both"]), expected[0])


@both
@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_in_bfloat16(isa: str, rng: np.random.Generator, dtype: str, kind: str) -> None:
    """Keys and values are bfloat16 whatever x is, and the cache holds that."""
    mha = module(rng, rope=Rope(16), dtype="bfloat16")
    x = normal(rng, (2, LENGTH, 64), dtype)
    cache = cache_of(kind, 2, dtype="bfloat16")
    y, whole = in_parts(mha, x, cache, CUTS["both"]), mha(x, is_causal=True)
    assert y.dtype == x.dtype
    difference = y.astype(np.float64) - whole.astype(np.float64)
    # Some sums of another order fall on the other side of a rounding.
    assert np.linalg.norm(difference) <= 2.0**-9 * np.linalg.norm(whole.astype(np.float64))


@both
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_inputs_of_16_bits(isa: str, rng: np.random.Generator, dtype: str, kind: str) -> None:
    mha, x = module(rng), normal(rng, (2, LENGTH, 64), dtype)
    y = in_parts(mha, x, cache_of(kind, 2, dtype=x.dtype), CUTS["chunks"])
    whole = mha(x, is_causal=True)
    assert y.dtype == x.dtype
    difference = y.astype(np.float64) - whole.astype(np.float64)
    unit = 2.0**-11 if dtype == "float16" else 2.0**-9
    assert np.linalg.norm(difference) <= unit * np.linalg.norm(whole.astype(np.float64))


# --- errors ---------------------------------------------------------------------------------------

X = np.zeros((2, 3, 64), np.float32)


@both
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"context": X}, "context"),
        ({"mask": np.ones((3, 3), bool)}, "mask"),
        ({"bias": np.zeros((3, 3), np.float32)}, "bias"),
        ({"q_offset": 1}, "q_offset"),
        ({"q_offset": [0, 0]}, "q_offset"),
        ({"kv_lens": [1, 2]}, "kv_lens"),
        ({"return_weights": True}, "return_weights"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_given_with_a_cache(
    rng: np.random.Generator, options: dict[str, Any], named: str, kind: str
) -> None:
    cache = cache_of(kind, 2)
    with pytest.raises(ValueError, match=f"{named} cannot be given with a cache: x continues"):
        module(rng)(X, cache=cache, **options)
    assert cache.lengths.tolist() == [0, 0]


@both
@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ({"kv_heads": 4}, ValueError, "cache has kv_heads 4, and this call 2"),
        ({"head_dim": 8}, ValueError, "cache has head_dim 8, and this call 16"),
        ({"value_dim": 8}, ValueError, "cache has value_dim 8, and this call 16"),
        ({"layers": 2}, ValueError, r"cache has 2 layers: give one, cache.layer\(i\)"),
        ({"dtype": np.float16}, TypeError,
         "this call are float32, but the cache holds float16: make the cache with dtype='float32'"),
        ({"max_length": 2}, ValueError, r"at most 2 tokens a row \(max_length\), and row 0 would"),
    ],
)  # fmt: skip
def test_a_cache_that_does_not_fit(
    rng: np.random.Generator,
    sizes: dict[str, Any],
    error: type[Exception],
    message: str,
    kind: str,
) -> None:
    cache = cache_of(kind, 2, **sizes)
    with pytest.raises(error, match=message):
        module(rng)(X, cache=cache)
    assert cache.lengths.tolist() == [0, 0]


def test_a_cache_of_other_rows_or_of_another_kind(rng: np.random.Generator) -> None:
    mha = module(rng)
    with pytest.raises(ValueError, match="cache has batch 3, and this call 2"):
        mha(X, cache=cache_of("paged", 3))
    with pytest.raises(ValueError, match="cache has batch 2, and this call 1"):
        mha(X[0], cache=cache_of("paged", 2))
    with pytest.raises(
        TypeError, match="cache must be a layer of a KVCache or PagedKVCache, not d"
    ):
        mha(X, cache={})
    with pytest.raises(ValueError, match="layer must be in 0 … 0, not 1"):
        cache_of("paged", 2).layer(1)
    with pytest.raises(TypeError, match="float64"):
        mha(X.astype(np.float64), cache=cache_of("paged", 2))


@both
def test_after_an_error_the_cache_is_as_it_was(rng: np.random.Generator, kind: str) -> None:
    mha, x = module(rng, rope=Rope(16)), normal(rng, (2, 7, 64))
    cache, other = (cache_of(kind, 2, max_length=9) for _ in range(2))
    for each in (cache, other):
        mha(x, cache=each)
    with pytest.raises(ValueError, match="max_length"):
        mha(x, cache=cache)
    with pytest.raises(ValueError, match="scale"):
        mha(x[:, :1], cache=cache, scale=float("nan"))
    with pytest.raises(ValueError, match="features"):
        mha(x[:, :1, :63], cache=cache)
    assert cache.lengths.tolist() == [7, 7]
    assert_same_bits(mha(x[:, :1], cache=cache), mha(x[:, :1], cache=other))


@both
def test_after_a_failed_output_projection_too(
    rng: np.random.Generator, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step of a call, when the cache has the new tokens already."""
    mha, x = module(rng), normal(rng, (2, 7, 64))
    cache = cache_of(kind, 2, layers=2)
    mha(x[:, :2], cache=cache.layer(0))
    mha(x[:, :2], cache=cache.layer(1))
    free = getattr(cache, "free_pages", None)

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mha, "_join", fail)
        with pytest.raises(KeyboardInterrupt):
            mha(x, cache=cache.layer(0))
    assert cache.layer_lengths(0).tolist() == cache.layer_lengths(1).tolist() == [2, 2]
    assert getattr(cache, "free_pages", None) == free
    again = cache_of(kind, 2)
    mha(x[:, :2], cache=again)
    assert_same_bits(mha(x, cache=cache.layer(0)), mha(x, cache=again))


def test_pages_that_run_out(rng: np.random.Generator) -> None:
    mha, x = module(rng), normal(rng, (2, 7, 64))
    cache = na.PagedKVCache(1, 2, 2, 16, pages=5, page_size=3)
    mha(x[:, :4], cache=cache)
    with pytest.raises(MemoryError, match="4 more are needed, and 1 of 5 are free"):
        mha(x, cache=cache)
    assert cache.lengths.tolist() == [4, 4] and cache.free_pages == 1


# --- a context projected before ------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}])
@pytest.mark.parametrize("size", ["grouped", "other_value_size", "other_context"])
def test_a_projected_context_is_as_the_context(
    isa: str, rng: np.random.Generator, size: str, options: dict[str, Any]
) -> None:
    mha = module(rng, size, **options)
    x = normal(rng, (2, 5, SIZES[size][0]))
    context = normal(rng, (2, 9, SIZES[size][5]))
    source = mha.project_context(context, num_threads=1)
    assert source.k.dtype == (ml_dtypes.bfloat16 if options else np.float32)
    score = {"kv_lens": [4, 9], "softcap": 3.0}
    for _ in range(2):
        y, attended = mha(x, source, **score, return_weights=True)
        expected = mha(x, context, **score, return_weights=True)
        assert_same_bits(y, expected[0])
        assert_same_bits(attended, expected[1])
    alone = mha(x[0], mha.project_context(context[0]))
    assert_same_bits(alone, mha(x[0], context[0]))


def test_a_context_that_cannot_be_projected(rng: np.random.Generator) -> None:
    mha = module(rng)
    with pytest.raises(ValueError, match=r"context must have shape \(B, S, E\) or \(S, E\), not"):
        mha.project_context(np.zeros(64, np.float32))
    with pytest.raises(ValueError, match="64 features"):
        mha.project_context(np.zeros((3, 63), np.float32))
    with pytest.raises(TypeError, match="float64"):
        mha.project_context(np.zeros((3, 64)))
    with pytest.raises(ValueError, match="context cannot be given with a cache"):
        mha(X, mha.project_context(X), cache=cache_of("contiguous", 2))


@both
def test_terms_by_distance_reach_the_cache(isa: str, rng: np.random.Generator, kind: str) -> None:
    """Memories of Transformer-XL: the keys that the cache has, at distances that go on growing."""
    _, heads, _, dim, _, _ = SIZES["grouped"]
    terms = na.position.transformer_xl(
        normal(rng, (heads, LENGTH, dim)), normal(rng, (heads, dim)), normal(rng, (heads, dim))
    )
    mha, x = module(rng), normal(rng, (2, LENGTH, SIZES["grouped"][0]))
    whole = mha(x, is_causal=True, relative=terms)
    parts = in_parts(mha, x, cache_of(kind, 2), CUTS["both"], relative=terms)
    assert np.linalg.norm(parts - whole) <= SAME * np.linalg.norm(whole)
    assert np.linalg.norm(mha(x, is_causal=True) - whole) > 0.01 * np.linalg.norm(whole)
