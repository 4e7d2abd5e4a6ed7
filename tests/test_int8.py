"""Keys and values as 8-bit integers: exact on what they stand for, near what they were."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal
from numattn import reference
from tolerance import assert_same_bits, expect


def quantized(rng: np.random.Generator, batch: int, heads: int, keys: int) -> dict[str, Any]:
    k, k_scale = na.quantize(normal(rng, (batch, heads, keys, 40)))
    v, v_scale = na.quantize(normal(rng, (batch, heads, keys, 24)))
    return {"k": k, "v": v, "k_scale": k_scale, "v_scale": v_scale}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("queries", [1, 3, 60])
@pytest.mark.parametrize("keys", [1, 95, 97, 2500])
def test_integers_are_what_they_stand_for(
    isa: str, rng: np.random.Generator, keys: int, queries: int, dtype: str
) -> None:
    q = normal(rng, (2, 6, queries, 40)).astype(DTYPES[dtype])
    held = quantized(rng, 2, 2, keys)
    options: dict[str, Any] = {"is_causal": True, "q_offset": keys - queries}
    k, v = (
        held[name].astype(np.float64) * held[f"{name}_scale"].astype(np.float64)[..., None]
        for name in "kv"
    )
    expect(q, k, v, **options).check(*na.attention(q, **held, **options, return_lse=True))
    np.testing.assert_allclose(
        reference.attention(q, **held, **options), reference.attention(q, k, v, **options)
    )


def test_layouts_strides_and_threads_change_no_bit(isa: str, rng: np.random.Generator) -> None:
    q, held = normal(rng, (2, 6, 2, 40)), quantized(rng, 2, 2, 2500)
    expected = na.attention(q, **held, num_threads=1)
    swapped = {name: np.ascontiguousarray(x.swapaxes(1, 2)) for name, x in held.items()}
    o = na.attention(q.swapaxes(1, 2), **swapped, layout="bshd", num_threads=3)
    assert_same_bits(o.swapaxes(1, 2), expected)
    spread = {name: np.repeat(x, 2, axis=2)[:, :, ::2] for name, x in held.items()}
    assert_same_bits(na.attention(q, **spread), expected)


@pytest.mark.parametrize("queries", [1, 40])
def test_pages_of_integers(isa: str, rng: np.random.Generator, queries: int) -> None:
    q, held = normal(rng, (2, 6, queries, 40)), quantized(rng, 2, 2, 96)
    pages = {
        name: np.ascontiguousarray(x.swapaxes(1, 2)).reshape(12, 16, *x.swapaxes(1, 2).shape[2:])
        for name, x in held.items()
    }
    order = rng.permutation(12)
    shuffled = {name: x[order] for name, x in pages.items()}
    table = np.argsort(order).reshape(2, 6)
    o = na.attention_paged(
        q, shuffled["k"], shuffled["v"], table, [96, 50],
        k_scale=shuffled["k_scale"], v_scale=shuffled["v_scale"],
    )  # fmt: skip
    cut = {name: x[1:, :, :50] for name, x in held.items()}
    assert_same_bits(o[:1], na.attention(q[:1], **{name: x[:1] for name, x in held.items()}))
    assert_same_bits(o[1:], na.attention(q[1:], **cut))


@pytest.mark.parametrize("queries", [1, 20])
def test_a_hidden_nan_scale_reaches_nobody(
    isa: str, rng: np.random.Generator, queries: int
) -> None:
    """A token whose scale is NaN is NaN: rows that see it are, others are as without it."""
    q, held = normal(rng, (1, 2, queries + 1, 40)), quantized(rng, 1, 2, 80)
    options: dict[str, Any] = {"is_causal": True, "q_offset": 79 - queries}
    expected = na.attention(q, **held, **options)
    for name in ("k_scale", "v_scale"):
        spoilt = dict(held, **{name: held[name].copy()})
        spoilt[name][..., 79] = np.nan
        o = na.attention(q, **spoilt, **options)
        assert_same_bits(o[:, :, :-1], expected[:, :, :-1])
        assert np.isnan(o[:, :, -1]).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_quantize_errs_by_half_a_step(rng: np.random.Generator, dtype: str) -> None:
    x = (normal(rng, (3, 5, 33)) * 10.0 ** rng.integers(-4, 4, (3, 5, 1))).astype(DTYPES[dtype])
    integers, scale = na.quantize(x)
    assert integers.dtype == np.int8 and scale.dtype == np.float32
    assert np.abs(integers.astype(int)).max(axis=-1).min() == 127 == np.abs(integers).max()
    numbers = x.astype(np.float64)
    error = np.abs(integers * scale[..., None].astype(np.float64) - numbers)
    # Half a step, and the rounding of three float32 operations.
    limit = np.abs(numbers).max(axis=-1, keepdims=True) / 254 * (1 + 254 * 3 * 2.0**-24)
    assert (error <= limit).all()


def test_quantize_extremes() -> None:
    rows = [[0, 0], [1e-36, -1e-36], [3e38, -3e38], [np.inf, 1], [np.nan, 1]]
    integers, scale = na.quantize(np.array(rows, np.float32))
    assert integers.tolist() == [[0, 0], [127, -127], [127, -127], [0, 0], [0, 0]]
    assert np.isnan(scale).tolist() == [False, False, False, True, True]
    assert scale[0] == 0 and scale[2] == np.float32(3e38) / np.float32(127)
    assert na.quantize(np.empty((2, 0), np.float32))[1].tolist() == [0, 0]


def test_quantize_near_zero() -> None:
    """Whole numbers of the least number above 0, by which a scale is rounded to such a number.

    Of up to 127 the scale is 1, so that no element errs; of more, the least that 127 of reach.
    """
    peaks = np.concatenate([np.arange(1, 3000), 2 ** np.arange(12, 24) - 1])
    units = np.stack([peaks, -peaks, peaks // 2, peaks // 127], axis=1)
    least = np.float32(2.0**-149)
    integers, scale = na.quantize((units * 2.0**-149).astype(np.float32))
    steps = (scale / least).astype(np.int64)
    assert np.abs(integers.astype(int)).max() == 127
    assert (steps >= 1).all()
    assert (integers[:127] == units[:127]).all() and (steps[:127] == 1).all()
    assert (np.abs(integers.astype(np.int64) * steps[:, None] - units) <= steps[:, None] / 2).all()
    assert (steps < peaks / 127 + 1).all()


def test_attention_errs_as_the_integers_do(isa: str, rng: np.random.Generator) -> None:
    """On unit-normal data the result is within 1 % of the unquantized one's norm.

    A step is max |x| / 127, some 2.5 / 127 here, and its rounding has a standard deviation of
    step / sqrt(12) = 0.6 % of the values' own; the keys' adds as much once more by the weights.
    """
    q, k, v = (normal(rng, (1, 4, n, 64)) for n in (2, 1000, 1000))
    (k8, k_scale), (v8, v_scale) = na.quantize(k), na.quantize(v)
    o = na.attention(q, k8, v8, k_scale=k_scale, v_scale=v_scale)
    expected = reference.attention(q, k, v)
    error = np.linalg.norm(o - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < 1e-2


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"k_scale": None}, ValueError, "k_scale is missing"),
        ({"k_scale": None, "v_scale": None}, TypeError, "k has dtype int8, which needs k_scale"),
        ({"v": np.ones((1, 2, 9, 24), np.float32)}, TypeError, "v_scale is for v of dtype int8"),
        (
            {"v_scale": np.ones((1, 2, 8), np.float32)},
            ValueError,
            r"v_scale must have shape",
        ),
        ({"k_scale": np.ones((1, 2, 9))}, TypeError, "k_scale is float64"),
        ({"k_scale": np.ones((1, 2, 9), np.float16)}, TypeError, "k_scale must be float32"),
        ({"q": np.ones((1, 2, 1, 40), np.int8)}, TypeError, "q has dtype int8"),
    ],
)
def test_refusals(
    rng: np.random.Generator, change: dict[str, Any], kind: type[Exception], message: str
) -> None:
    arguments = {"q": normal(rng, (1, 2, 1, 40)), **quantized(rng, 1, 2, 9)}
    na.attention(**arguments)
    with pytest.raises(kind, match=message):
        na.attention(**(arguments | change))


def test_integers_where_no_scales_are_taken(rng: np.random.Generator) -> None:
    """The message advises no argument that the function does not have."""
    q, k = normal(rng, (1, 2, 5, 40)), np.ones((1, 2, 5, 40), np.int8)
    starts = [0, 2]
    for call in (
        lambda: na.attention_weights(q, k),
        lambda: na.attention_varlen(q[0], k[0], k[0], starts, starts),
        lambda: na.attention_varlen(q[0], q[0], k[0], starts, starts),
    ):
        with pytest.raises(TypeError, match="^[kv] has dtype int8; it must be float32") as caught:
            call()
        assert "scale" not in str(caught.value)


def test_pages_are_named_as_the_caller_names_them(rng: np.random.Generator) -> None:
    q, k = normal(rng, (1, 2, 5, 40)), np.ones((1, 2, 5, 40), np.int8)
    scale = np.ones((1, 2, 5), np.float32)
    with pytest.raises(TypeError, match="^k_pages has dtype int8, which needs k_scale and v_scale"):
        na.attention_paged(q, k, k, [[0]], [1])
    with pytest.raises(TypeError, match="^v_scale is for v_pages of dtype int8, not float32"):
        na.attention_paged(q, k, k.astype(np.float32), [[0]], [1], k_scale=scale, v_scale=scale)
    with pytest.raises(TypeError, match="^q, k_pages and v_pages must have one dtype, not float32"):
        na.attention_paged(q, k.astype(np.float16), k.astype(np.float16), [[0]], [1])


@pytest.mark.parametrize("bad", [np.ones(3), np.ones(3, np.int32)])
def test_quantize_wants_floats(bad: Any) -> None:
    with pytest.raises(TypeError, match="x must be float32, float16 or bfloat16, not"):
        na.quantize(bad)
    with pytest.raises(ValueError, match=r"x must have at least one axis"):
        na.quantize(np.float32(1))


def test_bfloat16_queries_keep_their_dtype(rng: np.random.Generator) -> None:
    q = normal(rng, (1, 2, 1, 40)).astype(ml_dtypes.bfloat16)
    assert na.attention(q, **quantized(rng, 1, 2, 9)).dtype == q.dtype
