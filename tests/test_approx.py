"""`na.approx` against its float64 formulas: what it loses is what the method loses.

Tolerances, in units of the size of an output as tests/tolerance.py has it:

linformer   ε of a sum over S, and of attention over what it gives.
nystrom     o = K₁·Z·K₃·v with relative errors ε of K₁, K₂ and K₃·v: what follows from each is at
            most ε times the product of magnitudes, Z of what it is made of (dZ = −Z·dK₂·Z).
performer   an exponent a is off by 2·u·|a| at worst, in each of two factors, and so its weight.
linear      ε of sums over S and over the features.
"""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import numattn as na
from cases import DTYPES, normal
from numattn import approx
from numattn.reference import approx as exact
from tolerance import UNIT_ROUNDOFF, assert_same_bits, distance, float32_epsilon, linear_epsilon
from tolerance import norm as size_of

Array = NDArray[Any]

HEADS = [(1, 1, 1), (2, 4, 2), (1, 6, 1)]  # (B, Hq, Hkv)
U = UNIT_ROUNDOFF["float32"]


def operands(
    rng: np.random.Generator,
    heads: tuple[int, int, int] = (2, 4, 2),
    length: int = 150,
    key_length: int | None = None,
    width: int = 16,
    value_width: int = 24,
) -> tuple[Array, Array, Array]:
    batch, q_heads, kv_heads = heads
    keys = length if key_length is None else key_length
    return (
        normal(rng, (batch, q_heads, length, width)),
        normal(rng, (batch, kv_heads, keys, width)),
        normal(rng, (batch, kv_heads, keys, value_width)),
    )


