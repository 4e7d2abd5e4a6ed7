"""The oracle's layers and positions, against loops and values derived by hand."""

from __future__ import annotations

import inspect
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import numattn as na
from numattn import reference
from numattn.reference.score import final_scores
from numattn.reference.storage import round_to_bfloat16

FLOAT64 = {"rtol": 1e-13, "atol": 1e-13}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


# Values of the standard functions at 1, to 16 digits.
ACTIVATION_AT_ONE = {
    None: 1.0,
    "relu": 1.0,
    "gelu": 0.8413447460685429,  # Φ(1)
    "gelu_tanh": 0.8411919906082768,
    "silu": 0.7310585786300049,  # 1 / (1 + 1/e)
}


@pytest.mark.parametrize("activation", ACTIVATION_AT_ONE)
def test_linear(activation: str | None) -> None:
    linear = reference.Linear([[2.0, -1.0], [1.0, 1.0]], [1.0, 0.0])
    residual = np.array([[5.0, 7.0]])
    y = linear([[1.0, 2.0]], activation=activation, residual=residual)  # x·Wᵀ + b = (1, 3)
    assert y[0, 0] == pytest.approx(5 + ACTIVATION_AT_ONE[activation], rel=1e-14)
    out = np.zeros((1, 2), dtype=np.float32)
    assert linear([[1.0, 2.0]], activation=activation, residual=residual, out=out) is out
    np.testing.assert_array_equal(out, y.astype(np.float32))


def test_linear_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="weight must be"):
        reference.Linear([1.0])
    with pytest.raises(ValueError, match="does not fit weight"):
        reference.Linear([[1.0]], [1.0, 2.0])
    with pytest.raises(ValueError, match="activation must be None or of"):
        reference.Linear([[1.0]])([1.0], activation="tanh")


def test_round_to_bfloat16() -> None:
    """Every sign, exponent and kind of remainder, against another implementation."""
    bits = np.arange(0, 2**32, 9973, dtype=np.uint64).astype(np.uint32)
    ties = np.arange(0, 2**32, 2**15, dtype=np.uint64).astype(np.uint32)
    for x in (bits.view(np.float32), ties.view(np.float32)):
        with np.errstate(invalid="ignore"):
            expected = x.astype(ml_dtypes.bfloat16).astype(np.float64)
            np.testing.assert_array_equal(round_to_bfloat16(x.astype(np.float64)), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16)])
def test_storage_in_bfloat16_rounds_the_weights_alone(dtype: Any) -> None:
    x, weight, bias = normal(5, 7), normal(3, 7), normal(3)
    rounded = weight.astype(ml_dtypes.bfloat16)
    y = reference.Linear(weight, bias, dtype=dtype)(x)
    np.testing.assert_array_equal(y, reference.Linear(rounded, bias)(x))
    assert not np.array_equal(y, reference.Linear(weight, bias)(x))
    # Multi-head attention of rounded weights.
    names = ("wq", "wk", "wv", "wo")
    weights = {name: normal(8, 8, seed=i) for i, name in enumerate(names)}
    narrow = {name: value.astype(ml_dtypes.bfloat16) for name, value in weights.items()}
    x = normal(2, 5, 8)
    y = reference.MultiHeadAttention(2, **weights, dtype=dtype)(x)
    np.testing.assert_array_equal(y, reference.MultiHeadAttention(2, **narrow)(x))


