"""`attention_paged`: tokens in pages give what they give side by side, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal
from numattn import reference
from tolerance import assert_same_bits

HEADS, KV_HEADS, WIDTH, VALUE_WIDTH = 6, 2, 40, 24
LENGTHS = (300, 0, 2500, 17)

_tables = np.random.default_rng(1)
SHAW = na.position.shaw(
    _tables.standard_normal((11, WIDTH), np.float32),
    _tables.standard_normal((11, VALUE_WIDTH), np.float32),
)

SCORES: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"is_causal": True, "q_offset": [290, 3, 2499, 10]},
    "all": {
        "is_causal": True,
        "q_offset": 280,
        "window": (250, 9),
        "scale": 0.3,
        "softcap": 5.0,
        "alibi_slopes": np.linspace(0.1, 2.4, len(LENGTHS) * HEADS).reshape(-1, HEADS),
        "sinks": np.linspace(-1, 1, HEADS),
    },
    "relative": {"is_causal": True, "q_offset": [290, 3, 2499, 10], "relative": SHAW},
}


class Pool:
    """Random tokens in pages of random order, the last two entries sharing their first page."""

    def __init__(self, rng: np.random.Generator, page: int, dtype: str = "float32") -> None:
        columns = -(-max(LENGTHS) // page)
        count = len(LENGTHS) * columns + 1
        self.page = page
        self.k = normal(rng, (count, page, KV_HEADS, WIDTH)).astype(DTYPES[dtype])
        self.v = normal(rng, (count, page, KV_HEADS, VALUE_WIDTH)).astype(DTYPES[dtype])
        self.table = rng.permutation(count)[:-1].reshape(len(LENGTHS), columns)
        self.table[3, 0] = self.table[2, 0]
        for entry, length in enumerate(LENGTHS):  # what no token needs is not looked at
            self.table[entry, -(-length // page) :] = -1
        self.lengths = np.array(LENGTHS)

    def tokens(self, pages: Any, entry: int) -> Any:
        """Return the first kv_lens[entry] tokens side by side, (H, n, ...)."""
        rows = pages[self.table[entry]].reshape(-1, *pages.shape[2:])
        return np.ascontiguousarray(rows[: LENGTHS[entry]].swapaxes(0, 1))


def of_entry(options: dict[str, Any], entry: int) -> dict[str, Any]:
    """Return what options mean for one entry."""
    own = dict(options)
    if np.ndim(own.get("q_offset", 0)) == 1:
        own["q_offset"] = own["q_offset"][entry]
    if "alibi_slopes" in own:
        own["alibi_slopes"] = own["alibi_slopes"][entry]
    return own


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("page", [1, 7, 16, 200])
@pytest.mark.parametrize("queries", [1, 2, 70])
def test_each_entry_as_if_side_by_side(
    isa: str, rng: np.random.Generator, queries: int, page: int, score: str, dtype: str
) -> None:
    pool = Pool(rng, page, dtype)
    q = normal(rng, (len(LENGTHS), HEADS, queries, WIDTH)).astype(DTYPES[dtype])
    options = SCORES[score]
    o, lse = na.attention_paged(
        q, pool.k, pool.v, pool.table, pool.lengths, return_lse=True, **options
    )
    assert o.dtype == q.dtype and o.shape == (*q.shape[:3], VALUE_WIDTH)
    for entry in range(len(LENGTHS)):
        alone = na.attention(
            q[entry], pool.tokens(pool.k, entry), pool.tokens(pool.v, entry),
            return_lse=True, **of_entry(options, entry),
        )  # fmt: skip
        assert_same_bits(o[entry], alone[0])
        assert_same_bits(lse[entry], alone[1])


@pytest.mark.parametrize("num_threads", [1, 2, 5])
@pytest.mark.parametrize("heads_inside", [True, False])
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_layouts_and_threads_change_no_bit(
    isa: str, rng: np.random.Generator, layout: str, heads_inside: bool, num_threads: int
) -> None:
    """Heads inside the tokens of a page are computed together, other ones apart."""
    pool = Pool(rng, 16)
    q = normal(rng, (len(LENGTHS), HEADS, 2, WIDTH))
    expected = na.attention_paged(q, pool.k, pool.v, pool.table, pool.lengths, num_threads=1)
    k, v = pool.k, pool.v
    if not heads_inside:
        k, v = (np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in (k, v))
    given = q if layout == "bhsd" else q.swapaxes(1, 2)
    out = np.empty((*given.shape[:3], VALUE_WIDTH), np.float32)
    o = na.attention_paged(
        given, k, v, pool.table, pool.lengths, layout=layout, out=out, num_threads=num_threads
    )
    assert o is out
    assert_same_bits(o if layout == "bhsd" else o.swapaxes(1, 2), expected)


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("kv_heads", [1, 3, 8])
def test_heads_together_change_no_bit(
    isa: str, rng: np.random.Generator, kv_heads: int, batch: int
) -> None:
    """Decoding in layout bshd goes through the heads of a tile in turn, in bhsd one by one."""
    q = normal(rng, (batch, 2 * kv_heads, 2, 33))
    k = normal(rng, (batch, kv_heads, 2600, 33))
    v = normal(rng, (batch, kv_heads, 2600, 17))
    apart = na.attention(q, k, v, is_causal=True, q_offset=2590, window=(2000, 0))
    q, k, v = (np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, v))
    for num_threads in (1, 3):
        together = na.attention(
            q, k, v, is_causal=True, q_offset=2590, window=(2000, 0), layout="bshd",
            num_threads=num_threads,
        )  # fmt: skip
        assert_same_bits(together.swapaxes(1, 2), apart)


@pytest.mark.parametrize("queries", [1, 40])
def test_masks_and_biases(isa: str, rng: np.random.Generator, queries: int) -> None:
    pool = Pool(rng, 16)
    room = pool.table.shape[1] * pool.page
    q = normal(rng, (len(LENGTHS), HEADS, queries, WIDTH))
    mask = rng.random((len(LENGTHS), 1, queries, room)) < 0.7
    bias = normal(rng, (HEADS, 1, room))
    o = na.attention_paged(q, pool.k, pool.v, pool.table, pool.lengths, mask=mask, bias=bias)
    for entry, length in enumerate(LENGTHS):
        alone = na.attention(
            q[entry], pool.tokens(pool.k, entry), pool.tokens(pool.v, entry),
            mask=mask[entry, ..., :length], bias=bias[..., :length],
        )  # fmt: skip
        assert_same_bits(o[entry], alone)


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_the_reference_lays_tokens_side_by_side(rng: np.random.Generator, layout: str) -> None:
    pool = Pool(rng, 16)
    q = normal(rng, (len(LENGTHS), HEADS, 3, WIDTH))
    given = q if layout == "bhsd" else q.swapaxes(1, 2)
    o, lse = reference.attention_paged(
        given, pool.k, pool.v, pool.table, pool.lengths, layout=layout, return_lse=True,
        is_causal=True, q_offset=pool.lengths,
    )  # fmt: skip
    o = o if layout == "bhsd" else o.swapaxes(1, 2)
    for entry, length in enumerate(LENGTHS):
        k, v = pool.tokens(pool.k, entry), pool.tokens(pool.v, entry)
        alone = reference.attention(
            q[entry], k, v, is_causal=True, q_offset=length, return_lse=True
        )
        np.testing.assert_allclose(o[entry], alone[0], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(lse[entry], alone[1], rtol=1e-12)


def test_what_lies_beyond_a_length_is_not_read(isa: str, rng: np.random.Generator) -> None:
    pool = Pool(rng, 16)
    q = normal(rng, (len(LENGTHS), HEADS, 3, WIDTH))
    arguments = (pool.table, pool.lengths)
    expected = na.attention_paged(q, pool.k, pool.v, *arguments)
    used = np.zeros(pool.k.shape[:2], bool)
    for entry, length in enumerate(LENGTHS):
        token = np.arange(length)
        used[pool.table[entry, token // pool.page], token % pool.page] = True
    pool.k[~used] = pool.v[~used] = np.nan
    assert_same_bits(na.attention_paged(q, pool.k, pool.v, *arguments), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": np.ones((6, 2, 40), np.float32)}, r"q must have 4 dimensions"),
        ({"k_pages": np.ones((3, 2, 40), np.float32)}, r"k_pages must have 4 dimensions"),
        ({"v_pages": np.ones((3, 5, 2, 8), np.float32)}, r"same pages, rows and heads, not shapes"),
        ({"block_table": [0, 1]}, r"block_table must have shape \(B, n\), not \(2,\)"),
        ({"block_table": [[0, 1]] * 2}, r"one row per batch entry \(1\), not 2"),
        ({"block_table": [[0, 3]]}, r"block_table\[0, 1\] = 3 is no page: there are 3"),
        ({"block_table": [[-1, 0]]}, r"block_table\[0, 0\] = -1 is no page"),
        (
            {"kv_lens": [9]},
            r"kv_lens\[0\] = 9 is not between 0 and the number of tokens in its pages 8",
        ),
        ({"kv_lens": [-1]}, r"kv_lens\[0\] = -1 is not between"),
        ({"kv_lens": None}, r"kv_lens must say how many tokens each batch entry has"),
        ({"kv_lens": [1, 2]}, r"one length per batch entry \(1\), not 2"),
        ({"q_offset": [1, 2]}, r"q_offset must be one number or have one per batch entry"),
        (
            {"mask": np.ones((2, 7), bool)},
            r"mask of shape \(2, 7\) does not broadcast to \(B, Hq, Sq, n · page\) = \(1, 6,",
        ),
        (
            {"alibi_slopes": np.ones((2, 6))},
            r"alibi_slopes must have shape .* \(1, 6\), not \(2, 6\)",
        ),
        ({"out": np.empty((1, 6, 2, 9), np.float32)}, r"out must have shape \(1, 6, 2, 8\)"),
        ({"k_scale": np.ones((3, 4, 2), np.float32)}, r"v_scale is missing"),
    ],
)
def test_refusals(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "q": np.ones((1, 6, 2, 40), np.float32),
        "k_pages": np.ones((3, 4, 2, 40), np.float32),
        "v_pages": np.ones((3, 4, 2, 8), np.float32),
        "block_table": [[0, 1]],
        "kv_lens": [8],
    }
    na.attention_paged(**arguments)
    with pytest.raises(ValueError, match=message):
        na.attention_paged(**(arguments | change))


def test_a_table_must_hold_integers() -> None:
    pages = np.ones((2, 4, 1, 8), np.float32)
    with pytest.raises(TypeError, match="block_table must hold integers, not float64"):
        na.attention_paged(np.ones((1, 1, 1, 8), np.float32), pages, pages, [[0.5]], [1])