def shared(x: Array, heads: int) -> Array:
    return np.repeat(x, heads // x.shape[1], axis=1)


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


# --- each against its formula ---------------------------------------------------------------------


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("of_each_head", [False, True])
def test_linformer(
    isa: str, rng: np.random.Generator, heads: tuple[int, int, int], of_each_head: bool
) -> None:
    q, k, v = operands(rng, heads, 70, 150)
    shape = (heads[2], 20, 150) if of_each_head else (20, 150)
    e, f = (normal(rng, shape) / np.float32(np.sqrt(150)) for _ in range(2))
    for mixing in ((e,), (e, f)):
        expected = exact.linformer(q, k, v, *mixing)
        # An error of a mixed key moves a logit, by up to as much as the logit is large.
        epsilon = 4 * linear_epsilon(150) + float32_epsilon(20)
        got = approx.linformer(q, k, v, *mixing)
        assert distance(got, expected) <= epsilon * size_of(expected)


def nystrom_bound(q: Array, k: Array, v: Array, landmarks: int) -> float:
    wide_q, wide_k, wide_v = (x.astype(np.float64) for x in (q, k, v))
    wide_k, wide_v = (shared(x, q.shape[1]) for x in (wide_k, wide_v))
    marks = [exact.segment_means(x, landmarks) for x in (wide_q, wide_k)]
    root = np.sqrt(q.shape[-1])
    k1 = softmax(wide_q @ marks[1].swapaxes(2, 3) / root)
    k2 = softmax(marks[0] @ marks[1].swapaxes(2, 3) / root)
    k3 = softmax(marks[0] @ wide_k.swapaxes(2, 3) / root)
    inverse = abs(exact.iterative_inverse(k2, 6, "matrix"))
    values = k3 @ abs(wide_v)
    size = size_of(k1 @ inverse @ values) + size_of(k1 @ inverse @ k2 @ inverse @ values)
    return float32_epsilon(k.shape[2]) * size


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("landmarks", [1, 7, 30, 70])
def test_nystrom(
    isa: str, rng: np.random.Generator, heads: tuple[int, int, int], landmarks: int
) -> None:
    q, k, v = operands(rng, heads, 70, 150)
    expected = exact.nystrom(q, k, v, landmarks)
    error = distance(approx.nystrom(q, k, v, landmarks), expected)
    assert error <= nystrom_bound(q, k, v, landmarks)
    assert error <= 1e-5 * size_of(expected)


@pytest.mark.parametrize("initial", ["matrix", "batch"])
def test_nystrom_begins_where_it_is_told(rng: np.random.Generator, initial: Any) -> None:
    q, k, v = operands(rng)
    q[0] *= 3
    options: dict[str, Any] = {"iterations": 2, "initial": initial, "scale": 0.3}
    expected = exact.nystrom(q, k, v, 10, **options)
    assert distance(approx.nystrom(q, k, v, 10, **options), expected) <= 1e-5 * size_of(expected)
    other = {"matrix": "batch", "batch": "matrix"}[initial]
    assert distance(approx.nystrom(q, k, v, 10, **options | {"initial": other}), expected) > 1e-2


def test_nystrom_with_every_token_a_landmark_is_attention(
    isa: str, rng: np.random.Generator
) -> None:
    q, k, v = operands(rng, length=33)
    assert_same_bits(approx.nystrom(q, k, v, 33), na.attention(q, k, v))


def test_nystrom_comes_near(rng: np.random.Generator) -> None:
    """Smooth attention: neighbours in the sequence have nearly the same queries and keys."""
    steps = np.linspace(0, 3, 256)[:, np.newaxis] * np.arange(1, 9)
    smooth = np.sin(steps + rng.uniform(0, 6, 8)).astype(np.float32)[np.newaxis, np.newaxis]
    v = normal(rng, (1, 1, 256, 8))
    expected = na.attention(smooth, smooth, v)
    errors = [
        distance(approx.nystrom(smooth, smooth, v, m, iterations=12), expected) for m in (4, 32)
    ]
    assert errors[1] < 0.002 * size_of(expected) < 0.2 * size_of(expected) < errors[0]


def performer_bound(q: Array, k: Array, w: Array, expected: Array, scale: float) -> float:
    root = np.sqrt(scale)
    exponents = [
        abs(root * x.astype(np.float64) @ w.T).max() + scale / 2 * (x**2).sum(axis=-1).max()
        for x in (q, k)
    ]
    epsilon = 2 * U * sum(exponents) + float32_epsilon(k.shape[2]) + float32_epsilon(len(w))
    return float(epsilon * size_of(expected))


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("length", [1, 40, 300])  # less than a block, more than two
def test_performer(
    isa: str, rng: np.random.Generator, heads: tuple[int, int, int], is_causal: bool, length: int
) -> None:
    q, k, v = operands(rng, heads, length)
    w = approx.orthogonal_projection(30, 16, seed=1)
    expected = exact.performer(q, k, v, projection=w, is_causal=is_causal)
    bound = performer_bound(q, k, w, expected, 0.25)
    got = approx.performer(q, k, v, 30, seed=1, is_causal=is_causal)
    assert distance(got, expected) <= bound
    given = approx.performer(q, k, v, projection=w, is_causal=is_causal)
    assert_same_bits(given, got)


@pytest.mark.parametrize("is_causal", [False, True])
def test_performer_of_large_numbers(isa: str, rng: np.random.Generator, is_causal: bool) -> None:
    """Features far beyond float32's exponents: no sum overflows, and none vanishes."""
    q, k, v = operands(rng, (2, 2, 1), 140)
    q[0], k[0] = 20 * q[0], 20 * k[0]
    w = approx.orthogonal_projection(20, 16)
    expected = exact.performer(q, k, v, projection=w, is_causal=is_causal)
    got = approx.performer(q, k, v, projection=w, is_causal=is_causal)
    assert distance(got, expected) <= performer_bound(q, k, w, expected, 0.25)
    small = approx.performer(q[1], k[1], v[1], projection=w, is_causal=is_causal)
    assert_same_bits(got[1], small, "an entry depends on its neighbour")


def test_performer_converges(rng: np.random.Generator) -> None:
    """An unbiased estimate of weights: sixteen times the features, a quarter of the error."""
    q, k, v = operands(rng, (1, 4, 4), 64)
    q, k = q / 2, k / 2
    expected = na.attention(q, k, v)

    def error(features: int) -> float:
        parts = [approx.performer(q, k, v, features, seed=seed) for seed in range(6)]
        return float(np.sqrt(np.mean([distance(part, expected) ** 2 for part in parts])))

    assert 2.5 < error(64) / error(1024) < 6


def test_orthogonal_projection() -> None:
    w = approx.orthogonal_projection(40, 16, seed=3).astype(np.float64)
    for group in (w[:16], w[16:32], w[32:]):
        products = group @ group.T
        assert abs(products - np.diag(np.diag(products))).max() < 1e-4
    many = approx.orthogonal_projection(4096, 16)
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1) < 0.02
    assert_same_bits(approx.orthogonal_projection(40, 16), approx.orthogonal_projection(40, 16))


