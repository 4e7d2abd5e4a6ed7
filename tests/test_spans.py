"""`key_spans`: an interval of keys for each row, and the makers of such intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, key_spans, normal, unit_inputs
from numattn import reference
from tolerance import assert_same_bits, assert_weights_close, expect

HEADS, KV_HEADS = 4, 2


def visible(spans: Any, key_len: int) -> np.ndarray:
    """Return which keys each row sees, (…, Sk)."""
    begin, end = (np.asarray(side)[..., np.newaxis] for side in spans)
    key = np.arange(key_len)
    return np.asarray((begin <= key) & (key < end))


# --- what they mean -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("query_len", [1, 3, 130])
def test_rows_see_their_intervals(
    isa: str, rng: np.random.Generator, query_len: int, dtype: str
) -> None:
    """Any intervals, of neighbours that share no key too, beside the reference with a mask."""
    q, k, v = unit_inputs(rng, (2, HEADS, KV_HEADS), (query_len, 700), (40, 24), dtype)
    spans = key_spans(rng, (2, HEADS, query_len), 700)
    o = na.attention(q, k, v, key_spans=spans)
    mask = visible(spans, 700)
    expect(q, k, v, mask=mask).check(o)
    weights = na.attention_weights(q, k, key_spans=spans)
    assert_weights_close(weights, reference.attention_weights(q, k, mask=mask))
    assert np.all(weights[~mask] == 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("structure", "begin", "end"),
    [
        ({"is_causal": True, "q_offset": 70}, lambda i: 0 * i, lambda i: i + 71),
        ({"window": (20, 4), "q_offset": 70}, lambda i: i + 50, lambda i: i + 75),
        ({"kv_lens": [101]}, lambda i: 0 * i, lambda i: 0 * i + 101),
    ],
)
def test_the_bits_of_the_same_structure(
    isa: str, rng: np.random.Generator, structure: Any, begin: Any, end: Any, dtype: str
) -> None:
    q, k, v = unit_inputs(rng, (1, HEADS, KV_HEADS), (61, 150), dtype=dtype)
    rows = np.arange(61)
    o, lse = na.attention(q, k, v, key_spans=(begin(rows), end(rows)), return_lse=True)
    same, same_lse = na.attention(q, k, v, return_lse=True, **structure)
    assert_same_bits(o, same)
    assert_same_bits(lse, same_lse)


def test_intersection_with_the_other_rules(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (2, HEADS, KV_HEADS), (90, 200))
    spans = key_spans(rng, (2, 1, 90), 200)
    rules: dict[str, Any] = {
        "is_causal": True,
        "window": (60, 3),
        "q_offset": [100, 20],
        "kv_lens": [150, 200],
        "sinks": normal(rng, (HEADS,)),
        "softcap": 3.0,
    }
    expect(q, k, v, key_spans=spans, **rules).check(na.attention(q, k, v, key_spans=spans, **rules))


def test_a_row_alone_and_among_others(isa: str, rng: np.random.Generator) -> None:
    """Neighbours whose keys lie elsewhere change no bit of a row, nor do threads."""
    q, k, v = unit_inputs(rng, (1, HEADS, KV_HEADS), (200, 900))
    begin, end = key_spans(rng, (1, HEADS, 200), 900)
    o = na.attention(q, k, v, key_spans=(begin, end), num_threads=2)
    other = rng.permutation(200)
    again = na.attention(
        q[:, :, other], k, v, key_spans=(begin[..., other], end[..., other]), num_threads=1
    )
    assert_same_bits(o[:, :, other], again)


def test_what_no_row_of_a_block_sees_is_not_visited(isa: str, rng: np.random.Generator) -> None:
    """Rows at both ends of long keys: a NaN anywhere between them reaches no row."""
    q, k, v = unit_inputs(rng, (1, 1, 1), (100, 3000))
    begin = np.where(np.arange(100) % 2, 2990, 0)
    spans = (begin, begin + 10)
    wanted = na.attention(q, k, v, key_spans=spans)
    k[:, :, 10:2990] = np.nan
    v[:, :, 10:2990] = np.nan
    assert_same_bits(na.attention(q, k, v, key_spans=spans), wanted)


def test_begin_beyond_end_is_an_empty_row(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (1, 1, 1), (3, 5))
    o, lse = na.attention(q, k, v, key_spans=([5, 0, 3], [0, 5, 3]), return_lse=True)
    assert np.all(o[0, 0, [0, 2]] == 0) and np.all(lse[0, 0, [0, 2]] == -np.inf)
    assert_same_bits(o[:, :, 1:2], na.attention(q, k, v)[:, :, 1:2])


# --- the other functions --------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, HEADS])
def test_sequences_count_their_own_keys(isa: str, rng: np.random.Generator, heads: int) -> None:
    lengths, key_lengths = (5, 0, 70, 3), (9, 4, 200, 2600)
    starts, key_starts = (np.append(0, np.cumsum(each)) for each in (lengths, key_lengths))
    q = normal(rng, (starts[-1], HEADS, 24))
    k, v = normal(rng, (2, key_starts[-1], KV_HEADS, 24))
    parts = [
        key_spans(rng, (heads, count), keys)
        for count, keys in zip(lengths, key_lengths, strict=True)
    ]
    spans = tuple(np.concatenate([part[side] for part in parts], axis=1) for side in (0, 1))
    o = na.attention_varlen(q, k, v, starts, key_starts, key_spans=spans)
    for i, part in enumerate(parts):
        rows, keys = slice(*starts[i : i + 2]), slice(*key_starts[i : i + 2])
        alone = na.attention(q[rows], k[keys], v[keys], layout="bshd", key_spans=part)
        assert_same_bits(o[rows], alone)


def test_tokens_in_pages(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (2, HEADS, KV_HEADS), (9, 64))
    pages = [x.swapaxes(1, 2).reshape(8, 16, KV_HEADS, 16) for x in (k, v)]
    spans = key_spans(rng, (2, HEADS, 9), 64)
    lengths = [64, 50]
    o = na.attention_paged(q, *pages, np.arange(8).reshape(2, 4), lengths, key_spans=spans)
    assert_same_bits(o, na.attention(q, k, v, kv_lens=lengths, key_spans=spans))


def test_plan_takes_them() -> None:
    spans = na.spans.chunks(16, 64)
    shape = (1, 2, 64, 16)
    assert na.plan(shape, shape, key_spans=spans) == na.plan(shape, shape)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spans", "error", "message"),
    [
        (([0], [6]), ValueError, r"end 6 of row \(0, 0, 0\) is not between 0 and .* 5"),
        (([0, -1, 0], [5, 5, 5]), ValueError, r"begin -1 of row \(0, 0, 1\)"),
        ((np.zeros((2, 1), int), [[[5]], [[9]]]), ValueError, r"end 9 of row \(1, 0, 0\)"),
        (([0, 0], [1, 1]), ValueError, r"shape \(1, 1, 2\) do not broadcast to .* \(2, 2, 3\)"),
        (([0, 0], [1, 1, 1]), ValueError, r"begin of shape \(2,\) and end of shape \(3,\)"),
        (np.zeros((2, 1, 1, 1, 3), int), ValueError, r"must broadcast to \(B, Hq, Sq\)"),
        ([0, 1, 2], ValueError, r"must be a pair \(begin, end\)"),
        (7, ValueError, r"must be a pair \(begin, end\) of arrays, not 7"),
        ("ab", ValueError, "must be a pair"),
        (([0.0], [1.0]), TypeError, "key_spans must hold integers, not float64"),
    ],
)
def test_errors(rng: np.random.Generator, spans: Any, error: type, message: str) -> None:
    q, k, v = unit_inputs(rng, (2, 2, 2), (3, 5))
    with pytest.raises(error, match=message):
        na.attention(q, k, v, key_spans=spans)


def test_a_sequence_has_no_keys_of_its_neighbours(rng: np.random.Generator) -> None:
    q, k, v = normal(rng, (3, 6, 1, 8))
    with pytest.raises(ValueError, match=r"end 4 of row \(0, 0, 1\) is not between 0 and .* 3"):
        na.attention_varlen(q, k, v, [0, 2, 6], [0, 3, 6], key_spans=([0], [3, 4, 3, 3, 3, 3]))


# --- makers ---------------------------------------------------------------------------------------


def test_prefix_lm() -> None:
    seen = visible(na.spans.prefix_lm([3, 0, 6], 6), 6)[:, 0]
    i, j = np.arange(6)[:, None], np.arange(6)
    for row, prefix in zip(seen, (3, 0, 6), strict=True):
        assert np.array_equal(row, (j <= i) | (j < prefix))
    assert na.spans.prefix_lm(2, 4)[1].tolist() == [2, 2, 3, 4]


def test_documents(isa: str, rng: np.random.Generator) -> None:
    starts = [0, 30, 30, 31, 100]
    q, k, v = unit_inputs(rng, (1, 2, 2), (100, 100))
    o = na.attention(q, k, v, is_causal=True, key_spans=na.spans.documents(starts))
    for begin, end in zip(starts, starts[1:], strict=False):
        rows = slice(begin, end)
        part = [x[:, :, rows] for x in (q, k, v)]
        expect(*part, is_causal=True).check(o[:, :, rows])


@pytest.mark.parametrize("offset", [0, 5])
def test_chunks(offset: int) -> None:
    seen = visible(na.spans.chunks(4, 10, q_offset=offset), 10 + offset)
    i, j = offset + np.arange(10)[:, None], np.arange(10 + offset)
    assert np.array_equal(seen, i // 4 == j // 4)


@pytest.mark.parametrize("window", [None, 3])
def test_image_blocks(window: int | None) -> None:
    blocks = np.array([[-1, 0, 0, 0, -1, -1, 1, 1], [5, 5, -1, -1, -1, 2, -1, -1]])
    begin, end = na.spans.image_blocks(blocks, sliding_window=window)
    assert begin.shape == end.shape == (2, 1, 8)
    i, j = np.arange(8)[:, None], np.arange(8)
    causal = (j <= i) & (True if window is None else j > i - window)
    for row, seen in zip(blocks, visible((begin, end), 8)[:, 0], strict=True):
        same = (row[:, None] == row) & (row >= 0)
        assert np.array_equal(seen, causal | same)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: na.spans.prefix_lm(5, 4), ValueError, "must be in 0 … 4, not 5"),
        (lambda: na.spans.prefix_lm([[1]], 4), ValueError, r"\(B,\), not \(1, 1\)"),
        (lambda: na.spans.prefix_lm(1.5, 4), TypeError, "must hold integers"),
        (lambda: na.spans.documents([1, 2]), ValueError, r"start at 0 .* not \[1, 2\]"),
        (lambda: na.spans.documents([0, 3, 2]), ValueError, "never fall"),
        (lambda: na.spans.chunks(0, 4), ValueError, "chunk must be 1 or more, not 0"),
        (lambda: na.spans.chunks(2, -1), ValueError, "length must be 0 or more, not -1"),
        (lambda: na.spans.image_blocks([0, -1, 0]), ValueError, "side by side"),
        (lambda: na.spans.image_blocks(0), ValueError, r"\(S,\) or \(B, S\), not \(\)"),
        (
            lambda: na.spans.image_blocks([0], sliding_window=0),
            ValueError,
            "sliding_window must be 1 or more",
        ),
    ],
)
def test_makers_errors(make: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_makers_without_tokens() -> None:
    for spans in (
        na.spans.prefix_lm(0, 0),
        na.spans.documents([0]),
        na.spans.chunks(3, 0),
        na.spans.image_blocks([]),
    ):
        assert np.broadcast_shapes(*(side.shape for side in spans)) == (0,)
