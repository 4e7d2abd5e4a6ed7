"""`block_mask`: lists of key blocks for blocks of queries, in every function that takes them."""

from __future__ import annotations

import mmap
import pickle
from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, block_mask, key_spans, normal, unit_inputs
from guard_pages import PAGE, forbid
from numattn import BlockMask, reference
from tolerance import assert_same_bits, assert_weights_close, expect

HEADS, KV_HEADS = 4, 2


# --- what they mean -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("query_len", [1, 3, 130])
@pytest.mark.parametrize("shared", [(1, 1), (1, HEADS), (2, 1), (2, HEADS)])
def test_queries_see_their_blocks(
    isa: str, rng: np.random.Generator, shared: tuple[int, int], query_len: int, dtype: str
) -> None:
    """Whole ones, those with bits and none, of any number of lists, beside a dense mask."""
    q, k, v = unit_inputs(rng, (2, HEADS, KV_HEADS), (query_len, 700), (40, 24), dtype)
    mask = block_mask(rng, (*shared, query_len, 700))
    o, lse = na.attention(q, k, v, block_mask=mask, return_lse=True)
    dense = np.broadcast_to(mask.to_dense(), (2, HEADS, query_len, 700))
    expect(q, k, v, mask=dense).check(o, lse)
    weights = na.attention_weights(q, k, block_mask=mask)
    assert_weights_close(weights, reference.attention_weights(q, k, mask=dense))
    assert np.all(weights[~dense] == 0)


def test_precision_high(isa: str, rng: np.random.Generator) -> None:
    """Long keys, whose sums the two parts of float32 keep apart by 1,024 keys."""
    q, k, v = unit_inputs(rng, (1, 2, 1), (130, 5000), (32, 32))
    mask = block_mask(rng, (1, 2, 130, 5000))
    o = na.attention(q, k, v, block_mask=mask, precision="high")
    ref = reference.attention(q, k, v, mask=mask.to_dense())
    assert np.linalg.norm(o - ref) <= 2e-5 * np.linalg.norm(ref)
    alone = na.attention(q[:, :, :70], k, v, precision="high", block_mask=rows_of(mask, slice(70)))
    assert_same_bits(o[:, :, :70], alone)


def rows_of(mask: BlockMask, rows: Any) -> BlockMask:
    return BlockMask.from_mask(mask.to_dense()[:, :, rows])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("query_len", [4, 90])
def test_intersection_with_the_other_rules(
    isa: str, rng: np.random.Generator, query_len: int, dtype: str
) -> None:
    q, k, v = unit_inputs(rng, (2, HEADS, KV_HEADS), (query_len, 400), (32, 32), dtype)
    full = (2, HEADS, query_len, 400)
    rules: dict[str, Any] = {
        "is_causal": True,
        "window": (250, 3),
        "sink_tokens": 7,
        "q_offset": [300, 120],
        "kv_lens": [333, 400],
        "key_spans": key_spans(rng, (2, 1, query_len), 400),
        "mask": rng.random((2, 1, query_len, 400)) < 0.8,
        "bias": normal(rng, full),
        "alibi_slopes": rng.random(HEADS, dtype=np.float32) / 400,
        "sinks": normal(rng, (HEADS,)),
        "softcap": 3.0,
    }
    mask = block_mask(rng, (1, HEADS, query_len, 400))
    for names in (("is_causal", "q_offset"), ("window", "q_offset"), ("mask",), ("bias",), rules):
        some = {name: rules[name] for name in names}
        o, lse = na.attention(q, k, v, block_mask=mask, return_lse=True, **some)
        dense = mask.to_dense() & rules["mask"] if "mask" in names else mask.to_dense()
        expect(q, k, v, **{**some, "mask": np.broadcast_to(dense, full)}).check(o, lse)


def test_relative_terms(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 1), (90, 300), (16, 16))
    table = normal(rng, (9, 16))
    relative = na.position.shaw(table, table)
    mask = block_mask(rng, (1, 2, 90, 300))
    o = na.attention(q, k, v, block_mask=mask, relative=relative)
    expect(q, k, v, mask=mask.to_dense(), relative=relative).check(o)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("queries", [3, 200])