def squares_and_products(x: Array) -> Array:
    """Features of second order: (x ⊗ x, x², 1), whose products are never negative."""
    return np.concatenate((x**2, abs(x[..., :1]), np.ones_like(x[..., :1])), axis=-1)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("feature_map", ["elu", "relu", squares_and_products])
@pytest.mark.parametrize("length", [1, 40, 300])
def test_linear_attention(
    rng: np.random.Generator,
    heads: tuple[int, int, int],
    is_causal: bool,
    feature_map: Any,
    length: int,
) -> None:
    q, k, v = operands(rng, heads, length)
    expected = exact.linear_attention(q, k, v, feature_map, is_causal=is_causal)
    got = approx.linear_attention(q, k, v, feature_map, is_causal=is_causal)
    magnitudes = exact.linear_attention(q, k, abs(v), feature_map, is_causal=is_causal)
    epsilon = linear_epsilon(length) + linear_epsilon(16)
    assert distance(got, expected) <= epsilon * size_of(magnitudes)


def test_linear_attention_over_long_blocks(rng: np.random.Generator) -> None:
    q, k, v = operands(rng, (1, 2, 1), 10, 5000, width=4, value_width=3)
    expected = exact.linear_attention(q, k, v)
    size = size_of(exact.linear_attention(q, k, abs(v)))
    assert distance(approx.linear_attention(q, k, v), expected) <= linear_epsilon(5000) * size


def test_linear_attention_continues_a_state(rng: np.random.Generator) -> None:
    """A prompt, a chunk and single tokens: the rows of one causal call."""
    q, k, v = operands(rng, length=200)
    whole, last = approx.linear_attention(q, k, v, is_causal=True, return_state=True)
    state, rows = None, []
    for begin, end in ((0, 150), (150, 197), (197, 198), (198, 200)):
        part = (x[:, :, begin:end] for x in (q, k, v))
        before = pickle.loads(pickle.dumps(state))
        o, after = approx.linear_attention(*part, is_causal=True, state=state, return_state=True)
        if state is not None:
            for kept, array in zip(before, state, strict=True):
                assert_same_bits(array, kept, "the state given is changed")
        rows.append(o)
        state = after
    assert distance(np.concatenate(rows, axis=2), whole) <= 2 * linear_epsilon(200) * size_of(whole)
    assert state is not None
    for got, expected in zip(state, last, strict=True):
        assert distance(got, expected) <= 2 * linear_epsilon(200) * size_of(expected)
    # Without order, all the keys of a state are there for every query.
    o = approx.linear_attention(q, k[:, :, :0], v[:, :, :0], state=state)
    unordered = approx.linear_attention(q, k, v)
    assert distance(o, unordered) <= 4 * linear_epsilon(200) * size_of(unordered)


