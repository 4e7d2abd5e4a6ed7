"""Schemes of relative positions: the reference against the papers, what is made and refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import normal, unit_inputs
from numattn import position, reference
from numattn.position.disentangled import log_buckets
from tolerance import assert_same_bits, expect


def softmax(score: Any) -> Any:
    part = np.exp(score - score.max(axis=-1, keepdims=True))
    return part / part.sum(axis=-1, keepdims=True)


def double(*arrays: Any) -> Any:
    return [x.astype(np.float64) for x in arrays]


def relative_shift(x: Any) -> Any:
    """Appendix B of Dai et al.: a column of zeros before (…, Sq, Sk), and its memory read anew."""
    padded = np.concatenate([np.zeros((*x.shape[:-1], 1)), x], axis=-1)
    return padded.reshape(*x.shape[:-2], x.shape[-1] + 1, x.shape[-2])[..., 1:, :].reshape(x.shape)


@pytest.mark.parametrize("memories", [0, 1, 13])
def test_transformer_xl_is_the_relative_shift(rng: np.random.Generator, memories: int) -> None:
    queries, keys = 11, 11 + memories
    q, k, v = unit_inputs(rng, (2, 3, 3), (queries, keys))
    r, u, b = normal(rng, (3, keys, 16)), normal(rng, (3, 16)), normal(rng, (3, 16))
    xl = position.transformer_xl(r, u, b)
    o = reference.attention(q, k, v, relative=xl, is_causal=True, q_offset=memories)
    q, k, v, r, u, b = double(q, k, v, r, u, b)
    content = (q + u[:, np.newaxis]) @ k.swapaxes(2, 3)
    # Encodings from the greatest distance, keys − 1, down to 0.
    shifted = relative_shift((q + b[:, np.newaxis]) @ r[:, ::-1].swapaxes(1, 2))
    seen = np.tri(queries, keys, memories, dtype=bool)
    weights = softmax(np.where(seen, (content + shifted) / 4, -np.inf))
    np.testing.assert_allclose(o, weights @ v, rtol=1e-12, atol=1e-14)


def test_shaw_is_embeddings_of_every_pair(rng: np.random.Generator) -> None:
    """Equations 3 and 4, with the embeddings of all pairs of words."""
    q, k, v = unit_inputs(rng, (2, 3, 3), (9, 9))
    key_table, value_table = normal(rng, (5, 16)), normal(rng, (5, 16))
    o = reference.attention(q, k, v, relative=position.shaw(key_table, value_table))
    q, k, v = double(q, k, v)
    pairs = np.clip(np.arange(9) - np.arange(9)[:, np.newaxis], -2, 2) + 2
    key_pairs, value_pairs = double(key_table[pairs], value_table[pairs])
    score = np.einsum("bhid,bhijd->bhij", q, k[:, :, np.newaxis] + key_pairs) / 4
    expected = np.einsum("bhij,bhijd->bhid", softmax(score), v[:, :, np.newaxis] + value_pairs)
    np.testing.assert_allclose(o, expected, rtol=1e-12, atol=1e-14)


def test_disentangled_is_equation_4(rng: np.random.Generator) -> None:
    """Loops over pairs: δ(i, j) of the content, and δ(j, i) of the position."""
    q, k, v = unit_inputs(rng, (1, 2, 2), (7, 7))
    keys_of_positions, queries_of_positions = normal(rng, (2, 6, 16)), normal(rng, (2, 6, 16))
    relative = position.disentangled(keys_of_positions, queries_of_positions)
    assert relative.scale == 1 / np.sqrt(3 * 16)
    o = reference.attention(q, k, v, relative=relative)
    q, k, v, k_r, q_r = double(q, k, v, keys_of_positions, queries_of_positions)

    def delta(i: int, j: int) -> int:
        return 0 if i - j <= -3 else 5 if i - j >= 3 else i - j + 3

    score = np.zeros((1, 2, 7, 7))
    for h, i, j in np.ndindex(2, 7, 7):
        score[0, h, i, j] = q[0, h, i] @ k[0, h, j] + q[0, h, i] @ k_r[h, delta(i, j)]
        # The paper's δ(j, i) indexes tables the other way round: published code negates it.
        score[0, h, i, j] += k[0, h, j] @ q_r[h, delta(i, j)]
    np.testing.assert_allclose(o, softmax(score / np.sqrt(48)) @ v, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("buckets", "farthest"), [(2, 5), (8, 64), (9, 64), (256, 512)])
def test_log_buckets(buckets: int, farthest: int) -> None:
    """Rising by 0 or 1, odd, the distance itself up to half, and k − 1 at the farthest."""
    distance = np.arange(-3 * farthest, 3 * farthest + 1)
    got = log_buckets(distance, position_buckets=buckets, max_distance=farthest)
    assert set(np.diff(got)) <= {0, 1}
    np.testing.assert_array_equal(got, -got[::-1])
    near = abs(distance) <= buckets // 2
    np.testing.assert_array_equal(got[near], distance[near])
    assert got[distance == farthest - 1] == 2 * (buckets // 2) - 1


@pytest.mark.parametrize(("buckets", "farthest"), [(2, 5), (8, 64), (9, 64), (256, 512)])
def test_rows_of_log_buckets_hold_at_every_distance(buckets: int, farthest: int) -> None:
    table = np.zeros((2 * buckets, 4), np.float32)
    made = position.disentangled(table, position_buckets=buckets, max_distance=farthest)
    distance = np.concatenate([np.arange(-5000, 5001), [-(2**40), -(10**6), 10**6, 2**40]])
    index = np.clip(distance - made.first_distance, 0, len(made.distance_rows) - 1)
    bucket = log_buckets(distance, position_buckets=buckets, max_distance=farthest)
    expected = np.clip(bucket + buckets, 0, 2 * buckets - 1)
    np.testing.assert_array_equal(made.distance_rows[index], expected)


def test_tables_of_other_dtypes_and_shared_ones(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (2, 4, 2), (20, 30))
    table = normal(rng, (9, 16), "float16")
    expected = na.attention(q, k, v, relative=position.shaw(table.astype(np.float32)))
    for same in (table, table.astype(np.float64), np.repeat(table[np.newaxis], 4, axis=0)):
        assert_same_bits(na.attention(q, k, v, relative=position.shaw(same)), expected)
    strided = np.repeat(table, 2, axis=1)[:, ::2]
    assert_same_bits(na.attention(q, k, v, relative=position.shaw(strided)), expected)


def test_the_default_scale_is_the_scheme_s(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 2), (9, 9))
    table = normal(rng, (2, 8, 16))
    both = position.disentangled(table, table)
    got = na.attention(q, k, v, relative=both)
    assert_same_bits(got, na.attention(q, k, v, relative=both, scale=1 / np.sqrt(48)))
    assert position.disentangled(None, table).scale == 1 / np.sqrt(32)
    expect(q, k, v, relative=both).check(got)


def test_it_is_frozen_and_prints_its_shapes() -> None:
    made = position.shaw(np.zeros((5, 4), np.float32))
    with pytest.raises(AttributeError):
        made.first_distance = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        made.distance_rows[0] = 99
    assert repr(made) == "Relative(query_table=(1, 5, 4), distance_rows=(5,), first_distance=-2)"


ROWS = np.zeros((5, 16), np.float32)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: position.Relative(distance_rows=[0]), ValueError, "one of query_table"),
        (lambda: position.Relative(query_table=ROWS.astype(int)), TypeError, "query_table.*int64"),
        (lambda: position.Relative(query_table=ROWS[0]), ValueError, r"query_table.*\(16,\)"),
        (
            lambda: position.Relative(query_table=ROWS, distance_rows=[0.5]),
            TypeError,
            "distance_rows",
        ),
        (
            lambda: position.Relative(query_table=ROWS, distance_rows=[0], first_distance=2**63),
            ValueError,
            "first_distance",
        ),
        (lambda: position.shaw(ROWS[:4]), ValueError, r"odd number.*\(1, 4, 16\)"),
        (lambda: position.shaw(ROWS, ROWS[:3]), ValueError, r"5, 16\) and \(1, 3, 16\)"),
        (lambda: position.shaw(ROWS[0]), ValueError, r"key_table.*\(16,\)"),
        (lambda: position.shaw(None), ValueError, "must be given.*neither"),
        (lambda: position.transformer_xl(ROWS[:0], None, None), ValueError, r"r must.*\(0, 16\)"),
        (lambda: position.transformer_xl(ROWS, ROWS[None], None), ValueError, r"u must have shape"),
        (lambda: position.transformer_xl(ROWS, None, [1, 2]), TypeError, r"v must hold"),
        (lambda: position.disentangled(), ValueError, "must be given"),
        (lambda: position.disentangled(ROWS), ValueError, r"even number.*\(1, 5, 16\)"),
        (lambda: position.disentangled(ROWS[:4], ROWS[:2]), ValueError, "even number"),
        (lambda: position.disentangled(ROWS[:4], max_distance=9), ValueError, "position_buckets"),
        (
            lambda: position.disentangled(ROWS[:4], position_buckets=3, max_distance=9),
            ValueError,
            "6 rows, not 4",
        ),
        (lambda: position.disentangled(ROWS[:4], position_buckets=2), ValueError, "max_distance"),
        (
            lambda: position.disentangled(ROWS[:4], position_buckets=2, max_distance=2),
            ValueError,
            "more than 2, not 2",
        ),
        (
            lambda: position.disentangled(
                np.zeros((10, 1), np.float32), position_buckets=5, max_distance=10**6
            ),
            ValueError,
            "more buckets or a lesser distance",
        ),
    ],
)
def test_what_cannot_be_made(make: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


def scheme(**arrays: Any) -> position.Relative:
    return position.Relative(**({"distance_rows": [0, 4]} | arrays))


@pytest.mark.parametrize(
    ("relative", "match"),
    [
        (scheme(query_table=np.zeros((3, 5, 16))), r"query_table.*Hq = 4.*\(3, 5, 16\)"),
        (scheme(query_table=np.zeros((5, 20))), r"query_table.*D = 16.*\(1, 5, 20\)"),
        (scheme(key_table=np.zeros((5, 20))), r"key_table.*D = 16.*\(1, 5, 20\)"),
        (scheme(value_table=np.zeros((5, 16))), r"value_table.*Dv = 20.*\(1, 5, 16\)"),
        (scheme(query_table=ROWS, content_bias=ROWS[0, :3]), r"content_bias.*\(1, 3\)"),
        (scheme(query_table=ROWS, position_bias=ROWS[:2]), r"position_bias.*\(2, 16\)"),
        (scheme(query_table=ROWS[:4]), r"row 4, which is not in relative.query_table"),
        (scheme(query_table=ROWS, distance_rows=[-1]), r"row -1, which is not in"),
        (scheme(query_table=ROWS, distance_rows=[]), "at least one distance"),
        (scheme(query_table=ROWS, first_distance=2**61), f"first_distance.*{2**61}"),
    ],
    ids=str,
)
def test_what_does_not_fit(
    rng: np.random.Generator, relative: position.Relative, match: str
) -> None:
    q, k, v = unit_inputs(rng, (1, 4, 2), (3, 4), (16, 20))
    with pytest.raises(ValueError, match=match):
        na.attention(q, k, v, relative=relative)
    with pytest.raises(ValueError, match=match):
        na.plan(q.shape, k.shape, v.shape, relative=relative)


def test_anything_else_is_no_relative(rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (1, 4, 2), (3, 4))
    wrong: Any = ROWS
    for call in (
        lambda: na.attention(q, k, v, relative=wrong),
        lambda: na.attention_weights(q, k, relative=wrong),
        lambda: na.plan(q.shape, k.shape, relative=wrong),
    ):
        with pytest.raises(TypeError, match="relative must be .*Relative.*not ndarray"):
            call()