def test_precision_changes_nothing_here() -> None:
    x, weight = normal(2, 5, 8), normal(8, 8)
    calls = [
        lambda precision: reference.attention(x, x, x, precision=precision),
        lambda precision: reference.Linear(weight, precision=precision)(x),
        lambda precision: reference.MultiHeadAttention(
            2, weight, weight, weight, weight, precision=precision
        )(x),
    ]
    for call in calls:
        np.testing.assert_array_equal(call("high"), call("highest"))


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("attention", None),
        ("attention_weights", None),
        ("layer_norm", None),
        ("rms_norm", None),
        ("Linear", "__init__"),
        ("Linear", "__call__"),
        ("MultiHeadAttention", "__init__"),
        ("MultiHeadAttention", "__call__"),
        ("MultiHeadAttention", "from_torch"),
    ],
)
def test_calls_are_those_of_the_library(name: str, method: str | None) -> None:
    """The same arguments in the same order, with the same defaults; those of scores in any."""
    ours, theirs = (
        dict(inspect.signature(getattr(found, method) if method else found).parameters)
        for found in (getattr(reference, name), getattr(na, name))
    )
    if ours.pop("score", None):
        keywords = inspect.signature(final_scores).parameters
        ours |= {k: p for k, p in keywords.items() if p.kind == inspect.Parameter.KEYWORD_ONLY}
        ours["sinks"] = inspect.Parameter("sinks", inspect.Parameter.KEYWORD_ONLY, default=None)
        theirs.pop("score", None)
        assert set(ours) == set(theirs)
    else:
        assert list(ours) == list(theirs)
    for argument in ours.values():
        other = theirs[argument.name]
        assert (argument.kind, argument.default) == (other.kind, other.default), argument.name


def loop_mha(
    x: np.ndarray, context: np.ndarray, weights: list[np.ndarray], heads: int, kv_heads: int
) -> np.ndarray:
    """Head by head, each with its own rows of the weights."""
    wq, wk, wv, wo, bq, bk, bv, bo = weights
    d, dv = len(wq) // heads, len(wv) // kv_heads
    y = np.zeros((len(x), len(wo))) + bo
    for h in range(heads):
        g = h // (heads // kv_heads)
        own, key, value = (slice(i * n, i * n + n) for i, n in ((h, d), (g, d), (g, dv)))
        q = x @ wq[own].T + bq[own]
        k = context @ wk[key].T + bk[key]
        v = context @ wv[value].T + bv[value]
        weight = np.exp(q @ k.T / math.sqrt(d))
        weight /= weight.sum(axis=1, keepdims=True)
        y += weight @ v @ wo[:, h * dv : h * dv + dv].T
    return y


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("cross", [False, True])
def test_multi_head_attention(kv_heads: int, cross: bool) -> None:
    d, dv, width, source_width = 3, 2, 5, 6 if cross else 5
    shapes = [
        (4 * d, width),
        (kv_heads * d, source_width),
        (kv_heads * dv, source_width),
        (7, 4 * dv),
    ]
    shapes += [(rows,) for rows, _ in shapes]
    weights = [normal(*shape, seed=i) / 2 for i, shape in enumerate(shapes)]
    names = ["wq", "wk", "wv", "wo", "bq", "bk", "bv", "bo"]
    named = dict(zip(names, weights, strict=True))
    mha = reference.MultiHeadAttention(4, **named, num_kv_heads=kv_heads)
    x, context = normal(2, 4, width), normal(2, 6, source_width) if cross else None
    y, attended = mha(x, context, return_weights=True)
    for b in range(2):
        source = x[b] if context is None else context[b]
        expected = loop_mha(x[b], source, weights, 4, kv_heads)
        np.testing.assert_allclose(y[b], expected, **FLOAT64)
        alone = mha(x[b], None if context is None else context[b])
        np.testing.assert_allclose(alone, expected, **FLOAT64)
    assert attended.shape == (2, 4, 4, 6 if cross else 4)
    np.testing.assert_allclose(attended.sum(axis=3), 1, **FLOAT64)