def test_linear_attention_without_weight_is_zero() -> None:
    q = -np.ones((1, 3, 2), np.float32)
    o = approx.linear_attention(q, q, q, "relu", is_causal=True)
    assert_same_bits(o, np.zeros_like(o))


# --- what holds of all ----------------------------------------------------------------------------

CALLS: dict[str, Callable[..., Array]] = {
    "linformer": lambda q, k, v, **options: approx.linformer(
        q, k, v, np.random.default_rng(0).standard_normal((9, 150), np.float32), **options
    ),
    "nystrom": lambda q, k, v, **options: approx.nystrom(q, k, v, 12, **options),
    "performer": lambda q, k, v, **options: approx.performer(q, k, v, 20, **options),
    "causal performer": lambda q, k, v, **options: approx.performer(
        q, k, v, 20, is_causal=True, **options
    ),
    "linear": approx.linear_attention,
    "causal linear": lambda q, k, v, **options: approx.linear_attention(
        q, k, v, is_causal=True, **options
    ),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_and_layout(isa: str, rng: np.random.Generator, name: str, dtype: str) -> None:
    """Computed in float32 of what is given, and rounded once."""
    q, k, v = (x.astype(DTYPES[dtype]) for x in operands(rng))
    call = CALLS[name]
    wide = call(*(x.astype(np.float32) for x in (q, k, v)))
    got = call(q, k, v)
    assert_same_bits(got, wide.astype(DTYPES[dtype]))
    turned = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, v)]
    bshd = call(*turned, layout="bshd").swapaxes(1, 2)
    tolerance = (2 * UNIT_ROUNDOFF[dtype] + 1e-5) * size_of(got)
    assert distance(bshd, got.astype(np.float64)) <= tolerance
    one = call(q[1], k[1], v[1])
    assert one.shape == got.shape[1:]
    assert distance(one, got[1].astype(np.float64)) <= tolerance
    assert got.ctypes.data % 64 == 0


@pytest.mark.parametrize("name", ["linformer", "nystrom", "performer"])
def test_threads_and_neighbours_change_no_bit(
    isa: str, rng: np.random.Generator, name: str
) -> None:
    q, k, v = operands(rng)
    whole = CALLS[name](q, k, v, num_threads=1)
    assert_same_bits(CALLS[name](q, k, v, num_threads=2), whole)
    assert_same_bits(CALLS[name](q[1:], k[1:], v[1:]), whole[1:])


@pytest.mark.parametrize("name", ["causal performer", "causal linear"])
def test_later_tokens_change_nothing(rng: np.random.Generator, name: str) -> None:
    q, k, v = operands(rng)
    before = CALLS[name](q, k, v)
    for x in (q, k, v):
        x[:, :, 140:] = normal(rng, x[:, :, 140:].shape)
    after = CALLS[name](q, k, v)
    assert_same_bits(after[:, :, :128], before[:, :, :128])  # blocks before
    early = before[:, :, 128:140]
    assert distance(after[:, :, 128:140], early) <= 1e-5 * size_of(early)
    assert distance(after[:, :, 140:], before[:, :, 140:]) > 0.1


@pytest.mark.parametrize("name", [name for name in CALLS if name != "linformer"])
def test_memory_is_linear(rng: np.random.Generator, name: str) -> None:
    def peak(length: int) -> int:
        q, k, v = operands(rng, (1, 2, 2), length, value_width=16)
        CALLS[name](q, k, v)
        tracemalloc.start()
        CALLS[name](q, k, v)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(8192) < 2.2 * peak(4096)


