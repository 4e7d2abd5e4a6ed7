"""The oracle's attention, against triple loops in plain Python and values derived by hand."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from numattn import reference

B, HQ, HKV, SQ, SK, D, DV = 2, 4, 2, 5, 7, 3, 2
FLOAT64 = {"rtol": 1e-13, "atol": 1e-13}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


Q, K, V = normal(B, HQ, SQ, D), normal(B, HKV, SK, D, seed=1), normal(B, HKV, SK, DV, seed=2)


def loop_score(b: int, h: int, i: int, j: int, **a: Any) -> float | None:
    """Final score of one query and one key, None where the key is excluded."""
    position = int(np.broadcast_to(a.get("q_offset", 0), B)[b]) + i
    left, right = a.get("window") or (None, None)
    if a.get("is_causal") and j > position:
        return None
    if left not in (None, -1) and j < position - left:
        return None
    if right not in (None, -1) and j > position + right:
        return None
    if a.get("kv_lens") is not None and j >= a["kv_lens"][b]:
        return None
    if a.get("mask") is not None and not np.broadcast_to(a["mask"], (B, HQ, SQ, SK))[b, h, i, j]:
        return None
    dot = 0.0
    for d in range(D):
        dot += float(Q[b, h, i, d]) * float(K[b, h * HKV // HQ, j, d])
    score = dot * (a["scale"] if a.get("scale") is not None else D**-0.5)
    if a.get("softcap"):
        score = a["softcap"] * math.tanh(score / a["softcap"])
    if a.get("bias") is not None:
        score += float(np.broadcast_to(a["bias"], (B, HQ, SQ, SK))[b, h, i, j])
    if a.get("alibi_slopes") is not None:
        slope = float(np.broadcast_to(a["alibi_slopes"], (B, HQ))[b, h])
        score -= slope * abs(position - j)
    return None if score == -math.inf else score


def loop_attention(**a: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Output, lse and weights, without a maximum subtracted: the scores here are small."""
    o, lse = np.zeros((B, HQ, SQ, DV)), np.full((B, HQ, SQ), -np.inf)
    weights = np.zeros((B, HQ, SQ, SK))
    for b, h, i in np.ndindex(B, HQ, SQ):
        total = math.exp(a["sinks"][h]) if a.get("sinks") is not None else 0.0
        for j in range(SK):
            score = loop_score(b, h, i, j, **a)
            if score is not None:
                weights[b, h, i, j] = math.exp(score)
                total += weights[b, h, i, j]
        if total > 0:
            lse[b, h, i] = math.log(total)
            weights[b, h, i] /= total
        for j in range(SK):
            o[b, h, i] += weights[b, h, i, j] * V[b, h * HKV // HQ, j]
    return o, lse, weights


BIAS = normal(B, HQ, SQ, SK, seed=3)
HOLED_BIAS = np.where(BIAS > 1, -np.inf, BIAS)
MASK = normal(B, 1, SQ, SK, seed=4) > 0
MASK[0, 0, 2] = False

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "scale": {"scale": 0.7},
    "softcap": {"softcap": 0.5},
    "causal": {"is_causal": True},
    "causal offset": {"is_causal": True, "q_offset": SK - SQ},
    "causal offset per entry": {"is_causal": True, "q_offset": np.array([-2, 3])},
    "window": {"window": (1, 2)},
    "window unbounded left": {"window": (-1, 0), "q_offset": 1},
    "window unbounded right": {"window": (0, None)},
    "window past all keys": {"window": (1, 0), "q_offset": 5},
    "window and causal": {"window": (2, 2), "is_causal": True, "q_offset": 2},
    "kv_lens": {"kv_lens": np.array([3, 0])},
    "bias": {"bias": BIAS},
    "bias per key": {"bias": BIAS[0, 0, 0]},
    "bias with holes": {"bias": HOLED_BIAS},
    "mask": {"mask": MASK},
    "mask per row": {"mask": MASK[:, :, :, :1]},
    "alibi": {"alibi_slopes": np.array([0.5, 0.25, 0.1, 0.0])},
    "alibi per entry": {"alibi_slopes": abs(normal(B, HQ)), "q_offset": np.array([1, 4])},
    "sinks": {"sinks": np.array([-1.0, 0.0, 1.0, 2.0])},
    "sinks and empty rows": {"sinks": np.array([-1.0, 0.0, 1.0, 2.0]), "mask": MASK},
    "everything": {
        "bias": HOLED_BIAS,
        "mask": MASK,
        "is_causal": True,
        "q_offset": np.array([2, 1]),
        "window": (3, 1),
        "scale": 1.3,
        "softcap": 2.0,
        "kv_lens": np.array([6, 4]),
        "alibi_slopes": np.array([0.5, 0.25, 0.1, 0.0]),
        "sinks": np.array([-1.0, 0.0, 1.0, 2.0]),
    },
}