def test_the_bits_of_a_dense_mask(
    isa: str, rng: np.random.Generator, queries: int, dtype: str
) -> None:
    """All blocks listed, by bits, beside all of them as a whole with the same dense mask."""
    q, k, v = unit_inputs(rng, (1, HEADS, KV_HEADS), (queries, 300), dtype=dtype)
    dense = rng.random((1, HEADS, queries, 300)) < 0.7
    every = BlockMask.from_mask(np.ones((queries, 300), bool))
    got = na.attention(q, k, v, block_mask=BlockMask.from_mask(dense))
    assert_same_bits(got, na.attention(q, k, v, block_mask=every, mask=dense))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_alone_and_among_others(isa: str, rng: np.random.Generator, dtype: str) -> None:
    """Neighbours whose keys lie elsewhere change no bit of a row, nor do threads."""
    q, k, v = unit_inputs(rng, (1, HEADS, KV_HEADS), (200, 900), dtype=dtype)
    mask = block_mask(rng, (1, HEADS, 200, 900))
    o = na.attention(q, k, v, block_mask=mask, num_threads=2)
    assert_same_bits(o, na.attention(q, k, v, block_mask=mask, num_threads=1))
    other = rng.permutation(200)
    again = na.attention(q[:, :, other], k, v, block_mask=rows_of(mask, other))
    assert_same_bits(o[:, :, other], again)


