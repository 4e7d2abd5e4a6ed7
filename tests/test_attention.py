"""`attention` against the reference: pairs of axis values, long inputs, and the small print."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, LENGTHS, Case, normal, pairwise_cases, unit_inputs
from numattn import reference
from tolerance import assert_same_bits, expect


@pytest.mark.parametrize("case", pairwise_cases(), ids=str)
def test_every_pair_of_axis_values(isa: str, case: Case) -> None:
    q, k, v, options = case.inputs()
    expect(q, k, v, **options).check(*na.attention(q, k, v, return_lse=True, **options))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(
    ("heads", "lengths", "dims"),
    [
        ((1, 2, 2), (700, 1100), (64, 64)),
        ((2, 4, 1), (130, 513), (128, 128)),
        ((1, 1, 1), (1000, 1000), (40, 72)),
        ((1, 1, 1), (97, 2111), (256, 16)),
    ],
)
def test_many_blocks(
    isa: str,
    rng: np.random.Generator,
    heads: tuple[int, int, int],
    lengths: tuple[int, int],
    dims: tuple[int, int],
    is_causal: bool,
    dtype: str,
) -> None:
    q, k, v = unit_inputs(rng, heads, lengths, dims, dtype)
    options = {"is_causal": is_causal, "q_offset": lengths[1] - lengths[0]}
    expect(q, k, v, **options).check(*na.attention(q, k, v, return_lse=True, **options))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("query_len", [1, 2, 5])
@pytest.mark.parametrize("heads", [(1, 8, 8), (2, 8, 2), (1, 6, 1)])
def test_decode(
    isa: str,
    rng: np.random.Generator,
    heads: tuple[int, int, int],
    query_len: int,
    dtype: str,
) -> None:
    key_len = 4099
    q, k, v = unit_inputs(rng, heads, (query_len, key_len), (64, 64), dtype)
    options = {
        "is_causal": True,
        "q_offset": key_len - query_len - 10,
        "kv_lens": np.array([key_len - 5, 777][: heads[0]]),
    }
    expect(q, k, v, **options).check(*na.attention(q, k, v, return_lse=True, **options))


@pytest.mark.parametrize("key_len", LENGTHS)
def test_one_query_per_key_length(isa: str, rng: np.random.Generator, key_len: int) -> None:
    q, k, v = unit_inputs(rng, (1, 4, 2), (1, key_len), (33, 31))
    expect(q, k, v).check(*na.attention(q, k, v, return_lse=True))


def test_window_in_long_input(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 2), (1500, 1500), (32, 32))
    for window in [(100, 0), (64, 64), (None, 30), (511, -1)]:
        expect(q, k, v, window=window).check(*na.attention(q, k, v, window=window, return_lse=True))


def test_alibi_with_the_slopes_of_the_paper(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (2, 8, 8), (300, 300), (32, 32))
    slopes = 2.0 ** -np.arange(1, 9, dtype=np.float32)
    options = {"alibi_slopes": slopes, "is_causal": True}
    expect(q, k, v, **options).check(*na.attention(q, k, v, return_lse=True, **options))


def test_scale_is_one_over_the_root_of_the_head_size(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 2), (20, 30), (25, 16))
    assert_same_bits(na.attention(q, k, v), na.attention(q, k, v, scale=0.2))
    # Weights that do not depend on the scores: each row is the mean of the values.
    mean = v.mean(axis=2, keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(
        na.attention(q, k, v, scale=0.0), np.broadcast_to(mean, (1, 2, 20, 16)), atol=1e-6
    )


def test_query_head_reads_the_key_head_of_its_group(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (1, 6, 2), (9, 11))
    k_shared, v_shared = k[:, [0, 0, 0, 1, 1, 1]], v[:, [0, 0, 0, 1, 1, 1]]
    expect(q, k_shared, v_shared).check(na.attention(q, k, v))


@pytest.mark.parametrize("dtype", DTYPES)
def test_three_dimensions_are_one_batch_entry(
    isa: str, rng: np.random.Generator, dtype: str
) -> None:
    q, k, v = unit_inputs(rng, (1, 4, 2), (18, 35), (24, 20), dtype)
    o, lse = na.attention(q, k, v, return_lse=True)
    o3, lse3 = na.attention(q[0], k[0], v[0], return_lse=True)
    assert_same_bits(o3, o[0])
    assert_same_bits(lse3, lse[0])


def test_layout_bshd_returns_bshd_and_lse_by_head(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (2, 4, 2), (18, 35), (24, 20))
    o, lse = na.attention(q, k, v, return_lse=True)
    by_token = [x.swapaxes(1, 2) for x in (q, k, v)]
    o_by_token, lse_by_token = na.attention(*by_token, layout="bshd", return_lse=True)
    assert o_by_token.shape == (2, 18, 4, 20)
    assert_same_bits(o_by_token.swapaxes(1, 2), o)
    assert_same_bits(lse_by_token, lse)
    o3 = na.attention(*(x[0] for x in by_token), layout="bshd")
    assert_same_bits(o3.swapaxes(0, 1), o[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_out_of_any_strides_receives_the_result(
    isa: str, rng: np.random.Generator, dtype: str
) -> None:
    q, k, v = unit_inputs(rng, (2, 3, 3), (19, 21), (16, 17), dtype)
    expected_o = na.attention(q, k, v)
    # Heads inside, rows apart by an odd number, and backwards along the batch and the rows.
    wide = np.full((2, 19, 3, 17 + 5), -7, DTYPES[dtype])
    out = wide[::-1, ::-1, :, 2:19].swapaxes(1, 2)
    assert na.attention(q, k, v, out=out) is out
    assert_same_bits(out, expected_o)
    untouched = np.concatenate([wide[..., :2], wide[..., 19:]], axis=-1)
    assert (untouched == -7).all()


def test_out_with_lse(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 2), (5, 6))
    out = np.empty_like(q)
    o, lse = na.attention(q, k, v, out=out, return_lse=True)
    assert o is out
    expect(q, k, v).check(o, lse)
    assert lse.shape == (1, 2, 5)


def test_arguments_without_effect(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (2, 2, 2), (33, 40))
    plain = na.attention(q, k, v)
    neutral: list[dict[str, Any]] = [
        {"window": (-1, -1)},
        {"window": (None, None)},
        {"kv_lens": np.array([40, 40])},
        {"q_offset": 5},
        {"is_causal": True, "q_offset": 40},
        {"mask": np.ones((1, 1, 1, 1), bool)},
        {"bias": np.zeros((1, 1, 1, 1), np.float32)},
        {"alibi_slopes": np.zeros(2, np.float32)},
        {"sinks": np.full(2, -np.inf, np.float32)},
    ]
    for options in neutral:
        # Another kernel may run, so within tolerance and not bit by bit.
        expect(q, k, v).check(na.attention(q, k, v, **options))
        np.testing.assert_allclose(na.attention(q, k, v, **options), plain, atol=2e-6)


def test_offset_per_batch_entry(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (3, 2, 1), (20, 50))
    offsets = np.array([-3, 10, 30])
    o = na.attention(q, k, v, is_causal=True, q_offset=offsets)
    for b, offset in enumerate(offsets):
        alone = na.attention(q[b], k[b], v[b], is_causal=True, q_offset=int(offset))
        assert_same_bits(o[b], alone)


@pytest.mark.parametrize("offset", [2**62, -(2**62), 2**31, -(2**31)])
def test_far_offset_does_not_wrap(isa: str, rng: np.random.Generator, offset: int) -> None:
    q, k, v = unit_inputs(rng, (1, 1, 1), (20, 50))
    for options in ({"is_causal": True}, {"window": (2**61, 2**61)}, {"window": (4, None)}):
        expect(q, k, v, q_offset=offset, **options).check(
            *na.attention(q, k, v, q_offset=offset, return_lse=True, **options)
        )


@pytest.mark.parametrize("window", [(2**63 - 1, 2**63 - 1), (2**62, None), (None, 2**63 - 1)])
@pytest.mark.parametrize("offset", [0, 7, 2**40])
def test_far_window_does_not_wrap(
    isa: str, rng: np.random.Generator, window: tuple[int | None, int | None], offset: int
) -> None:
    q, k, v = unit_inputs(rng, (1, 1, 1), (20, 50))
    expect(q, k, v).check(na.attention(q, k, v, window=window, q_offset=offset))


@pytest.mark.parametrize(
    ("heads", "lengths"), [((0, 2, 2), (3, 4)), ((1, 2, 2), (0, 4)), ((0, 2, 1), (0, 0))]
)
def test_nothing_asked_nothing_returned(
    isa: str, heads: tuple[int, int, int], lengths: tuple[int, int]
) -> None:
    q, k, v = unit_inputs(np.random.default_rng(0), heads, lengths, (8, 5))
    o, lse = na.attention(q, k, v, return_lse=True)
    assert o.shape == (heads[0], heads[1], lengths[0], 5)
    assert lse.shape == o.shape[:3]


def test_inputs_are_left_alone(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (2, 4, 2), (50, 60))
    bias, mask = normal(rng, (1, 1, 50, 60)), rng.random((2, 1, 1, 60)) < 0.5
    before = [x.copy() for x in (q, k, v, bias, mask)]
    na.attention(q, k, v, bias=bias, mask=mask)
    for x, copy in zip((q, k, v, bias, mask), before, strict=True):
        np.testing.assert_array_equal(x, copy)


def test_the_check_would_notice_a_forgotten_key(rng: np.random.Generator) -> None:
    """The tolerance is worth something: one key of 1000 left out, in any dtype, is found."""
    for dtype in DTYPES:
        q, k, v = unit_inputs(rng, (1, 2, 2), (40, 1000), (64, 64), dtype)
        o = reference.attention(q, k[:, :, 1:], v[:, :, 1:]).astype(DTYPES[dtype])
        with pytest.raises(AssertionError, match="exceeds"):
            expect(q, k, v).check(o)