ONES = np.ones((2, 4, 6, 8), np.float32)
KEYS = np.ones((2, 2, 6, 8), np.float32)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("q", "k", "v", "error", "words"),
    [
        (ONES, KEYS[:1], KEYS[:1], ValueError, r"q \(2, 4, 6, 8\) and k \(1, 2, 6, 8\) must agree"),
        (ONES, KEYS, KEYS[:, :, :5], ValueError, r"k \(2, 2, 6, 8\) and v \(2, 2, 5, 8\) must"),
        (ONES[:, :3], KEYS, KEYS, ValueError, "q has 3 heads, which is no multiple of the 2"),
        (ONES, KEYS[0], KEYS, ValueError, r"k must have 3 or 4 dimensions as q, not \(2, 6, 8\)"),
        (ONES, KEYS.astype(np.float16), KEYS, TypeError, "k has dtype float16, and q has float32"),
        (ONES.astype(float), KEYS, KEYS, TypeError, r"q has dtype float64; it must be float32"),
    ],
)
def test_what_does_not_fit(
    name: str, q: Array, k: Array, v: Array, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        CALLS[name](q, k, v)
    with pytest.raises(ValueError, match="layout must be 'bhsd' or 'bshd', not 'sbhd'"):
        CALLS[name](ONES, KEYS, KEYS, layout="sbhd")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: approx.linformer(ONES, KEYS, KEYS, np.ones((3, 5), np.float32)), ValueError,
         r"e must have shape \(n, 6\) or \(2, n, 6\), not \(3, 5\)"),
        (lambda: approx.linformer(ONES, KEYS, KEYS, ONES[0, 0, :, :6], ONES[0, 0, :3, :6]),
         ValueError, r"e of shape \(6, 6\) and f of shape \(3, 6\)"),
        (lambda: approx.linformer(ONES, KEYS, KEYS, np.ones((3, 6))), TypeError, "e has dtype"),
        (lambda: approx.nystrom(ONES, KEYS, KEYS, 7), ValueError,
         "landmarks is 7, but there are 6 queries and 6 keys"),
        (lambda: approx.nystrom(ONES, KEYS, KEYS, 0), ValueError, "landmarks must be 1 or more"),
        (lambda: approx.nystrom(ONES, KEYS, KEYS, 2, iterations=0), ValueError, "iterations"),
        (lambda: approx.nystrom(ONES, KEYS, KEYS, 2, initial="exact"), ValueError,
         "initial must be 'matrix' or 'batch', not 'exact'"),
        (lambda: approx.nystrom(ONES, KEYS, KEYS, 2, scale=-1.0), ValueError,
         "scale must be positive and finite, not -1.0"),
        (lambda: approx.performer(ONES, KEYS, KEYS, 0), ValueError, "features must be 1 or more"),
        (lambda: approx.performer(ONES, KEYS, KEYS, 8, seed=-1), ValueError, "seed must be 0 or"),
        (lambda: approx.performer(ONES, KEYS, KEYS, 8, projection=ONES[0, 0]), ValueError,
         r"give features \(8\) or a projection"),
        (lambda: approx.performer(ONES, KEYS, KEYS, projection=ONES[0]), ValueError,
         r"projection must have shape \(m, 8\), not \(4, 6, 8\)"),
        (lambda: approx.performer(ONES, KEYS[:, :, :5], KEYS[:, :, :5], is_causal=True),
         ValueError, "is_causal needs as many queries as keys, not 6 and 5"),
        (lambda: approx.linear_attention(ONES, KEYS, KEYS, "softmax"), ValueError,
         "feature_map must be 'elu', 'relu' or a function, not 'softmax'"),
        (lambda: approx.linear_attention(ONES, KEYS, KEYS, lambda x: x[..., 0]), ValueError,
         "feature_map must give an array"),
        (lambda: approx.linear_attention(ONES, KEYS, KEYS, state=(KEYS, KEYS)), TypeError,
         "state must be a LinearState, not tuple"),
        (lambda: approx.linear_attention(
            ONES, KEYS, KEYS, state=approx.LinearState(KEYS, KEYS[..., 0])), ValueError,
         r"state must have arrays of shape \(2, 2, 8, 8\) here, not \(2, 2, 6, 8\)"),
    ],
)  # fmt: skip
def test_what_is_refused(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
