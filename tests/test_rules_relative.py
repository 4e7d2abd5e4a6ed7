"""The rules of attention with terms by distance: same bits, out, what is not read, NaN, memory."""

from __future__ import annotations

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal, unit_inputs
from guard_pages import EDGES, guarded
from numattn import position, reference
from relative_cases import SCHEMES, problem
from strides import RELAYOUTS
from tolerance import assert_same_bits, assert_weights_close, expect


@pytest.mark.parametrize("scheme", SCHEMES)
def test_threads_neighbours_and_strides_change_no_bit(
    isa: str, rng: np.random.Generator, scheme: str
) -> None:
    q, k, v, options = problem(rng, scheme, lengths=(130, 210))
    options |= {"is_causal": True, "q_offset": 80}
    expected = na.attention(q, k, v, num_threads=1, **options)
    for num_threads in (2, 3, 7):
        assert_same_bits(na.attention(q, k, v, num_threads=num_threads, **options), expected)
    assert_same_bits(na.attention(q[1:], k[1:], v[1:], **options), expected[1:])
    for name, relayout in RELAYOUTS.items():
        moved = [relayout(x) for x in (q, k, v)]
        assert_same_bits(na.attention(*moved, **options), expected, name)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_row_does_not_depend_on_the_rows_beside_it(
    isa: str, rng: np.random.Generator, scheme: str
) -> None:
    """Rows of the whole, and the same rows alone, in other lanes of other blocks."""
    q, k, v, options = problem(rng, scheme, lengths=(130, 210))
    for structure in ({}, {"is_causal": True}, {"window": (60, 3)}):
        whole = na.attention(q, k, v, q_offset=70, **options, **structure)
        for rows in (slice(0, 1), slice(5, 22), slice(47, 130), slice(129, 130)):
            part = na.attention(
                q[:, :, rows], k, v, q_offset=70 + rows.start, **options, **structure
            )
            assert_same_bits(part, whole[:, :, rows])


def test_out(isa: str, rng: np.random.Generator) -> None:
    q, k, v, options = problem(rng, "anything", dims=(24, 24))
    expected = na.attention(q, k, v, **options)
    out = np.empty((2, 37, 4, 24), np.float32).swapaxes(1, 2)
    assert na.attention(q, k, v, out=out, **options) is out
    assert_same_bits(out, expected)


def test_out_must_lie_apart_from_the_tables(rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 2), (9, 9))
    memory = normal(rng, (2, 9, 16))
    with pytest.raises(ValueError, match="out overlaps value_table"):
        na.attention(q, k, v, out=memory[np.newaxis], relative=position.shaw(None, memory))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("edge", EDGES)
def test_excluded_keys_are_not_mapped(
    isa: str, rng: np.random.Generator, edge: str, dtype: str
) -> None:
    q, k, v, options = problem(rng, "anything", (2, 4, 2), (33, 300), dtype=dtype)
    options |= {"kv_lens": np.array([120, 290]), "window": (40, None), "q_offset": 100}
    visible = [(60, 120), (60, 290)]
    guarded_k, guarded_v = (guarded(x, edge, visible) for x in (k, v))
    expect(q, k, v, **options).check(na.attention(q, guarded_k, guarded_v, **options))
    weights = na.attention_weights(q, guarded_k, **options)
    assert_weights_close(weights, reference.attention_weights(q, k, **options))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("table", ["query_table", "key_table", "value_table"])
def test_a_row_without_a_visible_key_stays_outside(
    isa: str, rng: np.random.Generator, table: str, wrong: float
) -> None:
    """The row of distance 0 spoils every query that sees it, and that of distance −1 none."""
    q, k, v = unit_inputs(rng, (1, 2, 2), (100, 120))
    for distance in (-1, 0, 30):
        rows = np.zeros((2, 301, 16), np.float32)
        rows[:, 150 + distance, 3] = wrong
        options = {
            "relative": position.Relative(
                **{table: rows}, distance_rows=np.arange(301), first_distance=-150
            ),
            "is_causal": True,
        }
        with np.errstate(all="ignore"):
            expected = expect(q, k, v, **options)
        o = na.attention(q, k, v, **options)
        expected.check(o)
        spoilt = ~np.isfinite(o).all(axis=(0, 1, 3))
        if wrong == np.inf and table != "value_table":  # a score of −inf hides its key
            continue
        np.testing.assert_array_equal(spoilt, (distance >= 0) & (np.arange(100) >= distance))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_hidden_keys_do_not_matter(isa: str, rng: np.random.Generator, scheme: str) -> None:
    q, k, v, options = problem(rng, scheme, lengths=(50, 120))
    options |= {"is_causal": True, "q_offset": 20}
    expected = na.attention(q, k, v, **options)
    for x in (k, v):
        x[:, :, 70:] = np.nan
    assert_same_bits(na.attention(q, k, v, **options), expected)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_plan(isa: str, rng: np.random.Generator, scheme: str) -> None:
    q, k, v, options = problem(rng, scheme)
    for dtype in DTYPES:
        assert na.plan(q.shape, k.shape, v.shape, dtype=dtype, **options).kernel == "attend"
        few = na.plan((2, 4, 1, 24), k.shape, v.shape, dtype=dtype, **options)
        assert few.kernel == "attend" and few.query_block == 1
    plans = [
        na.plan((1, 4, n, 24), (1, 2, n, 24), (1, 2, n, 20), num_threads=1, **options)
        for n in (5000, 500_000)
    ]
    assert plans[0].scratch_bytes == plans[1].scratch_bytes
