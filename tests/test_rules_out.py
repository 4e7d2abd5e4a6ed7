"""Rules 9 and 10: errors are found before anything is read or written; a bad `out` is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal, unit_inputs
from guard_pages import guarded
from tolerance import assert_same_bits, expect

SHAPE = (2, 3, 20, 16)


@pytest.fixture
def inputs(rng: np.random.Generator) -> tuple[Any, Any, Any]:
    return unit_inputs(rng, (2, 3, 3), (20, 20), (16, 16))


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("part", ["whole", "reversed", "shifted_by_one_row"])
def test_out_that_overlaps_an_input(which: int, part: str, rng: np.random.Generator) -> None:
    memory = normal(rng, (2, 3, 21, 16))
    inputs = [normal(rng, SHAPE) for _ in range(3)]
    inputs[which] = memory[:, :, :20]
    out = {
        "whole": inputs[which],
        "reversed": inputs[which][::-1, ::-1],
        "shifted_by_one_row": memory[:, :, 1:],
    }[part]
    before = memory.copy()
    with pytest.raises(ValueError, match="(?i)out.*overlap"):
        na.attention(*inputs, out=out)
    assert_same_bits(memory, before)


@pytest.mark.parametrize("name", ["bias", "sinks", "alibi_slopes", "mask"])
def test_out_that_overlaps_a_score_argument(
    name: str, inputs: tuple[Any, Any, Any], rng: np.random.Generator
) -> None:
    out = normal(rng, SHAPE)
    before = out.copy()
    argument = {
        "bias": out[:, :, :, :1],
        "sinks": out[0, 0, 0, :3],
        "alibi_slopes": out[1, 2, 19, :3],
        "mask": out.view(np.bool_)[:, :, :, :20],
    }[name]
    with pytest.raises(ValueError, match="(?i)out.*overlap"):
        na.attention(*inputs, out=out, **{name: argument})
    assert_same_bits(out, before)


def test_out_inside_the_same_allocation_without_overlap(rng: np.random.Generator) -> None:
    memory = normal(rng, (4, *SHAPE))
    q, k, v, out = memory
    expected = expect(q.copy(), k.copy(), v.copy())
    na.attention(q, k, v, out=out)
    expected.check(out)


def test_out_between_the_rows_of_an_input(rng: np.random.Generator) -> None:
    memory = normal(rng, (2, 3, 40, 16))
    q, out = memory[:, :, ::2], memory[:, :, 1::2]
    k, v = normal(rng, SHAPE), normal(rng, SHAPE)
    expected = expect(q.copy(), k, v)
    na.attention(q, k, v, out=out)
    expected.check(out)


def refused(out: Any, inputs: tuple[Any, Any, Any], match: str) -> None:
    before = np.array(out)
    with pytest.raises(ValueError, match=match):
        na.attention(*inputs, out=out)
    assert_same_bits(np.array(out), before)


@pytest.mark.parametrize(
    "shape", [(2, 3, 20, 15), (2, 3, 21, 16), (3, 20, 16), (2, 20, 3, 16), (1, 3, 20, 16), (0,)]
)
def test_out_of_wrong_shape(inputs: tuple[Any, Any, Any], shape: tuple[int, ...]) -> None:
    as_text = r",\s*".join(map(str, shape))
    refused(np.full(shape, 7, np.float32), inputs, rf"(?is)out.*\({as_text},?\)")


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", ">f4", "bfloat16"])
def test_out_of_wrong_dtype(inputs: tuple[Any, Any, Any], dtype: str) -> None:
    refused(np.full(SHAPE, 7, DTYPES.get(dtype, dtype)), inputs, r"(?is)out.*float32")


def test_out_that_is_read_only(inputs: tuple[Any, Any, Any]) -> None:
    out = np.full(SHAPE, 7, np.float32)
    out.flags.writeable = False
    refused(out, inputs, r"(?is)out.*(read-only|writ)")


def test_out_with_gaps_in_the_last_dimension(inputs: tuple[Any, Any, Any]) -> None:
    out = np.full((2, 3, 20, 32), 7, np.float32)[..., ::2]
    refused(out, inputs, r"(?is)out.*(contiguous|stride)")


def test_out_that_overlaps_itself(inputs: tuple[Any, Any, Any]) -> None:
    row = np.full((2, 3, 1, 16), 7, np.float32)
    out = np.lib.stride_tricks.as_strided(row, SHAPE, (*row.strides[:2], 0, 4))
    refused(out, inputs, r"(?is)out.*(overlap|stride|broadcast)")


WRONG_CALLS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "shape": lambda q, k, v: na.attention(q, k, v[:, :, :19]),
    "head size": lambda q, k, v: na.attention(q, k[..., :15], v),
    "kv_lens": lambda q, k, v: na.attention(q, k, v, kv_lens=[3, 21]),
    "window": lambda q, k, v: na.attention(q, k, v, window=(-2, 3)),
    "layout": lambda q, k, v: na.attention(q, k, v, layout="hbsd"),
    "mask": lambda q, k, v: na.attention(q, k, v, mask=np.ones((3, 1, 1, 20), bool)),
    "bias": lambda q, k, v: na.attention(q, k, v, bias=np.zeros((20, 19), np.float32)),
    "sinks": lambda q, k, v: na.attention(q, k, v, sinks=np.zeros(2, np.float32)),
    "alibi": lambda q, k, v: na.attention(q, k, v, alibi_slopes=np.zeros(2, np.float32)),
    "weights": lambda q, k, v: na.attention_weights(q, k[..., :15]),
}


@pytest.mark.parametrize("wrong", WRONG_CALLS)
def test_errors_come_before_anything_is_read(wrong: str, inputs: tuple[Any, Any, Any]) -> None:
    """Not one byte of these inputs may be read; the call must end in its error all the same."""
    nothing = [(0, 0), (0, 0)]
    unreadable = [guarded(x, "first_byte", nothing) for x in inputs]
    with pytest.raises(ValueError):
        WRONG_CALLS[wrong](*unreadable)


@pytest.mark.parametrize(
    "options",
    [
        {"kv_lens": [3, 21]},
        {"window": (-2, 3)},
        {"layout": "hbsd"},
        {"mask": np.ones((3, 1, 1, 20), bool)},
        {"bias": np.zeros((20, 19), np.float32)},
        {"sinks": np.zeros(2, np.float32)},
        {"num_threads": 0},
    ],
    ids=str,
)
def test_errors_come_before_anything_is_written(
    options: dict[str, Any], inputs: tuple[Any, Any, Any]
) -> None:
    out = np.full(SHAPE, 7, np.float32)
    with pytest.raises(ValueError):
        na.attention(*inputs, out=out, **options)
    assert (out == 7).all()


def test_type_errors_come_before_anything_is_written(inputs: tuple[Any, Any, Any]) -> None:
    q, k, v = inputs
    out = np.full(SHAPE, 7, np.float32)
    with pytest.raises(TypeError):
        na.attention(q, k, v.astype(np.float64), out=out)
    with pytest.raises(TypeError):
        na.attention(q, k, v, bias=np.zeros((20, 20)), out=out)
    assert (out == 7).all()
