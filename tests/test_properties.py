"""Properties that hold for every input, tried on inputs that hypothesis makes up."""

from __future__ import annotations

from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import numattn as na
from cases import BROADCASTS, DTYPES, broadcastable, normal, unit_inputs
from numattn import reference
from strides import RELAYOUTS
from tolerance import assert_same_bits, expect

pytestmark = pytest.mark.usefixtures("isa")

settings = hypothesis.settings(
    deadline=None,
    max_examples=60,
    derandomize=True,  # the same examples at every run
    database=None,
    # The ISA is one for all examples of a test, which is what we want.
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


@st.composite
def problems(draw: st.DrawFn, dtypes: tuple[str, ...] = tuple(DTYPES)) -> tuple[Any, ...]:
    """Draw (rng, q, k, v) of any small shape."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kv_heads = draw(st.integers(1, 3))
    heads = (draw(st.integers(1, 3)), kv_heads * draw(st.integers(1, 3)), kv_heads)
    lengths = (draw(st.integers(1, 80)), draw(st.integers(1, 150)))
    dims = (draw(st.integers(1, 70)), draw(st.integers(1, 70)))
    return rng, *unit_inputs(rng, heads, lengths, dims, draw(st.sampled_from(dtypes)))


@st.composite
def structures(draw: st.DrawFn, batch: int, query_len: int, key_len: int) -> dict[str, Any]:
    """Draw what excludes keys by an interval."""
    side = st.one_of(st.none(), st.integers(-1, key_len + 3))
    offset = st.integers(-query_len - 3, key_len + 3)
    per_entry = st.lists(offset, min_size=batch, max_size=batch)
    return {
        "is_causal": draw(st.booleans()),
        "q_offset": draw(st.one_of(offset, per_entry)),
        "window": draw(st.one_of(st.none(), st.tuples(side, side))),
        "kv_lens": draw(
            st.one_of(
                st.none(),
                st.lists(st.integers(0, key_len), min_size=batch, max_size=batch),
            )
        ),
    }


def visible(shape: tuple[int, ...], key_len: int, options: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Return the mask (B, 1, Sq, Sk) that the structure means, one entry at a time."""
    batch, _, query_len, _ = shape
    offsets = np.broadcast_to(options["q_offset"], batch)
    lengths = [key_len] * batch if options["kv_lens"] is None else options["kv_lens"]
    left, right = (None, None) if options["window"] is None else options["window"]
    seen = np.ones((batch, 1, query_len, key_len), bool)
    for b in range(batch):
        for i in range(query_len):
            position = int(offsets[b]) + i
            for j in range(key_len):
                seen[b, 0, i, j] = (
                    j < lengths[b]
                    and (not options["is_causal"] or j <= position)
                    and (left in (None, -1) or j >= position - left)
                    and (right in (None, -1) or j <= position + right)
                )
    return seen


@settings
@hypothesis.given(problem=problems(), data=st.data())
def test_structure_is_the_mask_it_means(problem: Any, data: st.DataObject) -> None:
    _, q, k, v = problem
    options = data.draw(structures(q.shape[0], q.shape[2], k.shape[2]))
    mask = visible(q.shape, k.shape[2], options)
    expected = expect(q, k, v, mask=mask)
    expected.check(*na.attention(q, k, v, mask=mask, return_lse=True))
    expected.check(*na.attention(q, k, v, return_lse=True, **options))


@settings
@hypothesis.given(problem=problems(), data=st.data())
def test_any_mask_and_bias(problem: Any, data: st.DataObject) -> None:
    rng, q, k, v = problem
    full = (*q.shape[:3], k.shape[2])
    density = data.draw(st.sampled_from([0.0, 0.1, 0.9, 1.0]))
    mask = rng.random(broadcastable(data.draw(st.sampled_from(BROADCASTS)), full)) < density
    bias = normal(rng, broadcastable(data.draw(st.sampled_from(BROADCASTS)), full))
    options: dict[str, Any] = {"mask": mask, "bias": bias}
    if data.draw(st.booleans()):
        options["softcap"] = data.draw(st.floats(0.5, 50))
    if data.draw(st.booleans()):
        options["sinks"] = normal(rng, q.shape[1:2])
    expect(q, k, v, **options).check(*na.attention(q, k, v, return_lse=True, **options))


@settings
@hypothesis.given(problem=problems(), relayouts=st.tuples(*[st.sampled_from([*RELAYOUTS])] * 3))
def test_any_strides(problem: Any, relayouts: tuple[str, str, str]) -> None:
    _, *inputs = problem
    moved = [RELAYOUTS[name](x) for name, x in zip(relayouts, inputs, strict=True)]
    assert_same_bits(na.attention(*moved), na.attention(*inputs))


@settings
@hypothesis.given(problem=problems())
def test_any_slices(problem: Any) -> None:
    """Views with steps and offsets, of positive and negative sign, and with overlapping bases."""
    rng, q, k, v = problem
    views = []
    for x in (q, k, v):
        wide = normal(rng, tuple(3 * n + 2 for n in x.shape)).astype(x.dtype)
        slices = []
        for n in x.shape:
            step = int(rng.choice([-3, -2, -1, 1, 2, 3]))
            start = int(rng.integers(0, 3)) if step > 0 else 3 * n + 1 - int(rng.integers(0, 2))
            slices.append(slice(start, None, step))
        views.append(wide[tuple(slices)][tuple(slice(n) for n in x.shape)])
        assert views[-1].shape == x.shape
    copies = [np.ascontiguousarray(x) for x in views]
    assert_same_bits(na.attention(*views), na.attention(*copies))


@settings
@hypothesis.given(problem=problems(("float32",)))
def test_the_order_of_the_keys_does_not_matter(problem: Any) -> None:
    rng, q, k, v = problem
    order = rng.permutation(k.shape[2])
    bias = normal(rng, (1, 1, q.shape[2], k.shape[2]))
    mask = rng.random((q.shape[0], 1, 1, k.shape[2])) < 0.8
    moved = na.attention(
        q, k[:, :, order], v[:, :, order], bias=bias[..., order], mask=mask[..., order]
    )
    expected = expect(q, k, v, bias=bias, mask=mask)
    expected.check(moved)


@settings
@hypothesis.given(problem=problems(("float32",)))
def test_permuted_queries_give_permuted_rows(problem: Any) -> None:
    rng, q, k, v = problem
    order = rng.permutation(q.shape[2])
    expected = expect(q[:, :, order], k, v)
    expected.check(na.attention(q, k, v)[:, :, order])


@settings
@hypothesis.given(problem=problems(("float32",)))
def test_permuted_heads_and_entries_give_permuted_results(problem: Any) -> None:
    rng, q, k, v = problem
    k, v = (np.repeat(x, q.shape[1] // k.shape[1], axis=1) for x in (k, v))
    entries, heads = rng.permutation(q.shape[0]), rng.permutation(q.shape[1])
    moved = na.attention(*(x[entries][:, heads] for x in (q, k, v)))
    assert_same_bits(moved, na.attention(q, k, v)[entries][:, heads])


@settings
@hypothesis.given(problem=problems(("float32",)), shift=st.floats(-30, 30, width=32))
def test_a_constant_on_all_scores_changes_only_lse(problem: Any, shift: float) -> None:
    _, q, k, v = problem
    exact_o, exact_lse = reference.attention(q, k, v, return_lse=True)
    bias = np.full((1, 1, 1, 1), shift, np.float32)
    o, lse = na.attention(q, k, v, bias=bias, return_lse=True)
    # Scores of up to 40 round with 40·2^-24.
    np.testing.assert_allclose(o, exact_o, atol=1e-5)
    np.testing.assert_allclose(lse, exact_lse + shift, atol=1e-5)


@settings
@hypothesis.given(problem=problems())
def test_the_result_lies_among_the_values(problem: Any) -> None:
    _, q, k, v = problem
    o = na.attention(q, k, v).astype(np.float64)
    shared = np.repeat(v.astype(np.float64), q.shape[1] // v.shape[1], axis=1)
    low, high = shared.min(axis=2, keepdims=True), shared.max(axis=2, keepdims=True)
    # Weights that sum to 1 within rounding. The rounding of the result to 16 bits is monotonic, and
    # low and high are numbers of that dtype.
    slack = 1e-6 * np.maximum(np.abs(low), np.abs(high))
    assert ((o >= low - slack) & (o <= high + slack)).all()


@settings
@hypothesis.given(problem=problems(("float32",)), data=st.data())
def test_parts_of_the_keys_join_by_their_lse(problem: Any, data: st.DataObject) -> None:
    """o = Σ e^(lse_p − lse)·o_p over disjoint parts, and e^lse = Σ e^lse_p."""
    _, q, k, v = problem
    cut = data.draw(st.integers(0, k.shape[2]))
    parts = [
        na.attention(q, k[:, :, keys], v[:, :, keys], return_lse=True)
        for keys in (slice(0, cut), slice(cut, None))
    ]
    joined = np.logaddexp(*(lse.astype(np.float64) for _, lse in parts))
    o = sum(np.exp(lse - joined)[..., np.newaxis] * o for o, lse in parts)
    expect(q, k, v).check(o.astype(np.float32), joined.astype(np.float32))


@settings
@hypothesis.given(problem=problems(("float32",)))
def test_linear_in_the_values(problem: Any) -> None:
    rng, q, k, v = problem
    other = normal(rng, v.shape)
    together = na.attention(q, k, np.concatenate([v, other, v + 2 * other], axis=3))
    first, second, both = np.split(together.astype(np.float64), 3, axis=3)
    np.testing.assert_allclose(both, first + 2 * second, atol=1e-5)


@settings
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 80), st.integers(1, 80)),
    activation=st.sampled_from([None, "relu", "gelu", "gelu_tanh", "silu"]),
)
def test_linear_of_any_shape(
    seed: int, shape: tuple[int, int, int], activation: str | None
) -> None:
    rng = np.random.default_rng(seed)
    rows, depth, out_features = shape
    x, weight, bias = normal(rng, (rows, depth)), normal(rng, (out_features, depth)), None
    got = na.Linear(weight, bias)(x, activation=activation)
    exact = reference.Linear(weight, bias)(x, activation=activation)
    np.testing.assert_allclose(got, exact, atol=3e-7 * depth, rtol=1e-6)


@st.composite
def relatives(
    draw: st.DrawFn, rng: np.random.Generator, heads: int, dims: tuple[int, int]
) -> na.position.Relative:
    """Draw terms by distance: any rows in any order, of tables that may be missing."""
    rows = draw(st.integers(1, 12))
    parts: dict[str, Any] = {}
    for name, width in (("query_table", 0), ("key_table", 0), ("value_table", 1)):
        if draw(st.booleans()):
            shape = (draw(st.sampled_from([1, heads])), rows, dims[width])
            parts[name] = normal(rng, shape)
    for name in ("content_bias", "position_bias"):
        if draw(st.booleans()):
            parts[name] = normal(rng, (draw(st.sampled_from([1, heads])), dims[0]))
    if not parts.keys() & {"query_table", "key_table", "value_table"}:
        parts["query_table"] = normal(rng, (1, rows, dims[0]))
    return na.position.Relative(
        **parts,
        distance_rows=np.repeat(rng.integers(0, rows, 40), rng.integers(1, 9, 40)),
        first_distance=draw(st.integers(-200, 100)),
        scale=1 / np.sqrt(6 * dims[0]),
    )


@settings
@hypothesis.given(problem=problems(), data=st.data())
def test_any_terms_by_distance(problem: Any, data: st.DataObject) -> None:
    rng, q, k, v = problem
    options = data.draw(structures(q.shape[0], q.shape[2], k.shape[2]))
    options["relative"] = data.draw(relatives(rng, q.shape[1], (q.shape[3], v.shape[3])))
    expect(q, k, v, **options).check(*na.attention(q, k, v, return_lse=True, **options))
