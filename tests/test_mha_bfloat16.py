"""`MultiHeadAttention` with weights stored in bfloat16: what lies between the products is too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import numattn as na
import numattn.mha.layer
from cases import DTYPES, normal
from mha_weights import mha_weights
from numattn import reference
from numattn.reference.storage import round_to_bfloat16
from tolerance import assert_same_bits, distance, naive_attention

Array = np.ndarray[Any, Any]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# (E, Hq, Hkv, D, Dv, width of the context)
SIZES: dict[str, tuple[int, int, int, int, int, int]] = {
    "plain": (64, 4, 4, 16, 16, 64),
    "grouped": (96, 6, 2, 32, 32, 96),
    "odd": (33, 3, 1, 10, 7, 41),
}


def weights(rng: np.random.Generator, size: str) -> dict[str, Any]:
    return mha_weights(rng, SIZES[size], with_bias=True)


def naive_mha(
    parameters: dict[str, Any],
    x: Array,
    context: Array,
    turn: Callable[[str, Array], Array] | None = None,
    **options: Any,
) -> Array:
    """Multi-head attention as one would write it in bfloat16: every factor is rounded to it.

    `turn` is what happens to queries ("q") and keys ("k") of shape (B, H, S, D).
    """

    def project(name: str, source: Array) -> Array:
        layer = reference.Linear(parameters[f"w{name}"], parameters[f"b{name}"], dtype="bfloat16")
        return layer(round_to_bfloat16(source.astype(np.float64)))

    def heads(name: str, source: Array, count: int) -> Array:
        y = project(name, source).astype(BFLOAT16)
        split = y.reshape(*y.shape[:2], count, -1).swapaxes(1, 2)
        return split if turn is None or name == "v" else turn(name, split).astype(BFLOAT16)

    q = heads("q", x, parameters["num_heads"])
    k, v = (heads(name, context, parameters["num_kv_heads"]) for name in "kv")
    o = naive_attention(reference.attention_weights(q, k, **options), v)
    return project("o", o.swapaxes(1, 2).reshape(*x.shape[:2], -1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("size", "cross"), [("plain", False), ("grouped", False), ("grouped", True), ("odd", True)]
)
def test_against_the_naive_computation(
    isa: str, rng: np.random.Generator, size: str, cross: bool, dtype: str
) -> None:
    parameters = weights(rng, size)
    x = normal(rng, (2, 70, SIZES[size][0]), dtype)
    context = normal(rng, (2, 45, SIZES[size][5]), dtype) if cross else None
    mha = na.MultiHeadAttention(**parameters, dtype="bfloat16")
    exact = reference.MultiHeadAttention(**parameters, dtype="bfloat16")
    for options in ({}, {"is_causal": True}, {"window": (9, 4)}):
        y, expected = mha(x, context, **options), exact(x, context, **options)
        naive = naive_mha(parameters, x, x if context is None else context, **options)
        assert y.dtype == x.dtype and y.shape == expected.shape
        error = distance(naive.astype(y.dtype), expected)
        assert distance(y, expected) <= 1.15 * error
        # Eight roundings of at most 2^-9: x and a weight, q, k, v, a probability, o and a weight.
        assert error <= 8 * 2.0**-9 * np.linalg.norm(expected)


@pytest.mark.parametrize("cross", [False, True])
def test_heads_are_bfloat16_and_never_copied(
    isa: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, cross: bool
) -> None:
    """What attention reads are views of what the projections wrote."""
    seen: list[Array] = []

    def noting(*arrays: Array, **options: Any) -> Any:
        seen.extend(arrays)
        return na.attention(*arrays, **options)

    monkeypatch.setattr(numattn.mha.layer, "attention", noting)
    parameters, x = weights(rng, "grouped"), normal(rng, (2, 9, 96))
    context = normal(rng, (2, 5, 96)) if cross else None
    na.MultiHeadAttention(**parameters, dtype="bfloat16")(x, context)
    assert [array.dtype for array in seen] == [BFLOAT16] * 3
    assert [array.shape for array in seen] == [
        (2, 9, 6, 32), (2, 5 if cross else 9, 2, 32), (2, 5 if cross else 9, 2, 32)
    ]  # fmt: skip
    assert not any(array.flags.owndata for array in seen)
    owners = [array.base for array in seen]
    assert owners[1] is owners[2] and (owners[0] is owners[1]) != cross


def test_each_step_is_what_the_parts_compute(isa: str, rng: np.random.Generator) -> None:
    parameters, x = weights(rng, "plain"), normal(rng, (2, 19, 64))
    y, got = na.MultiHeadAttention(**parameters, dtype=BFLOAT16)(
        x, kv_lens=[7, 19], return_weights=True
    )

    def projected(name: str, source: Array, out: Array) -> Array:
        layer = na.Linear(parameters[f"w{name}"], parameters[f"b{name}"], dtype="bfloat16")
        return layer(source, out=out)

    q, k, v = (
        projected(name, x, np.empty((2, 19, 64), BFLOAT16)).reshape(2, 19, 4, 16) for name in "qkv"
    )
    o = na.attention(q, k, v, kv_lens=[7, 19], layout="bshd").reshape(2, 19, 64)
    assert_same_bits(y, projected("o", o, np.empty((2, 19, 64), np.float32)))
    assert_same_bits(got, na.attention_weights(q, k, kv_lens=[7, 19], layout="bshd"))


def test_from_torch(isa: str, rng: np.random.Generator) -> None:
    parameters = weights(rng, "plain")
    state = {
        "self.in_proj_weight": np.concatenate([parameters[f"w{name}"] for name in "qkv"]),
        "self.in_proj_bias": np.concatenate([parameters[f"b{name}"] for name in "qkv"]),
        "self.out_proj.weight": parameters["wo"],
        "self.out_proj.bias": parameters["bo"],
    }
    x = normal(rng, (2, 19, 64))
    for options in ({"dtype": "bfloat16"}, {"precision": "high"}):
        taken = na.MultiHeadAttention.from_torch(state, 4, "self.", **options)
        assert_same_bits(taken(x), na.MultiHeadAttention(**parameters, **options)(x))
        oracle = reference.MultiHeadAttention.from_torch(state, 4, "self.", **options)
        expected = reference.MultiHeadAttention(**parameters, **options)(x)
        np.testing.assert_array_equal(oracle(x), expected)


def test_one_module_serves_every_dtype(isa: str, rng: np.random.Generator) -> None:
    """Queries of one dtype may meet a context of another: both become bfloat16."""
    parameters = weights(rng, "plain")
    mha = na.MultiHeadAttention(**parameters, dtype="bfloat16")
    x, context = normal(rng, (2, 9, 64), "float16"), normal(rng, (2, 5, 64), "bfloat16")
    y = mha(x, context)
    assert y.dtype == np.float16
    assert_same_bits(y, mha(x.astype(np.float32), context.astype(np.float32)).astype(np.float16))
    with pytest.raises(TypeError, match="float64"):
        mha(x.astype(np.float64))