@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES.keys())
def test_agrees_with_loops(arguments: dict[str, Any]) -> None:
    o, lse = reference.attention(Q, K, V, return_lse=True, **arguments)
    weights = reference.attention_weights(Q, K, **arguments)
    expected_o, expected_lse, expected_weights = loop_attention(**arguments)
    np.testing.assert_allclose(o, expected_o, **FLOAT64)
    np.testing.assert_allclose(lse, expected_lse, **FLOAT64)
    np.testing.assert_allclose(weights, expected_weights, **FLOAT64)
    np.testing.assert_array_equal(weights == 0, expected_weights == 0)
    assert o.dtype == lse.dtype == weights.dtype == np.float64


@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES.keys())
def test_rows_are_rows_of_the_whole(arguments: dict[str, Any]) -> None:
    whole = reference.attention_weights(Q, K, **arguments)
    for rows in ([3], [-1, 0, -SQ], np.array([2, 2, 1], dtype=np.int32), []):
        some = reference.attention_weights(Q, K, rows=rows, **arguments)
        np.testing.assert_allclose(some, whole[:, :, np.asarray(rows, dtype=int)], **FLOAT64)
    with pytest.raises(IndexError):
        reference.attention_weights(Q, K, rows=[SQ], **arguments)


@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES.keys())
def test_layout_is_only_a_reading(arguments: dict[str, Any]) -> None:
    o, lse = reference.attention(Q, K, V, return_lse=True, **arguments)
    q, k, v = (x.swapaxes(1, 2) for x in (Q, K, V))
    turned, same_lse = reference.attention(q, k, v, layout="bshd", return_lse=True, **arguments)
    weights = reference.attention_weights(q, k, layout="bshd", **arguments)
    np.testing.assert_array_equal(turned, o.swapaxes(1, 2))
    np.testing.assert_array_equal(same_lse, lse)
    np.testing.assert_array_equal(weights, reference.attention_weights(Q, K, **arguments))


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_three_dimensions_are_one_batch_entry(layout: str) -> None:
    q, k, v = Q, K, V
    if layout == "bshd":
        q, k, v = (x.swapaxes(1, 2) for x in (Q, K, V))
    o, lse = reference.attention(q, k, v, layout=layout, is_causal=True, return_lse=True)
    arguments = {"layout": layout, "is_causal": True}
    one, one_lse = reference.attention(q[1], k[1], v[1], return_lse=True, **arguments)
    np.testing.assert_allclose(one, o[1], **FLOAT64)
    np.testing.assert_allclose(one_lse, lse[1], **FLOAT64)
    assert reference.attention_weights(q[1], k[1], **arguments).shape == (HQ, SQ, SK)


def test_out_receives_the_result() -> None:
    out = np.zeros((B, HQ, SQ, DV), dtype=np.float32)
    assert reference.attention(Q, K, V, out=out) is out
    np.testing.assert_array_equal(out, reference.attention(Q, K, V).astype(np.float32))


@pytest.mark.parametrize("name", ["float16", "float32", "bfloat16"])
def test_inputs_are_cast_to_float64(name: str) -> None:
    dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    q, k, v, bias = (x.astype(dtype) for x in (Q, K, V, BIAS))
    o = reference.attention(q, k, v, bias=bias)
    wide = (x.astype(np.float64) for x in (q, k, v))
    np.testing.assert_array_equal(o, reference.attention(*wide, bias=bias.astype(np.float64)))
    assert o.dtype == np.float64


