"""Each error of rules 8 to 10 by its message: what was wrong, and what would mend it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import numattn as na
from cases import unit_inputs

Call = Callable[..., Any]


@pytest.fixture
def inputs(rng: np.random.Generator) -> dict[str, Any]:
    q, k, v = unit_inputs(rng, (2, 4, 2), (5, 7), (8, 6))
    return {"q": q, "k": k, "v": v}


def shape_text(*shape: int) -> str:
    """Return a pattern for that shape as Python writes it."""
    return r"\(" + r",\s*".join(map(str, shape)) + r",?\)"


# --- rule 8: dtypes -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_float64_says_to_cast(inputs: dict[str, Any], name: str) -> None:
    inputs[name] = inputs[name].astype(np.float64)
    with pytest.raises(TypeError, match=r"(?is)float64.*(cast|astype).*float32"):
        na.attention(**inputs)


def test_all_float64_says_to_cast(inputs: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"(?is)float64.*(cast|astype).*float32"):
        na.attention(**{name: x.astype(np.float64) for name, x in inputs.items()})


@pytest.mark.parametrize("name", ["q", "k", "v"])
@pytest.mark.parametrize("dtype", [">f4", ">f2"])
def test_byte_swapped_says_to_swap(inputs: dict[str, Any], name: str, dtype: str) -> None:
    native = {key: x.astype(np.dtype(dtype).newbyteorder("=")) for key, x in inputs.items()}
    native[name] = native[name].astype(dtype)
    with pytest.raises(TypeError, match=r"(?is)byte.?(order|swap).*astype|newbyteorder"):
        na.attention(**native)


@pytest.mark.parametrize("name", ["q", "k", "v"])
@pytest.mark.parametrize("dtype", ["int8", "int64", "uint16", "bool", "complex64"])
def test_other_numbers_say_to_cast(inputs: dict[str, Any], name: str, dtype: str) -> None:
    inputs[name] = inputs[name].astype(dtype)
    with pytest.raises(TypeError, match="cast") as caught:
        na.attention(**inputs)
    assert dtype in str(caught.value) and "float32" in str(caught.value)


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_objects_say_to_cast(inputs: dict[str, Any], name: str) -> None:
    inputs[name] = inputs[name].astype(object)
    with pytest.raises(TypeError, match=r"(?is)object.*float32"):
        na.attention(**inputs)


@pytest.mark.parametrize("others", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_mixed_dtypes_name_both(inputs: dict[str, Any], name: str, others: str) -> None:
    dtype = ml_dtypes.bfloat16 if others == "bfloat16" else np.float16
    inputs[name] = inputs[name].astype(dtype)
    with pytest.raises(TypeError) as caught:
        na.attention(**inputs)
    # "bfloat16" contains "float16", so a message about float16 must not be one about bfloat16.
    assert "float32" in str(caught.value) and others in str(caught.value)
    assert ("bfloat16" in str(caught.value)) == (others == "bfloat16")


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "int4"])
def test_other_dtypes_of_ml_dtypes_are_refused(inputs: dict[str, Any], dtype: str) -> None:
    inputs = {name: x.astype(getattr(ml_dtypes, dtype)) for name, x in inputs.items()}
    with pytest.raises(TypeError, match=rf"(?is){dtype}.*float32"):
        na.attention(**inputs)


def test_a_type_that_is_only_called_bfloat16_is_refused(inputs: dict[str, Any]) -> None:
    """A structured dtype of the same size is not the scalar."""
    impostor = np.dtype([("bfloat16", np.uint16)])
    inputs["q"] = np.zeros(inputs["q"].shape, impostor)
    with pytest.raises(TypeError):
        na.attention(**inputs)


@pytest.mark.parametrize(
    ("option", "value", "match"),
    [
        ("mask", np.ones((5, 7), np.int64), r"(?is)mask.*int64.*bool"),
        ("mask", np.ones((5, 7), np.float32), r"(?is)mask.*float32.*(bool|bias)"),
        ("bias", np.ones((5, 7), bool), r"(?is)bias.*bool.*(mask|float32)"),
        ("bias", np.ones((5, 7)), r"(?is)bias.*float64.*float32"),
        ("bias", np.ones((5, 7), np.int32), r"(?is)bias.*int32.*float32"),
        ("bias", np.ones((5, 7), np.float16), r"(?is)bias.*float32.*float16"),
        ("bias", np.ones((5, 7), ">f4"), r"(?is)bias.*(byte|>f4)"),
        ("kv_lens", np.array([1.0, 2.0]), r"(?is)kv_lens.*float64"),
        ("q_offset", 1.5, r"(?is)q_offset"),
        ("q_offset", np.array([1.0, 2.0]), r"(?is)q_offset.*float64"),
        ("num_threads", 1.5, r"(?is)num_threads|integer"),
        ("scale", "big", r"(?is)scale|float|number"),
        ("softcap", "big", r"(?is)softcap|float|number"),
        ("window", (1.5, 2), r"(?is)window|integer"),
    ],
)
def test_score_arguments_of_wrong_type(
    inputs: dict[str, Any], option: str, value: Any, match: str
) -> None:
    with pytest.raises(TypeError, match=match):
        na.attention(**inputs, **{option: value})


def test_unknown_argument(inputs: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="causal"):
        na.attention(**inputs, causal=True)


# --- rule 9: shapes and ranges --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "named"),
    [
        # head sizes of q and k
        ({"k": (2, 2, 7, 9)}, [(2, 4, 5, 8), (2, 2, 7, 9)]),
        # batch sizes
        ({"k": (3, 2, 7, 8)}, [(3, 2, 7, 8)]),
        ({"v": (3, 2, 7, 6)}, [(3, 2, 7, 6)]),
        ({"q": (3, 4, 5, 8)}, [(3, 4, 5, 8)]),
        # numbers of heads
        ({"q": (2, 3, 5, 8)}, [(2, 3, 5, 8), (2, 2, 7, 8)]),
        ({"k": (2, 4, 7, 8)}, [(2, 4, 7, 8), (2, 2, 7, 6)]),
        ({"k": (2, 8, 7, 8), "v": (2, 8, 7, 6)}, [(2, 4, 5, 8), (2, 8, 7, 8)]),
        ({"k": (2, 0, 7, 8), "v": (2, 0, 7, 6)}, [(2, 0, 7, 8)]),
        # lengths of k and v
        ({"v": (2, 2, 8, 6)}, [(2, 2, 7, 8), (2, 2, 8, 6)]),
        # numbers of dimensions
        ({"q": (5, 8)}, [(5, 8)]),
        ({"q": (4, 5, 8)}, [(2, 2, 7, 8)]),
        ({"k": (2, 7, 8)}, [(2, 7, 8)]),
        ({"q": (), "k": (), "v": ()}, [()]),
        # nothing to attend by
        ({"q": (2, 4, 5, 0), "k": (2, 2, 7, 0)}, [(2, 4, 5, 0)]),
        ({"v": (2, 2, 7, 0)}, [(2, 2, 7, 0)]),
    ],
    ids=str,
)
def test_shapes_that_do_not_fit(
    inputs: dict[str, Any], shapes: dict[str, Any], named: list[tuple[int, ...]]
) -> None:
    inputs |= {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    with pytest.raises(ValueError) as caught:
        na.attention(**inputs)
    for shape in named:
        assert str(shape) in str(caught.value)


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_too_many_dimensions_are_counted(inputs: dict[str, Any], name: str) -> None:
    inputs[name] = inputs[name][np.newaxis]
    with pytest.raises(ValueError, match=rf"{name} .*(5 dimensions|\(1, 2)"):
        na.attention(**inputs)


def test_shapes_in_bshd_are_told_as_they_were_given(inputs: dict[str, Any]) -> None:
    by_token = {name: x.swapaxes(1, 2) for name, x in inputs.items()}
    by_token["v"] = by_token["v"][:, :6]
    with pytest.raises(ValueError) as caught:
        na.attention(**by_token, layout="bshd")
    assert "(2, 7, 2, 8)" in str(caught.value) and "(2, 6, 2, 6)" in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "match"),
    [
        ("mask", np.ones((5, 8), bool), r"mask.*" + shape_text(5, 8)),
        ("mask", np.ones((3, 1, 1, 7), bool), r"mask.*" + shape_text(3, 1, 1, 7)),
        ("mask", np.ones((1, 2, 4, 5, 7), bool), r"mask.*(5 dimensions|\(1, 2, 4, 5, 7\))"),
        ("mask", np.ones((2, 2, 5, 7), bool), r"mask.*" + shape_text(2, 2, 5, 7)),
        ("bias", np.ones((6, 7), np.float32), r"bias.*" + shape_text(6, 7)),
        ("bias", np.ones((2, 4, 7, 5), np.float32), r"bias.*" + shape_text(2, 4, 7, 5)),
        ("bias", np.ones((0,), np.float32), r"bias.*" + shape_text(0)),
        ("kv_lens", np.array([3, 8]), r"kv_lens.*8"),
        ("kv_lens", np.array([-1, 3]), r"kv_lens.*-1"),
        ("kv_lens", np.array([2**62, 3]), rf"kv_lens.*{2**62}"),
        ("kv_lens", np.array([3]), r"kv_lens.*2.*1"),
        ("kv_lens", np.array([[3, 3]]), r"kv_lens.*" + shape_text(1, 2)),
        ("q_offset", np.array([3, 4, 5]), r"q_offset.*2.*3"),
        ("q_offset", np.array([[3, 4]]), r"q_offset.*" + shape_text(1, 2)),
        ("q_offset", 2**70, r"q_offset|int"),
        ("window", 3, r"window.*3"),
        ("window", (1, 2, 3), r"window.*3"),
        ("window", (1,), r"window.*1"),
        ("window", (-2, 3), r"window.*-2"),
        ("window", (3, -7), r"window.*-7"),
        # Beyond float32 in units of log 2, or 0 there: neither overflows nor counts as none.
        ("scale", 1e39, r"scale.*1e\+39"),
        ("scale", -2.4e38, r"scale.*-2\.4e\+38"),
        ("alibi_slopes", np.ones(3, np.float32), r"alibi_slopes.*" + shape_text(3)),
        ("alibi_slopes", np.ones((4, 2), np.float32), r"alibi_slopes.*" + shape_text(4, 2)),
        ("sinks", np.ones(3, np.float32), r"sinks.*4.*3"),
        ("sinks", np.ones((2, 4), np.float32), r"sinks.*" + shape_text(2, 4)),
        ("layout", "sbhd", r"layout.*sbhd|sbhd.*layout"),
        ("num_threads", 0, r"num_threads.*0"),
        ("num_threads", -3, r"num_threads.*-3"),
    ],
)
def test_score_arguments_out_of_range(
    inputs: dict[str, Any], option: str, value: Any, match: str
) -> None:
    calls: list[Call] = [na.attention]
    if option != "v":
        calls.append(lambda q, k, v, **options: na.attention_weights(q, k, **options))
    for call in calls:
        with pytest.raises(ValueError, match=f"(?is){match}"):
            call(**inputs, **{option: value})


@pytest.mark.parametrize(
    ("q_shape", "k_shape", "v_shape"),
    [
        # The output has 2^80 elements, the inputs a few.
        ((1, 1, 2**40, 1), (1, 1, 1, 1), (1, 1, 1, 2**40)),
        # 2^64 elements: a wrapped product is 0.
        ((2, 2**31, 2, 1), (2, 1, 1, 1), (2, 1, 1, 2**31)),
        # 2^61 elements, but 2^63 bytes.
        ((1, 1, 2**31, 1), (1, 1, 1, 1), (1, 1, 1, 2**30)),
    ],
)
def test_size_of_the_output_does_not_wrap(q_shape: Any, k_shape: Any, v_shape: Any) -> None:
    one = np.zeros(1, np.float32)
    q, k, v = (
        np.lib.stride_tricks.as_strided(one, shape, (0, 0, 0, 0), writeable=False)
        for shape in (q_shape, k_shape, v_shape)
    )
    with pytest.raises(ValueError, match="(?i)2\\^63|overflow|too (large|big)|maximum|int64"):
        na.attention(q, k, v)


@pytest.mark.parametrize("length", [2**32, 2**40])
def test_size_of_the_weights_does_not_wrap(length: int) -> None:
    one = np.zeros(1, np.float32)
    q = np.lib.stride_tricks.as_strided(one, (1, 1, length, 1), (0, 0, 0, 0), writeable=False)
    with pytest.raises(ValueError, match="(?i)2\\^63|overflow|too (large|big)|maximum|int64"):
        na.attention_weights(q, q)


def test_possible_sizes_that_no_machine_has_are_memory_errors() -> None:
    one = np.zeros(1, np.float32)
    q = np.lib.stride_tricks.as_strided(one, (1, 1, 2**30, 1), (0, 0, 0, 0), writeable=False)
    v = np.lib.stride_tricks.as_strided(one, (1, 1, 1, 2**26), (0, 0, 0, 0), writeable=False)
    with pytest.raises(MemoryError):
        na.attention(q, np.zeros((1, 1, 1, 1), np.float32), v)


@pytest.mark.parametrize("value", [iter([[1.0]]), {1: 2.0}, object(), None])
def test_what_is_no_array_is_named(value: Any) -> None:
    """NumPy would make an array of one object of it, without a dimension."""
    named = type(value).__name__
    linear = na.Linear(np.ones((1, 1), np.float32))
    with pytest.raises(TypeError, match=f"x must be an array, not {named}"):
        linear(value)
    q = np.ones((1, 1, 1, 1), np.float32)
    with pytest.raises(TypeError, match=f"k must be an array, not {named}"):
        na.attention(q, value, q)
