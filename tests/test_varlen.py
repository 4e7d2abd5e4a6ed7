"""`attention_varlen`: packed sequences give what each gives alone, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal
from numattn import reference
from tolerance import assert_same_bits

HEADS, KV_HEADS, WIDTH = 4, 2, 24
QUERY_LENGTHS = (5, 0, 130, 1, 33, 2)
KEY_LENGTHS = (7, 4, 130, 2600, 0, 65)


def starts(lengths: Any) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)])


def packed(rng: np.random.Generator, dtype: str = "float32") -> list[Any]:
    q = normal(rng, (sum(QUERY_LENGTHS), HEADS, WIDTH))
    k = normal(rng, (sum(KEY_LENGTHS), KV_HEADS, WIDTH))
    v = normal(rng, (sum(KEY_LENGTHS), KV_HEADS, 40))
    return [x.astype(DTYPES[dtype]) for x in (q, k, v)] + [
        starts(QUERY_LENGTHS).astype(np.int32),
        starts(KEY_LENGTHS),
    ]


SCORES: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"is_causal": True, "q_offset": [2, 0, 0, 2599, 3, 60]},
    "all": {
        "is_causal": True,
        "q_offset": 1,
        "window": (50, 3),
        "scale": 0.3,
        "softcap": 5.0,
        "alibi_slopes": np.linspace(0.1, 0.9, HEADS),
        "sinks": np.linspace(-1, 1, HEADS),
    },
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("num_threads", [1, 3])
def test_each_sequence_as_if_alone(
    isa: str, rng: np.random.Generator, score: str, dtype: str, num_threads: int
) -> None:
    q, k, v, queries, keys = packed(rng, dtype)
    options = SCORES[score]
    o, lse = na.attention_varlen(
        q, k, v, queries, keys, return_lse=True, num_threads=num_threads, **options
    )
    assert o.shape == (q.shape[0], HEADS, 40) and lse.shape == (HEADS, q.shape[0])
    offsets = np.broadcast_to(options.get("q_offset", 0), len(queries) - 1)
    for i, offset in enumerate(offsets):
        rows, seen = slice(*queries[i : i + 2]), slice(*keys[i : i + 2])
        alone = na.attention(
            q[rows], k[seen], v[seen], layout="bshd", return_lse=True,
            **{**options, "q_offset": int(offset)},
        )  # fmt: skip
        assert_same_bits(o[rows], alone[0])
        assert_same_bits(lse[:, rows], alone[1])


@pytest.mark.parametrize("score", SCORES)
def test_against_the_reference(isa: str, rng: np.random.Generator, score: str) -> None:
    inputs = packed(rng)
    o, lse = na.attention_varlen(*inputs, return_lse=True, **SCORES[score])
    exact_o, exact_lse = reference.attention_varlen(*inputs, return_lse=True, **SCORES[score])
    np.testing.assert_allclose(o, exact_o, rtol=1e-4, atol=3e-6)
    np.testing.assert_allclose(lse, exact_lse, rtol=1e-5, atol=1e-5)


def test_out_and_no_sequences(rng: np.random.Generator) -> None:
    inputs = packed(rng)
    out = np.full((inputs[0].shape[0], HEADS, 80), 7, np.float32)[..., ::1][..., :40]
    assert na.attention_varlen(*inputs, out=out) is out
    assert_same_bits(out, na.attention_varlen(*inputs))
    nothing = np.empty((0, 2, 8), np.float32)
    assert na.attention_varlen(nothing, nothing, nothing, [0], [0]).shape == (0, 2, 8)


@pytest.mark.parametrize(
    ("queries", "keys", "message"),
    [
        ([1, 3, 4], [0, 2, 4], "cu_seqlens_q must start at 0, not 1"),
        ([], [0, 4], "cu_seqlens_q must start at 0, not be empty"),
        ([0, 3, 2, 4], [0, 1, 2, 4], "cu_seqlens_q must not fall: 3, 2"),
        ([0, 3, 5], [0, 2, 4], "cu_seqlens_q must end at the 4 rows of q, not at 5"),
        ([0, 3, 4], [0, 2, 3], "cu_seqlens_k must end at the 4 rows of k, not at 3"),
        ([0, 4], [0, 2, 4], "must name as many sequences, not 1 and 2"),
        ([0, -1, 4], [0, 2, 4], "cu_seqlens_q must not fall: 0, -1"),
    ],
)
def test_wrong_prefix_sums(queries: Any, keys: Any, message: str) -> None:
    x = np.ones((4, 1, 8), np.float32)
    out = np.full_like(x, 7)
    with pytest.raises(ValueError, match=message):
        na.attention_varlen(x, x, x, queries, keys, out=out)
    assert (out == 7).all()


def test_wrong_arrays() -> None:
    x = np.ones((4, 1, 8), np.float32)
    with pytest.raises(ValueError, match=r"q must have 3 dimensions \(total, H, D\), not shape"):
        na.attention_varlen(x[None], x, x, [0, 4], [0, 4])
    with pytest.raises(ValueError, match=r"q_offset must be one number or have one per sequence"):
        na.attention_varlen(x, x, x, [0, 4], [0, 4], q_offset=[1, 2])
    three, two = np.ones((0, 3, 8), np.float32), np.ones((0, 2, 8), np.float32)
    with pytest.raises(ValueError, match=r"multiple of the number of key heads: q \(0, 3, 8\)"):
        na.attention_varlen(three, two, two, [0], [0])  # also where there is no sequence
    with pytest.raises(TypeError, match="cu_seqlens_k must hold integers"):
        na.attention_varlen(x, x, x, [0, 4], [0.0, 4.0])
    with pytest.raises(ValueError, match="out must have shape"):
        na.attention_varlen(x, x, x, [0, 4], [0, 4], out=np.ones((3, 1, 8), np.float32))
    with pytest.raises(ValueError, match="out overlaps k"):
        na.attention_varlen(x.copy(), x, x.copy(), [0, 4], [0, 4], out=x)