@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES.keys())
def test_rows_of_weights_sum_to_one(arguments: dict[str, Any]) -> None:
    arguments = {name: value for name, value in arguments.items() if name != "sinks"}
    weights = reference.attention_weights(Q, K, **arguments)
    _, lse = reference.attention(Q, K, V, return_lse=True, **arguments)
    np.testing.assert_allclose(weights.sum(axis=3), np.where(lse == -np.inf, 0, 1), **FLOAT64)


def test_permuting_keys_changes_nothing_and_queries_permute() -> None:
    keys, queries = np.random.default_rng(5).permutation(SK), [4, 2, 0, 1, 3]
    o = reference.attention(Q, K, V, bias=BIAS, mask=MASK)
    turned = reference.attention(
        Q, K[:, :, keys], V[:, :, keys], bias=BIAS[..., keys], mask=MASK[..., keys]
    )
    np.testing.assert_allclose(turned, o, **FLOAT64)
    turned = reference.attention(
        Q[:, :, queries], K, V, bias=BIAS[:, :, queries], mask=MASK[:, :, queries]
    )
    np.testing.assert_allclose(turned, o[:, :, queries], **FLOAT64)


@pytest.mark.parametrize("split", [1, 3, 6])
def test_attentions_over_disjoint_keys_merge(split: int) -> None:
    """o = Σ_part o_part·exp(lse_part − lse), lse = log Σ_part exp(lse_part)."""
    arguments = {"bias": BIAS, "mask": MASK}
    o, lse = reference.attention(Q, K, V, return_lse=True, **arguments)
    parts = [
        reference.attention(
            Q, K[:, :, j], V[:, :, j], bias=BIAS[..., j], mask=MASK[..., j], return_lse=True
        )
        for j in (slice(split), slice(split, None))
    ]
    np.testing.assert_allclose(np.logaddexp(parts[0][1], parts[1][1]), lse, **FLOAT64)
    shift = np.where(lse == -np.inf, 0, lse)
    merged = sum(o_part * np.exp(lse_part - shift)[..., None] for o_part, lse_part in parts)
    np.testing.assert_allclose(merged, o, **FLOAT64)