# --- what is not read -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("query_len", [1, 5, 150])
def test_blocks_that_are_not_listed_are_not_mapped(
    isa: str, rng: np.random.Generator, query_len: int, dtype: str
) -> None:
    width = PAGE // 64 // DTYPES[dtype].itemsize  # a block of 64 keys is a page
    q, k, v = unit_inputs(rng, (1, 1, 1), (query_len, 12 * 64), (width, width), dtype)
    lists = [[1, 2, 7], [2, 11], [4]][: -(-query_len // 64)]
    mask = BlockMask.from_lists((query_len, 12 * 64), lists)
    expected = expect(q, k, v, mask=mask.to_dense())
    listed = {block for each in lists for block in each}
    places = []
    for x in (k, v):
        memory = mmap.mmap(-1, x.nbytes)
        there = np.frombuffer(memory, x.dtype).reshape(x.shape)
        there[:] = x
        for block in set(range(12)) - listed:
            forbid(there.ctypes.data + block * PAGE, PAGE)
        places.append(there)
    o, lse = na.attention(q, *places, block_mask=mask, return_lse=True)
    expected.check(o, lse)
    weights = na.attention_weights(q, places[0], block_mask=mask)
    assert_weights_close(weights, reference.attention_weights(q, k, mask=mask.to_dense()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("query_len", [2, 150])
def test_nonfinite_values_of_others(
    isa: str, rng: np.random.Generator, query_len: int, dtype: str
) -> None:
    """A NaN or an infinity in a block reaches the rows that see it, and no others."""
    q, k, v = unit_inputs(rng, (1, 2, 1), (query_len, 400), (16, 16), dtype)
    mask = block_mask(rng, (1, 2, query_len, 400))
    sees = mask.to_dense()
    clean = na.attention(q, k, v, block_mask=mask)
    v[0, 0, 70, 3], v[0, 0, 300, 5] = np.nan, np.inf
    o = na.attention(q, k, v, block_mask=mask)
    hit = sees[..., 70] | sees[..., 300]
    assert_same_bits(o[~hit], clean[~hit])
    assert np.all(np.isnan(o[sees[..., 70]][:, 3]))
    assert np.all(np.isinf(o[sees[..., 300]][:, 5]))


def test_a_row_without_blocks_is_empty(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (1, 1, 1), (130, 100))
    mask = BlockMask.from_lists((130, 100), [[0], [], [1]])
    o, lse = na.attention(q, k, v, block_mask=mask, return_lse=True)
    assert np.all(o[0, 0, 64:128] == 0) and np.all(lse[0, 0, 64:128] == -np.inf)
    expect(q, k, v, mask=mask.to_dense()[0, 0]).check(o, lse)
    nothing = BlockMask.from_lists((130, 100), [[], [], []])
    assert np.all(na.attention(q, k, v, block_mask=nothing) == 0)


# --- the other functions --------------------------------------------------------------------------


@pytest.mark.parametrize("query_len", [1, 9, 70])
def test_tokens_in_pages(isa: str, rng: np.random.Generator, query_len: int) -> None:
    q, k, v = unit_inputs(rng, (2, HEADS, KV_HEADS), (query_len, 320))
    pages = [x.swapaxes(1, 2).reshape(40, 16, KV_HEADS, 16) for x in (k, v)]
    mask = block_mask(rng, (2, 1, query_len, 320))
    lengths = [320, 250]
    table = np.arange(40).reshape(2, 20)
    o = na.attention_paged(q, *pages, table, lengths, block_mask=mask)
    assert_same_bits(o, na.attention(q, k, v, kv_lens=lengths, block_mask=mask))


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_rows_over_long_keys(isa: str, rng: np.random.Generator, dtype: str) -> None:
    """Keys in splits, some of which nobody sees; entries of which each has its own length."""
    q, k, v = unit_inputs(rng, (2, HEADS, KV_HEADS), (2, 6000), (16, 16), dtype)
    lists = [[0, 1, 3, 40, 41, 93], [2, 92]]
    mask = BlockMask.from_lists((2, 1, 2, 6000), lists)
    options: dict[str, Any] = {"kv_lens": [5990, 5900]}
    for given in ({}, options):
        o = na.attention(q, k, v, block_mask=mask, **given)
        dense = np.broadcast_to(mask.to_dense(), (2, HEADS, 2, 6000))
        expect(q, k, v, mask=dense, **given).check(o)


def test_picked_rows(isa: str, rng: np.random.Generator) -> None:
    q, k, _ = unit_inputs(rng, (1, HEADS, KV_HEADS), (200, 500))
    mask = block_mask(rng, (1, HEADS, 200, 500))
    rows = [199, 3, 70, 3]
    picked = na.attention_weights(q, k, rows=rows, block_mask=mask)
    everything = na.attention_weights(q, k, block_mask=mask)
    assert_same_bits(picked, np.ascontiguousarray(everything[:, :, rows]))


def test_int8_keys(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (1, 4, 2), (3, 300), (32, 32))
    (k8, ks), (v8, vs) = na.quantize(k), na.quantize(v)
    mask = block_mask(rng, (1, 1, 3, 300))
    o = na.attention(q, k8, v8, k_scale=ks, v_scale=vs, block_mask=mask)
    dense = np.broadcast_to(mask.to_dense(), (1, 4, 3, 300))
    same = (x8.astype(np.float32) * s[..., None] for x8, s in ((k8, ks), (v8, vs)))
    expect(q, *same, mask=dense).check(o)


def test_plan_takes_it(rng: np.random.Generator) -> None:
    shape = (1, 2, 640, 16)
    report = na.plan(shape, shape, block_mask=block_mask(rng, (1, 1, 640, 640)))
    assert report.key_block <= 64


def test_in_a_layer(rng: np.random.Generator) -> None:
    weights = [normal(rng, (32, 32)) / 6 for _ in range(4)]
    mha = na.MultiHeadAttention(2, *weights)
    x = normal(rng, (1, 150, 32))
    mask = block_mask(rng, (1, 2, 150, 150))
    np.testing.assert_allclose(
        mha(x, block_mask=mask), mha(x, mask=mask.to_dense()), rtol=1e-4, atol=1e-5
    )


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: BlockMask.from_lists((100, 128), [[0], [1, 2]]),
            ValueError,
            r"list \(0, 0, 1\) names key block 2, but Sk = 128 has the blocks 0 … 1",
        ),
        (
            lambda: BlockMask.from_lists((2, 64, 128), [[1], [1, 0, 1]]),
            ValueError,
            r"list \(0, 1, 0\) names key block 1 twice",
        ),
        (lambda: BlockMask.from_lists((64, 64), [[-1]]), ValueError, "names key block -1"),
        (lambda: BlockMask.from_lists((65, 64), [[0]]), ValueError, "starts must be 3 numbers"),
        (lambda: BlockMask((64, 64), [0, 2], [0]), ValueError, "end at the number of blocks"),
        (lambda: BlockMask((64, 64), [0, 1], [0], [0]), ValueError, "names words 0, but there are"),
        (lambda: BlockMask((64, 64), [0, 1], [0.5]), TypeError, "blocks must hold integers"),
        (
            lambda: BlockMask((64, 64), [0, 1], [0], [0], np.zeros((1, 64), np.int64)),
            TypeError,
            "words must hold 64 bits each",
        ),
        (
            lambda: BlockMask((64, 64), [0, 1], [0], [0], np.zeros((1, 8), np.uint64)),
            ValueError,
            r"words must have shape \(M, 64\), not \(1, 8\)",
        ),
        (lambda: BlockMask((64,), [0], []), ValueError, r"has shape \(Sq, Sk\)"),
        (lambda: BlockMask.from_mask(np.ones((2, 2))), TypeError, "mask must be bool"),
        (
            lambda: BlockMask.from_rule(lambda b, h, i, j: i * j, 4, 4),
            TypeError,
            "rule must return bools",
        ),
    ],
)
def test_lists_that_are_refused(make: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 5), r"shape \(1, 1, 4, 5\) does not fit \(B, Hq, Sq, Sk\) = \(2, 2, 3, 5\)"),
        ((3, 6), r"shape \(1, 1, 3, 6\) does not fit"),
        ((3, 3, 5), r"shape \(1, 3, 3, 5\) does not fit"),
        ((3, 1, 3, 5), r"shape \(3, 1, 3, 5\) does not fit"),
    ],
)
def test_shapes_that_do_not_fit(
    rng: np.random.Generator, shape: tuple[int, ...], message: str
) -> None:
    q, k, v = unit_inputs(rng, (2, 2, 2), (3, 5))
    mask = BlockMask.from_mask(np.ones(shape, bool))
    with pytest.raises(ValueError, match=message):
        na.attention(q, k, v, block_mask=mask)


