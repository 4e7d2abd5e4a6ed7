"""`block_mask` of `attention_varlen`: one for each sequence, of its own queries and keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, block_mask, key_spans, unit_inputs
from numattn import BlockMask, reference
from tolerance import assert_same_bits

HEADS, KV_HEADS = 4, 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_threads", [1, 3])
def test_sequences_of_which_each_has_its_own(
    isa: str, rng: np.random.Generator, num_threads: int, dtype: str
) -> None:
    """As if alone, bit by bit, beside those that have none; with intervals and the other rules."""
    lengths = [(5, 7), (0, 4), (130, 300), (1, 2600), (33, 0), (70, 65)]
    total_queries, total_keys = (sum(side) for side in zip(*lengths))  # noqa: B905
    q, k, v = unit_inputs(rng, (1, HEADS, KV_HEADS), (total_queries, total_keys), dtype=dtype)
    q, k, v = (x[0].swapaxes(0, 1) for x in (q, k, v))
    masks = [
        None if i == 2 else block_mask(rng, (1, (1, HEADS)[i % 2], *own))
        for i, own in enumerate(lengths)
    ]
    starts = [np.append(0, np.cumsum(side)) for side in zip(*lengths)]  # noqa: B905
    each = [key_spans(rng, (HEADS, queries), max(keys, 1)) for queries, keys in lengths]
    spans = [
        np.concatenate(
            [np.minimum(pair[end], keys) for pair, (_, keys) in zip(each, lengths, strict=True)],
            axis=1,
        )
        for end in (0, 1)
    ]
    rules: dict[str, Any] = {"is_causal": True, "window": (1500, 2), "sink_tokens": 3}
    offsets = [keys - queries for queries, keys in lengths]
    for given in ({}, {**rules, "q_offset": offsets}, {**rules, "key_spans": spans}):
        o, lse = na.attention_varlen(
            q, k, v, *starts, block_mask=masks, return_lse=True, num_threads=num_threads, **given
        )
        for i, mask in enumerate(masks):
            rows, seen = (slice(*side[i : i + 2]) for side in starts)
            own = {**given}
            if "q_offset" in own:
                own["q_offset"] = offsets[i]
            if "key_spans" in own:
                own["key_spans"] = [end[:, rows] for end in spans]
            alone = na.attention(
                q[rows], k[seen], v[seen], layout="bshd", block_mask=mask, return_lse=True, **own
            )
            assert_same_bits(o[rows], alone[0])
            assert_same_bits(lse[:, rows], alone[1])
        if dtype == "float32":
            exact, exact_lse = reference.attention_varlen(
                q, k, v, *starts, block_mask=masks, return_lse=True, **given
            )
            np.testing.assert_allclose(o, exact, rtol=1e-4, atol=3e-6)
            np.testing.assert_allclose(lse, exact_lse, rtol=1e-5, atol=1e-5)


def test_sequences_that_share_one(rng: np.random.Generator) -> None:
    q, k, v = (x[0].swapaxes(0, 1) for x in unit_inputs(rng, (1, HEADS, KV_HEADS), (200, 200)))
    mask = na.patterns.longformer(100, 10, 2)
    starts = [0, 100, 200]
    o = na.attention_varlen(q, k, v, starts, starts, block_mask=mask)
    assert_same_bits(o, na.attention_varlen(q, k, v, starts, starts, block_mask=[mask, mask]))
    assert_same_bits(o[100:], na.attention_varlen(
        q[100:], k[100:], v[100:], [0, 100], [0, 100], block_mask=(mask,)
    ))  # fmt: skip
    assert na.attention_varlen(q[:0], k[:0], v[:0], [0], [0], block_mask=mask).shape[0] == 0


def test_sequences_that_they_do_not_fit(rng: np.random.Generator) -> None:
    q, k, v = (x[0].swapaxes(0, 1) for x in unit_inputs(rng, (1, 2, 1), (7, 7)))
    three, four = (BlockMask.from_mask(np.ones((n, n), bool)) for n in (3, 4))
    wrong: Any = [three, np.ones((4, 4), bool)]
    given: Any
    for given, error, message in (
        (three, ValueError,
         r"block_mask\[1\] of shape \(1, 1, 3, 3\) does not fit \(B, Hq, Sq, Sk\) = \(1, 2, 4, "),
        ([four, four], ValueError, r"block_mask\[0\] of shape \(1, 1, 4, 4\) does not fit"),
        ([three], ValueError, r"one mask per sequence \(2\), not 1"),
        ([], ValueError, r"one mask per sequence \(2\), not 0"),
        (wrong, TypeError, "not a list with one of ndarray"),
        (wrong[1], TypeError, "or a list of one for each sequence, not ndarray"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            na.attention_varlen(q, k, v, [0, 3, 7], [0, 3, 7], block_mask=given)
    na.attention_varlen(q, k, v, [0, 3, 7], [0, 3, 7], block_mask=[three, four])