def test_multi_head_attention_passes_score_arguments_on() -> None:
    """One head of identity weights is the attention of x with itself."""
    one = np.eye(4)
    mha, x = reference.MultiHeadAttention(1, one, one, one, one), normal(2, 6, 4)
    arguments = {
        "bias": normal(6, 6) / 3,
        "mask": normal(6, 6) > -1,
        "is_causal": True,
        "q_offset": [1, 2],
        "window": (3, 1),
        "scale": 0.3,
        "softcap": 2.0,
        "kv_lens": [6, 4],
        "alibi_slopes": [0.2],
        "sinks": [0.1],
    }
    heads = x[:, np.newaxis]
    y, weights = mha(x, **arguments, return_weights=True)
    expected = reference.attention(heads, heads, heads, **arguments)
    np.testing.assert_allclose(y, expected[:, 0], **FLOAT64)
    expected = reference.attention_weights(heads, heads, **arguments)
    np.testing.assert_allclose(weights, expected, **FLOAT64)
    for name in arguments:
        without = {key: value for key, value in arguments.items() if key != name}
        assert not np.array_equal(mha(x, **without), y), name


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_multi_head_attention_from_torch_names(joined: bool, biased: bool) -> None:
    wq, wk, wv, wo = (normal(4, 4, seed=i) for i in range(4))
    bq, bk, bv, bo = (normal(4, seed=i) for i in range(4))
    state: dict[str, np.ndarray] = {"layer.out_proj.weight": wo, "other.in_proj_weight": wq}
    if joined:
        state["layer.in_proj_weight"] = np.concatenate([wq, wk, wv])
    else:
        state |= {"layer.q_proj_weight": wq, "layer.k_proj_weight": wk, "layer.v_proj_weight": wv}
    biases = {}
    if biased:
        state |= {"layer.in_proj_bias": np.concatenate([bq, bk, bv]), "layer.out_proj.bias": bo}
        biases = {"bq": bq, "bk": bk, "bv": bv, "bo": bo}
    x = normal(3, 4)
    y = reference.MultiHeadAttention.from_torch(state, 2, "layer.")(x)
    expected = reference.MultiHeadAttention(2, wq, wk, wv, wo, **biases)(x)
    np.testing.assert_array_equal(y, expected)
    with pytest.raises(ValueError, match="add_bias_kv"):
        reference.MultiHeadAttention.from_torch({**state, "layer.bias_k": bo}, 2, "layer.")


def test_multi_head_attention_refuses_what_it_lacks() -> None:
    one = np.eye(4)
    with pytest.raises(ValueError, match="does not divide into 3 heads"):
        reference.MultiHeadAttention(3, one, one, one, one)
    with pytest.raises(ValueError, match="no cache"):
        reference.MultiHeadAttention(1, one, one, one, one)(one, cache=object())


def test_layer_norm() -> None:
    x, weight, bias = normal(2, 3, 8), normal(8), normal(8, seed=1)
    y = reference.layer_norm(x, weight, bias, eps=1e-3)
    for i in np.ndindex(2, 3):
        mean = sum(x[i]) / 8
        variance = sum((value - mean) ** 2 for value in x[i]) / 8
        expected = [
            (x[(*i, c)] - mean) / math.sqrt(variance + 1e-3) * weight[c] + bias[c] for c in range(8)
        ]
        np.testing.assert_allclose(y[i], expected, **FLOAT64)
    no_bias = reference.layer_norm(x, weight, eps=1e-3)
    np.testing.assert_allclose(no_bias, y - bias, **FLOAT64)
    out = np.zeros(x.shape, dtype=np.float32)
    assert reference.layer_norm(x, weight, bias, eps=1e-3, out=out) is out
    np.testing.assert_array_equal(out, y.astype(np.float32))


def test_rms_norm() -> None:
    x, weight = normal(2, 3, 8), normal(8)
    y = reference.rms_norm(x, weight, eps=1e-3)
    for i in np.ndindex(2, 3):
        size = math.sqrt(sum(value * value for value in x[i]) / 8 + 1e-3)
        expected = [x[(*i, c)] / size * weight[c] for c in range(8)]
        np.testing.assert_allclose(y[i], expected, **FLOAT64)
    out = np.zeros(x.shape, dtype=np.float32)
    assert reference.rms_norm(x, weight, eps=1e-3, out=out) is out
    np.testing.assert_array_equal(out, y.astype(np.float32))


@pytest.mark.parametrize("d", [1, 4, 5])
@pytest.mark.parametrize("base", [10000.0, 100.0])
def test_sinusoidal(d: int, base: float) -> None:
    encoding = reference.sinusoidal(6, d, base=base)
    assert encoding.shape == (6, d) and encoding.dtype == np.float64
    for pos, c in np.ndindex(6, d):
        i = c // 2
        angle = pos / base ** (2 * i / d)
        expected = math.cos(angle) if c % 2 else math.sin(angle)
        assert encoding[pos, c] == pytest.approx(expected, abs=1e-15)
