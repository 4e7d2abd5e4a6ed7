"""`relative`, terms by distance, against the reference: sizes, dtypes, and every other argument."""

from __future__ import annotations

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, SCORE_FEATURES, normal, score_feature, unit_inputs
from numattn import position, reference
from relative_cases import SCHEMES, check, problem
from tolerance import assert_same_bits, assert_weights_close, expect

# Around one row, the lane groups of 8, 16 and 48, the tiles of 96 and 192 keys, and the blocks.
LENGTHS = [(1, 1), (1, 200), (5, 96), (17, 33), (48, 193), (49, 97), (97, 400), (200, 17)]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_lengths(isa: str, rng: np.random.Generator, scheme: str, lengths: tuple[int, int]) -> None:
    for heads in ((1, 2, 2), (2, 4, 1)):
        q, k, v, options = problem(rng, scheme, heads, lengths)
        check(q, k, v, options)
        check(q, k, v, {**options, "is_causal": True, "q_offset": lengths[1] - lengths[0]})


@pytest.mark.parametrize("dims", [(1, 1), (3, 17), (16, 16), (40, 8), (64, 64), (129, 130)])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_dims(isa: str, rng: np.random.Generator, scheme: str, dims: tuple[int, int]) -> None:
    check(*problem(rng, scheme, lengths=(50, 110), dims=dims))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("feature", SCORE_FEATURES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_beside_every_score_argument(
    isa: str, rng: np.random.Generator, scheme: str, feature: str, dtype: str
) -> None:
    q, k, v, options = problem(rng, scheme, dtype=dtype)
    check(q, k, v, options | score_feature(feature, rng, (*q.shape[:3], k.shape[2])))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_offset_per_batch_entry(isa: str, rng: np.random.Generator, scheme: str) -> None:
    q, k, v, options = problem(rng, scheme, (3, 2, 1), (20, 50))
    offsets = np.array([-30, 10, 300])
    check(q, k, v, {**options, "q_offset": offsets})
    o = na.attention(q, k, v, q_offset=offsets, **options)
    for b, offset in enumerate(offsets):
        alone = na.attention(q[b], k[b], v[b], q_offset=int(offset), **options)
        assert_same_bits(o[b], alone)


@pytest.mark.parametrize("offset", [2**62, -(2**62), 2**63 - 1, -(2**63), 2**40])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_far_offset_does_not_wrap(
    isa: str, rng: np.random.Generator, scheme: str, offset: int
) -> None:
    """Every distance lies beyond the table, as it does at a million."""
    q, k, v, options = problem(rng, scheme)
    near = 10**6 if offset > 0 else -(10**6)
    assert_same_bits(
        na.attention(q, k, v, q_offset=offset, **options),
        na.attention(q, k, v, q_offset=near, **options),
    )


@pytest.mark.parametrize("first", [2**60 - 400, -(2**60)])
def test_far_first_distance_does_not_wrap(isa: str, rng: np.random.Generator, first: int) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 2), (20, 50))
    table = normal(rng, (2, 30, 16))
    far = position.transformer_xl(table, None, None, first_distance=first)
    end = table[:, :1] if first > 0 else table[:, -1:]
    same = position.transformer_xl(end, None, None)
    assert_same_bits(na.attention(q, k, v, relative=far), na.attention(q, k, v, relative=same))


@pytest.mark.parametrize("query_len", [1, 7, 40])
@pytest.mark.parametrize("scheme", ["shaw", "transformer_xl", "log_disentangled"])
def test_many_keys_are_split(
    isa: str, rng: np.random.Generator, scheme: str, query_len: int
) -> None:
    q, k, v, options = problem(rng, scheme, (1, 2, 1), (query_len, 2600), (16, 16))
    options |= {"is_causal": True, "q_offset": 2600 - query_len}
    assert na.plan(q.shape, k.shape, **options).is_split
    check(q, k, v, options)


@pytest.mark.parametrize("feature", ["plain", "is_causal", "all"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights(isa: str, rng: np.random.Generator, scheme: str, feature: str) -> None:
    q, k, _, options = problem(rng, scheme, lengths=(61, 130))
    options |= score_feature(feature, rng, (*q.shape[:3], k.shape[2]))
    expected = reference.attention_weights(q, k, **options)
    assert_weights_close(na.attention_weights(q, k, **options), expected)
    for rows in ([0], [60, 3, 3, -2, 31], list(range(50, 2, -3))):
        got = na.attention_weights(q, k, rows=rows, **options)
        assert_weights_close(got, expected[:, :, rows])


def test_both_layouts_and_three_dimensions(isa: str, rng: np.random.Generator) -> None:
    q, k, v, options = problem(rng, "anything")
    expected = na.attention(q, k, v, **options)
    by_token = [x.swapaxes(1, 2) for x in (q, k, v)]
    swapped = na.attention(*by_token, layout="bshd", **options)
    assert_same_bits(swapped.swapaxes(1, 2), expected)
    assert_same_bits(na.attention(q[0], k[0], v[0], **options), expected[0])


@pytest.mark.parametrize(
    ("heads", "lengths"), [((0, 2, 2), (3, 4)), ((1, 2, 2), (0, 4)), ((1, 2, 1), (3, 0))]
)
def test_nothing_to_attend(
    isa: str, rng: np.random.Generator, heads: tuple[int, int, int], lengths: tuple[int, int]
) -> None:
    q, k, v, options = problem(rng, "anything", heads, lengths)
    o, lse = na.attention(q, k, v, return_lse=True, **options)
    assert (o == 0).all() and np.isneginf(lse).all()
    assert na.attention_weights(q, k, **options).shape == (*q.shape[:3], lengths[1])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_keys_and_values_of_integers(isa: str, rng: np.random.Generator, scheme: str) -> None:
    q, k, v, options = problem(rng, scheme, lengths=(50, 210))
    (k, k_scale), (v, v_scale) = na.quantize(k), na.quantize(v)
    o = na.attention(q, k, v, k_scale=k_scale, v_scale=v_scale, **options)
    exact = (x.astype(np.float64) * s[..., None] for x, s in ((k, k_scale), (v, v_scale)))
    expect(q, *exact, **options).check(o)