def test_other_things_are_refused(rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (1, 1, 1), (3, 5))
    wrong: Any = np.ones((3, 5), bool)
    with pytest.raises(TypeError, match="must be a numattn.BlockMask.*not ndarray"):
        na.attention(q, k, v, block_mask=wrong)
    several: Any = [BlockMask.from_mask(wrong)]
    with pytest.raises(TypeError, match="must be a numattn.BlockMask.*not list"):
        na.attention(q, k, v, block_mask=several)


# --- the class ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (65, 130), (2, 100, 200), (2, 3, 70, 60)])
def test_from_mask_and_back(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    dense = rng.random(shape) < 0.5
    dense[..., 30:] &= rng.random() < 0.5
    mask = BlockMask.from_mask(dense)
    full = dense.reshape((1,) * (4 - dense.ndim) + shape)
    assert np.array_equal(mask.to_dense(), full)
    assert mask.sparsity == pytest.approx(1 - dense.mean())
    rule = BlockMask.from_rule(
        lambda b, h, i, j: full[b, h, i, j], *full.shape[2:], batch=full.shape[0],
        heads=full.shape[1],
    )  # fmt: skip
    assert rule == mask


def test_without_queries_or_keys() -> None:
    for shape in ((0, 5), (5, 0), (0, 0)):
        mask = BlockMask.from_mask(np.ones(shape, bool))
        assert mask.to_dense().shape == (1, 1, *shape) and mask.sparsity == 0


def test_lists_in_any_order(rng: np.random.Generator) -> None:
    lists = [[3, 0, 2], [1]]
    mask = BlockMask.from_lists((128, 256), lists)
    assert mask.blocks.tolist() == [0, 2, 3, 1]
    assert mask == BlockMask.from_lists((128, 256), [sorted(each) for each in lists])
    words = rng.integers(0, 2**63, (2, 64), np.uint64)
    bits = BlockMask((64, 192), [0, 3], [2, 0, 1], [1, -1, 0], words)
    assert bits.blocks.tolist() == [0, 1, 2] and bits.bits.tolist() == [-1, 0, 1]


@pytest.mark.parametrize(
    ("first", "second"), [((1, 1), (1, 1)), ((2, 1), (1, 3)), ((1, 3), (2, 3)), ((2, 3), (1, 1))]
)
def test_both_and_either(rng: np.random.Generator, first: Any, second: Any) -> None:
    a, b = (block_mask(rng, (*heads, 100, 300)) for heads in (first, second))
    assert np.array_equal((a & b).to_dense(), a.to_dense() & b.to_dense())
    assert np.array_equal((a | b).to_dense(), a.to_dense() | b.to_dense())
    assert (a & a) == a == (a | a)
    with pytest.raises(ValueError, match="do not fit"):
        a & block_mask(rng, (1, 1, 100, 299))
    other: Any = np.ones(3)
    with pytest.raises(TypeError):
        a & other


def test_what_it_holds_is_its_own(rng: np.random.Generator) -> None:
    blocks = np.array([0, 1])
    mask = BlockMask((64, 128), [0, 2], blocks)
    blocks[0] = 7
    assert mask.blocks.tolist() == [0, 1]
    for array in (mask.starts, mask.entries, mask.words):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    again = pickle.loads(pickle.dumps(mask))
    assert again == mask and again != mask.from_lists((64, 128), [[0]])
    assert mask != 3
