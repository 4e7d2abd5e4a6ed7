"""Several batch axes, batch axes that broadcast, and a scale for each head."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import numattn as na
from cases import DTYPES, normal
from numattn import reference
from tolerance import assert_same_bits, assert_weights_close, expect

Array = NDArray[Any]

# Batch axes of q, k and v.
AXES = [
    ((2, 3), (2, 3), (2, 3)),
    ((1,), (3,), (3,)),
    ((3,), (1,), (1,)),
    ((3,), (1,), (3,)),
    ((2, 1), (1, 3), (2, 3)),
    ((2, 3), (1, 1), (1, 3)),
    ((2, 1, 2), (1, 2, 2), (1, 1, 1)),
]


def inputs(rng: np.random.Generator, axes: Any, dtype: str = "float32") -> tuple[Array, ...]:
    q = normal(rng, (*axes[0], 4, 20, 16), dtype)
    k = normal(rng, (*axes[1], 2, 33, 16), dtype)
    return q, k, normal(rng, (*axes[2], 2, 33, 8), dtype)


def options_of(rng: np.random.Generator, axes: tuple[int, ...]) -> dict[str, Any]:
    """Each argument that has batch axes, over all of them or some."""
    last = axes[-1:]
    return {
        "mask": rng.random((*axes, 1, 20, 33)) < 0.8,
        "bias": normal(rng, (*last, 4, 20, 33)),
        "kv_lens": rng.integers(20, 34, axes),
        "q_offset": rng.integers(0, 13, last),
        "is_causal": True,
        "alibi_slopes": abs(normal(rng, (*axes, 4))),
        "key_spans": (rng.integers(0, 4, (*axes, 1, 20)), 33),
        "sinks": normal(rng, (4,)),
    }


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_options", [False, True])
def test_batch_axes(
    isa: str, rng: np.random.Generator, axes: Any, dtype: str, with_options: bool
) -> None:
    """Each entry has the bits of its own call."""
    q, k, v = inputs(rng, axes, dtype)
    whole = np.broadcast_shapes(*axes)
    options = options_of(rng, whole) if with_options else {}
    o, lse = na.attention(q, k, v, return_lse=True, **options)
    expect(q, k, v, **options).check(o, lse)
    wide = [np.broadcast_to(x, whole + x.shape[-3:]) for x in (q, k, v)]
    for index in np.ndindex(*whole):
        own = {name: entry(name, x, whole, index) for name, x in options.items()}
        one, one_lse = na.attention(*(x[index] for x in wide), return_lse=True, **own)
        assert_same_bits(o[index], one)
        assert_same_bits(lse[index], one_lse)
    weights = na.attention_weights(q, k, rows=[3, -1], **options)
    pair = np.broadcast_shapes(*axes[:2])
    if pair == whole:
        expected = reference.attention_weights(q, k, rows=[3, -1], **options)
        assert_weights_close(weights, expected)


def entry(name: str, value: Any, axes: tuple[int, ...], index: tuple[int, ...]) -> Any:
    others = {"mask": 3, "bias": 3, "alibi_slopes": 1, "kv_lens": 0, "q_offset": 0}
    if name == "key_spans":
        return (np.broadcast_to(value[0], axes + value[0].shape[-2:])[index], value[1])
    if name not in others:
        return value
    tail = value.shape[value.ndim - others[name] :]
    picked = np.broadcast_to(value, axes + tail)[index]
    return np.atleast_1d(picked) if name in ("kv_lens", "q_offset") else picked


def test_layout_and_out(isa: str, rng: np.random.Generator) -> None:
    q, k, v = inputs(rng, AXES[4])
    o = na.attention(q, k, v)
    turned = [x.swapaxes(-3, -2) for x in (q, k, v)]
    assert_same_bits(na.attention(*turned, layout="bshd").swapaxes(-3, -2), o)
    out = np.empty_like(o)
    assert na.attention(q, k, v, out=out) is out
    assert_same_bits(out, o)
    got, _ = na.attention(q, k, v, out=out, return_lse=True)
    assert got is out
    out = np.empty((2, 3, 20, 4, 8), np.float32)
    assert na.attention(*turned, out=out, layout="bshd") is out
    assert_same_bits(out.swapaxes(-3, -2), o)


def test_stored_integers(isa: str, rng: np.random.Generator) -> None:
    q, k, v = inputs(rng, ((3,), (1,), (1,)))
    (k, k_scale), (v, v_scale) = na.quantize(k), na.quantize(v)
    scales = {"k_scale": k_scale, "v_scale": v_scale}
    o = na.attention(q, k, v, **scales)
    several = [np.repeat(x, 3, axis=0) for x in (k, v)]
    repeated = {name: np.repeat(x, 3, axis=0) for name, x in scales.items()}
    assert_same_bits(o, na.attention(q, *several, **repeated))
    # Two axes, of which scales have one.
    twice = na.attention(q[None], k[None], v[None], **scales)
    assert_same_bits(twice[0], o)


def test_one_axis_is_not_copied(rng: np.random.Generator) -> None:
    """What serves all entries lies in memory once: growth is that of the result."""
    import tracemalloc

    q, k, v = normal(rng, (3, 1, 1, 4096, 64))
    queries = np.broadcast_to(q[:, :, :16], (64, 1, 16, 64))
    na.attention(queries, k, v)
    tracemalloc.start()
    na.attention(queries, k, v)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < k.nbytes


def test_axes_that_do_not_fit(rng: np.random.Generator) -> None:
    q, k, v = inputs(rng, ((2, 3), (2, 2), (2, 3)))
    with pytest.raises(ValueError, match=r"batch axes of q \(2, 3, 4, 20, 16\), k \(2, 2, 2, 33"):
        na.attention(q, k, v)
    q, k, v = inputs(rng, AXES[0])
    with pytest.raises(ValueError, match=r"shape \(5,\) does not fit the batch axes \(2, 3\)"):
        na.attention(q, k, v, kv_lens=[1, 2, 3, 4, 5])
    with pytest.raises(ValueError, match=r"out must have shape \(2, 3, 4, 20, 8\), not \(6, 4"):
        na.attention(q, k, v, out=np.empty((6, 4, 20, 8), np.float32))
    gaps = np.empty((2, 4, 4, 20, 8), np.float32)[:, :3]
    with pytest.raises(ValueError, match="must have batch axes that are contiguous"):
        na.attention(q, k, v, out=gaps)
    with pytest.raises(ValueError, match="out overlaps q"):
        na.attention(q, k, v, out=q[..., :8])
    bias = np.zeros((2, 3, 4, 20, 33), np.float32)
    out = bias.reshape(-1)[: 6 * 4 * 20 * 8].reshape(2, 3, 4, 20, 8)
    with pytest.raises(ValueError, match="out overlaps bias"):
        na.attention(q, k, v, bias=bias, out=out)


# --- a scale for each head ------------------------------------------------------------------------

SCALES: dict[str, Any] = {
    "list": [0.1, 0.25, 0.5, -0.3],
    "per head": np.array([0.1, 0.25, 0.5, 0.0], np.float32),
    "per entry": np.linspace(0.1, 0.5, 8).reshape(2, 4),
}


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_scale_of_each_head(isa: str, rng: np.random.Generator, name: str, layout: Any) -> None:
    q, k, v = inputs(rng, ((2,), (2,), (2,)))
    if layout == "bshd":
        q, k, v = (np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, v))
    options: dict[str, Any] = {"layout": layout, "softcap": 3.0, "bias": normal(rng, (20, 33))}
    scale = SCALES[name]
    o, lse = na.attention(q, k, v, scale=scale, return_lse=True, **options)
    expect(q, k, v, scale=np.asarray(scale), **options).check(o, lse)
    weights = na.attention_weights(q, k, scale=scale, **options)
    expected = reference.attention_weights(q, k, scale=np.asarray(scale), **options)
    assert_weights_close(weights, expected)


def test_scale_of_each_head_at_16_bits(isa: str, rng: np.random.Generator) -> None:
    """Queries are rounded once more; by a power of two they are not."""
    for dtype in ("float16", "bfloat16"):
        q, k, v = inputs(rng, ((2,), (2,), (2,)), dtype)
        scale = np.array([0.1, 0.23, 0.4, 0.3], np.float32)
        rounded = (q.astype(np.float32) * scale[:, None, None]).astype(q.dtype)
        o = na.attention(q, k, v, scale=scale)
        assert_same_bits(o, na.attention(rounded, k, v, scale=1.0))
        expected = na.attention(q, k, v, scale=0.25)
        assert_same_bits(na.attention(q, k, v, scale=[0.25] * 4), expected)


def test_scales_that_do_not_fit(rng: np.random.Generator) -> None:
    q, k, v = inputs(rng, ((2,), (2,), (2,)))
    with pytest.raises(ValueError, match=r"scale must be one number or broadcast to \(2, 4\)"):
        na.attention(q, k, v, scale=[1.0, 2.0])
    with pytest.raises(ValueError, match="scale must be finite, not nan"):
        na.attention(q, k, v, scale=[1.0, np.nan, 1.0, 1.0])
    with pytest.raises(ValueError, match="scale must have 1 to 2 dimensions"):
        na.attention(q, k, v, scale=np.ones((2, 4, 1)))
    with pytest.raises(TypeError, match="scale must hold real numbers"):
        na.attention(q, k, v, scale=["a"] * 4)
    relative = na.position.shaw(np.ones((3, 16), np.float32))
    with pytest.raises(ValueError, match="scale must be one number with relative"):
        na.attention(q, k, v, scale=[1.0] * 4, relative=relative)
    with pytest.raises(TypeError, match="scale must be a real number"):
        na.attention_varlen(q[0, :, :1], k[0], v[0], [0, 4], [0, 2], scale=[1.0])
