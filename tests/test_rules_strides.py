"""Rule 8: any strides are accepted; other dtypes are refused (see also test_errors.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal, unit_inputs
from strides import RELAYOUTS
from tolerance import assert_same_bits, expect


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("relayout", RELAYOUTS)
def test_any_strides(isa: str, rng: np.random.Generator, relayout: str, dtype: str) -> None:
    q, k, v = unit_inputs(rng, (2, 4, 2), (35, 67), (24, 33), dtype)
    moved = [RELAYOUTS[relayout](x) for x in (q, k, v)]
    for x, y in zip(moved, (q, k, v), strict=True):
        assert_same_bits(np.array(x), y)  # the relayout itself changes no value
    expect(q, k, v).check(*na.attention(*moved, return_lse=True))


@pytest.mark.parametrize("width", [1, 33, 64, 130])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("relayout", RELAYOUTS)
def test_one_query_by_any_strides(
    isa: str, rng: np.random.Generator, relayout: str, dtype: str, width: int
) -> None:
    q, k, v = unit_inputs(rng, (2, 6, 2), (1, 101), (width, width), dtype)
    o, lse = na.attention(q, k, v, return_lse=True)
    expect(q, k, v).check(o, lse)
    moved = [RELAYOUTS[relayout](x) for x in (q, k, v)]
    for again, once in zip(na.attention(*moved, return_lse=True), (o, lse), strict=True):
        assert_same_bits(again, once)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", range(4))
def test_zero_strides(isa: str, rng: np.random.Generator, axis: int, dtype: str) -> None:
    q, k, v = unit_inputs(rng, (2, 4, 4), (35, 67), (24, 33), dtype)
    for which in range(3):
        inputs = [q, k, v]
        one = inputs[which][(slice(None),) * axis + (slice(0, 1),)]
        inputs[which] = np.broadcast_to(one, inputs[which].shape)
        assert inputs[which].strides[axis] == 0
        copies = [np.ascontiguousarray(x) for x in inputs]
        assert_same_bits(na.attention(*inputs), na.attention(*copies))


def test_one_element_repeated_as_everything(isa: str) -> None:
    x = np.broadcast_to(np.float32(0.5), (2, 4, 35, 24))
    np.testing.assert_allclose(na.attention(x, x, x), 0.5, rtol=1e-6)


def test_overlapping_rows(isa: str, rng: np.random.Generator) -> None:
    """Windows onto one signal, each row one sample further."""
    signal = normal(rng, (2, 1, 100))
    x = np.lib.stride_tricks.sliding_window_view(signal, 16, axis=2)
    expect(x, x, x).check(na.attention(x, x, x))


def test_heads_of_one_packed_projection(isa: str, rng: np.random.Generator) -> None:
    packed = normal(rng, (2, 35, 3, 4, 24))  # (B, S, 3, H, D), as one projection makes it
    q, k, v = (packed[:, :, i] for i in range(3))
    expect(q, k, v, layout="bshd").check(na.attention(q, k, v, layout="bshd"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides_of_a_single_element_do_not_matter(
    isa: str, rng: np.random.Generator, dtype: str
) -> None:
    q, k, v = unit_inputs(rng, (1, 1, 1), (1, 1), (1, 1), dtype)
    odd = [np.lib.stride_tricks.as_strided(x, x.shape, (-999, 7, 12345, 3)) for x in (q, k, v)]
    assert_same_bits(na.attention(*odd), v)


def test_strides_of_the_small_arguments(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (3, 4, 4), (20, 30))
    options: dict[str, Any] = {
        "kv_lens": np.array([5, 30, 17], np.int64),
        "q_offset": np.array([1, 2, 3], np.int64),
        "alibi_slopes": 0.01 * np.abs(normal(rng, (3, 4))),
        "sinks": normal(rng, (4,)),
        "is_causal": True,
    }
    expected = na.attention(q, k, v, **options)
    for name in ("fortran", "reversed_axes", "every_other", "misaligned", "read_only"):
        moved = {
            key: RELAYOUTS[name](x) if isinstance(x, np.ndarray) else x
            for key, x in options.items()
        }
        assert_same_bits(na.attention(q, k, v, **moved), expected, name)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint64])
def test_lengths_and_offsets_of_any_integer_dtype(
    isa: str, rng: np.random.Generator, dtype: Any
) -> None:
    q, k, v = unit_inputs(rng, (2, 2, 2), (20, 30))
    options = {"kv_lens": [7, 30], "q_offset": [3, 10]}
    expected = expect(q, k, v, is_causal=True, **options)
    typed = {name: np.array(x, dtype) for name, x in options.items()}
    expected.check(na.attention(q, k, v, is_causal=True, **typed))
    expected.check(na.attention(q, k, v, is_causal=True, **options))  # lists as well


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_bias_of_either_dtype(isa: str, rng: np.random.Generator, dtype: str) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 2), (20, 30), dtype=dtype)
    for bias_dtype in ("float32", dtype):
        bias = normal(rng, (1, 1, 20, 30), bias_dtype)
        expect(q, k, v, bias=bias).check(na.attention(q, k, v, bias=bias))


def test_read_only_everything(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (2, 4, 2), (20, 30))
    bias, mask = normal(rng, (1, 1, 20, 30)), rng.random((1, 1, 20, 30)) < 0.8
    for x in (q, k, v, bias, mask):
        x.flags.writeable = False
    expect(q, k, v, bias=bias, mask=mask).check(na.attention(q, k, v, bias=bias, mask=mask))


def test_subclass_of_ndarray(isa: str, rng: np.random.Generator, tmp_path: Any) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 2), (20, 30))
    mapped = np.memmap(tmp_path / "k", np.float32, "w+", shape=k.shape)
    mapped[...] = k
    expect(q, k, v).check(na.attention(q, mapped, v))