@pytest.mark.filterwarnings("error")
class TestCorners:
    """Rules 1, 3 and 4 of the contract, one query row or two of hand-made numbers."""

    q = np.ones((1, 2, 1))
    k = np.array([[[0.0], [1.0], [2.0]]])
    v = np.array([[[1.0], [10.0], [100.0]]])

    def test_row_that_may_attend_nothing(self) -> None:
        for nothing in (
            {"mask": np.zeros((2, 3), dtype=bool)},
            {"bias": np.full((2, 3), -np.inf)},
            {"kv_lens": [0]},
            {"is_causal": True, "q_offset": -2},
        ):
            o, lse = reference.attention(self.q, self.k, self.v, return_lse=True, **nothing)
            assert np.all(o == 0) and np.all(lse == -np.inf)
            assert np.all(reference.attention_weights(self.q, self.k, **nothing) == 0)
            o, lse = reference.attention(
                self.q, self.k, self.v, sinks=[0.25], return_lse=True, **nothing
            )
            assert np.all(o == 0) and np.all(lse == 0.25)

    def test_no_keys_at_all(self) -> None:
        k = v = np.zeros((1, 0, 1))
        o, lse = reference.attention(self.q, k, v, return_lse=True)
        assert o.tolist() == [[[0.0], [0.0]]] and lse.tolist() == [[-np.inf, -np.inf]]
        assert reference.attention_weights(self.q, k).shape == (1, 2, 0)

    @pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize(
        "exclude",
        [
            {"mask": [True, True, False]},
            {"bias": [0.0, 0.0, -np.inf]},
            {"kv_lens": [2]},
            {"is_causal": True},
            {"window": (-1, 0)},
        ],
        ids=lambda exclude: next(iter(exclude)),
    )
    def test_excluded_keys_and_values_do_not_matter(
        self, exclude: dict[str, Any], poison: float
    ) -> None:
        k, v = self.k.copy(), self.v.copy()
        k[0, 2] = v[0, 2] = poison
        o, lse = reference.attention(self.q, k, v, return_lse=True, **exclude)
        clean, clean_lse = reference.attention(self.q, self.k, self.v, return_lse=True, **exclude)
        np.testing.assert_array_equal(o, clean)
        np.testing.assert_array_equal(lse, clean_lse)
        assert np.all(reference.attention_weights(self.q, k, **exclude)[..., 2] == 0)

    @pytest.mark.parametrize("which", ["key", "value"])
    def test_nan_reaches_exactly_the_rows_that_attend_it(self, which: str) -> None:
        k, v = self.k.copy(), self.v.copy()
        (k if which == "key" else v)[0, 1] = np.nan
        o = reference.attention(self.q, k, v, is_causal=True)
        assert o[0, 0, 0] == 1.0
        assert np.isnan(o[0, 1, 0])

    def test_nan_value_stays_in_its_column(self) -> None:
        v = np.array([[[1.0, np.nan], [1.0, 2.0]]])
        o = reference.attention(np.ones((1, 1, 1)), np.ones((1, 2, 1)), v)
        assert o[0, 0, 0] == 1.0 and np.isnan(o[0, 0, 1])

    def test_infinite_values_give_infinity(self) -> None:
        v = np.array([[[np.inf], [10.0], [-np.inf]]])
        assert reference.attention(self.q, self.k, v, kv_lens=[2]).tolist() == [[[np.inf]] * 2]
        assert np.all(np.isnan(reference.attention(self.q, self.k, v)))

    def test_huge_finite_logits(self) -> None:
        for sign, chosen in ((1, 100.0), (-1, 1.0)):
            o, lse = reference.attention(self.q, self.k, self.v, scale=sign * 1e30, return_lse=True)
            assert np.all(o == chosen)
            assert np.all(lse == (2e30 if sign == 1 else 0.0))
        assert np.all(reference.attention(self.q, self.k, self.v, scale=1e30, softcap=1e-3) > 0)

    def test_infinite_logit_follows_the_formula(self) -> None:
        """exp(inf − inf) is NaN and it is in the sum; an excluded key still weighs exactly 0."""
        k = np.array([[[0.0], [np.inf], [2.0]]])
        weights = reference.attention_weights(self.q, k, mask=[True, True, False])
        assert np.all(np.isnan(weights[..., :2])) and np.all(weights[..., 2] == 0)

    def test_logit_of_minus_infinity_weighs_nothing(self) -> None:
        k = np.array([[[0.0], [-np.inf], [0.0]]])
        assert reference.attention(self.q, k, self.v).tolist() == [[[50.5], [50.5]]]
        o, lse = reference.attention(self.q, k[:, 1:2], self.v[:, 1:2], return_lse=True)
        assert np.all(o == 0) and np.all(lse == -np.inf)

    def test_sinks_take_probability(self) -> None:
        """Logits 0, 0 and a sink of log 2 leave 1/4 to each key."""
        o, lse = reference.attention(
            np.zeros((1, 1, 1)),
            np.zeros((1, 2, 1)),
            np.array([[[1.0], [3.0]]]),
            sinks=[math.log(2)],
            return_lse=True,
        )
        assert o.item() == pytest.approx(1.0, rel=1e-15)
        assert lse.item() == pytest.approx(math.log(4), rel=1e-15)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="differ in batch or head size"):
        reference.attention(Q, K[..., :2], V)
    with pytest.raises(ValueError, match="differ in batch, heads or length"):
        reference.attention(Q, K, V[:, :, :3])
    with pytest.raises(ValueError, match="3 query heads do not divide among 2"):
        reference.attention(Q[:, :3], K, V)
    with pytest.raises(ValueError, match="layout must be"):
        reference.attention(Q, K, V, layout="sbhd")
    with pytest.raises(ValueError, match="3 or 4 dimensions"):
        reference.attention(Q[0, 0], K[0, 0], V[0, 0])
