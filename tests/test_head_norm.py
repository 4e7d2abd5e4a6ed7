"""QK-norm: `HeadNorm`, and the norms of `MultiHeadAttention`; Qwen 3's layer."""

from __future__ import annotations

import pickle
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import numattn as na
from cases import normal
from mha_weights import mha_weights
from numattn import reference
from tolerance import UNIT_ROUNDOFF, assert_same_bits, distance
from tolerance import norm as size_of

SIZES = (48, 4, 2, 16, 12, 48)
NORMS: dict[str, Any] = {
    "rms": "rms",
    "l2": "l2",
    "weight": np.linspace(0.5, 2, 16, dtype=np.float32),
    "HeadNorm": na.HeadNorm("l2", np.linspace(3, 5, 16, dtype=np.float32), eps=1e-3),
}


@pytest.mark.parametrize("kind", ["rms", "l2"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_head_norm(
    isa: str, rng: np.random.Generator, kind: Any, weighted: bool, dtype: Any
) -> None:
    x = (10 * normal(rng, (3, 5, 16))).astype(dtype)
    weight = normal(rng, (16,)) if weighted else None
    wide = x.astype(np.float64)
    squares = (wide**2).mean(-1) + 1e-6 if kind == "rms" else (wide**2).sum(-1)
    expected = wide / np.sqrt(squares)[..., None] * (1 if weight is None else weight)
    got = na.HeadNorm(kind, weight)(x)
    assert got.dtype == x.dtype
    error = abs(got.astype(np.float64) - expected)
    u = UNIT_ROUNDOFF[np.dtype(dtype).name]
    # One rounding, and those of a mean of 16 squares, a root and two products.
    assert np.all(error <= (1.01 * u + 16 * 2.0**-24) * abs(expected) + 2.0**-25)


def test_zeros_stay_zeros() -> None:
    zeros = np.zeros((2, 8), np.float32)
    for kind in ("rms", "l2"):
        assert_same_bits(na.HeadNorm(kind)(zeros), zeros)


@pytest.mark.parametrize("q_norm", [None, *NORMS])
@pytest.mark.parametrize("k_norm", [None, *NORMS])
def test_in_multi_head_attention(
    isa: str, rng: np.random.Generator, q_norm: str | None, k_norm: str | None
) -> None:
    weights = mha_weights(rng, SIZES, with_bias=True)
    norms = {"q_norm": NORMS.get(q_norm or ""), "k_norm": NORMS.get(k_norm or "")}
    mha = na.MultiHeadAttention(**weights, **norms)
    exact = reference.MultiHeadAttention(**weights, **norms)
    x, context = normal(rng, (2, 20, 48)), normal(rng, (2, 9, 48))
    for given in ((x,), (x, context)):
        expected = exact(*given)
        # As in test_mha.py: two projections of depth 48, and attention between them.
        assert distance(mha(*given), expected) <= 4e-6 * size_of(expected)
    assert_same_bits(mha(x, mha.project_context(context)), mha(x, context))
    assert_same_bits(pickle.loads(pickle.dumps(mha))(x), mha(x))
    y, probabilities = mha(x, return_weights=True)
    assert distance(probabilities, exact(x, return_weights=True)[1]) <= 1e-4
    assert_same_bits(y, mha(x))


def test_before_positions_and_in_a_cache(isa: str, rng: np.random.Generator) -> None:
    weights = mha_weights(rng, SIZES, with_bias=False)
    options: dict[str, Any] = {"q_norm": NORMS["weight"], "k_norm": "l2"}
    mha = na.MultiHeadAttention(**weights, **options, rope=na.position.Rope(16))
    exact = reference.MultiHeadAttention(**weights, **options, rope=reference.Rope(16))
    x = normal(rng, (2, 12, 48))
    expected = exact(x, is_causal=True)
    bound = 4e-6 * size_of(expected)
    assert distance(mha(x, is_causal=True), expected) <= bound
    cache = na.KVCache(1, 2, 2, 16, value_dim=12)
    parts = [mha(x[:, begin : begin + 4], cache=cache) for begin in (0, 4, 8)]
    assert distance(np.concatenate(parts, axis=1), expected) <= bound


def test_qwen3(isa: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    qwen = pytest.importorskip("transformers.models.qwen3.modeling_qwen3")
    config = qwen.Qwen3Config(
        hidden_size=48, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        num_hidden_layers=1, intermediate_size=64, vocab_size=32, attention_bias=False,
    )  # fmt: skip
    config._attn_implementation = "eager"
    layer = qwen.Qwen3Attention(config, 0).eval()
    rope = qwen.Qwen3RotaryEmbedding(config)
    x = normal(rng, (2, 30, 48))
    with torch.no_grad():
        for parameter in layer.parameters():
            shape = tuple(parameter.shape)
            numbers = (
                normal(rng, shape) / np.sqrt(48) if len(shape) == 2 else 1 + normal(rng, shape) / 4
            )
            parameter.copy_(torch.from_numpy(numbers.astype(np.float32)))
        state = {name: value.numpy().copy() for name, value in layer.state_dict().items()}
        given = torch.from_numpy(x).double()
        later = torch.full((30, 30), -torch.inf, dtype=torch.float64).triu(1)[None, None]
        cos_sin = rope(given, torch.arange(30)[None])
        expected = layer.double()(given, position_embeddings=cos_sin, attention_mask=later)[0]
    mha = na.MultiHeadAttention(
        4, *(state[f"{name}_proj.weight"] for name in "qkvo"), num_kv_heads=2,
        q_norm=na.HeadNorm("rms", state["q_norm.weight"], eps=config.rms_norm_eps),
        k_norm=na.HeadNorm("rms", state["k_norm.weight"], eps=config.rms_norm_eps),
        rope=na.position.Rope(16, base=float(config.rope_parameters["rope_theta"])),
    )  # fmt: skip
    got = mha(x, is_causal=True)
    # transformers' angles are float32, and err by 2^-24 of 30 radians.
    assert distance(got, expected.numpy()) <= 5e-6 * size_of(expected.numpy())


def test_what_does_not_fit(rng: np.random.Generator) -> None:
    weights = mha_weights(rng, SIZES, with_bias=False)
    with pytest.raises(ValueError, match="q_norm must be 'rms', 'l2', a HeadNorm or a weight"):
        na.MultiHeadAttention(**weights, q_norm="layer")
    with pytest.raises(ValueError, match=r"k_norm must have a weight \(16,\), not \(8,\)"):
        na.MultiHeadAttention(**weights, k_norm=np.ones(8, np.float32))
    with pytest.raises(ValueError, match="kind must be 'rms' or 'l2', not 'layer'"):
        na.HeadNorm("layer")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"weight must have shape \(D,\), not \(2, 8\)"):
        na.HeadNorm("rms", np.ones((2, 8), np.float32))
    with pytest.raises(ValueError, match="eps must be 0 or from"):
        na.HeadNorm("l2", eps=-1.0)
