"""numattn's Attention in ONNX Runtime, beside numattn itself and the cases of the onnx package."""

from __future__ import annotations

import importlib
from typing import Any

import ml_dtypes  # noqa: F401  (NumPy knows bfloat16 by it)
import numpy as np
import pytest

import numattn as na

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx.backend.test.case.node import _NodeTestCases as NODE_CASES  # noqa: E402

from numattn.compat.onnx import attention  # noqa: E402
from numattn.compat.onnxruntime import rewrite  # noqa: E402
from onnxruntime_nodes import model_of, ort_value, run, session_of  # noqa: E402

importlib.import_module("onnx.backend.test.case.node.attention")  # fills NODE_CASES
CASES = [case for case in NODE_CASES if [n.op_type for n in case.model.graph.node] == ["Attention"]]
NAMES = ["Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen"]
PRESENTS = ("Y", "present_key", "present_value")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_case_of_the_onnx_package(case: Any) -> None:
    """Those that ask for the fourth output are refused, by name."""
    (node,) = case.model.graph.node
    if len(node.output) == 4:
        with pytest.raises(ValueError, match=r"output 3 \(qk_matmul_output\) is not implemented"):
            rewrite(case.model)
        return
    rewritten = rewrite(case.model)
    assert rewritten.replaced == {"Attention": 1} and not rewritten.left
    session = session_of(rewritten.model)
    for inputs, expected in case.data_sets:
        given = dict(zip((x.name for x in session.get_inputs()), inputs, strict=True))
        if len({str(given[name].dtype) for name in ("Q", "K", "V")}) > 1:
            continue
        for got, wanted in zip(run(session, given), expected, strict=True):
            assert got.shape == wanted.shape and got.dtype == wanted.dtype
            tolerance = (1e-4, 1e-5) if got.dtype == np.float32 else (2e-2, 2e-3)
            wide = (np.asarray(x).astype(np.float64) for x in (got, wanted))
            np.testing.assert_allclose(*wide, rtol=tolerance[0], atol=tolerance[1])


@pytest.fixture
def qkv(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        name: rng.standard_normal((2, heads, length, 16), np.float32)
        for name, heads, length in (("Q", 6, 37), ("K", 2, 37), ("V", 2, 37))
    }


def outputs_of(inputs: dict[str, np.ndarray], threads: int = 1, **attributes: Any) -> list[Any]:
    model = model_of("Attention", inputs, NAMES, PRESENTS, **attributes)
    return run(session_of(model, threads), inputs)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_bits_are_those_of_numattn(
    isa: str, qkv: dict[str, np.ndarray], rng: np.random.Generator, dtype: str
) -> None:
    """With a past and a mask; at every instruction set."""
    past = {name: rng.standard_normal((2, 2, 20, 16)) for name in ("past_key", "past_value")}
    inputs = {name: x.astype(dtype) for name, x in {**qkv, **past}.items()}
    inputs["attn_mask"] = rng.random((2, 1, 37, 57)) < 0.8
    settings = {"is_causal": 1, "softcap": 3.0, "scale": 0.5, "left_window_size": 30}
    got = outputs_of(inputs, **settings)
    expected = attention(*(inputs.get(name) for name in NAMES), **settings)
    for mine, wanted in zip(got, expected[:3], strict=True):
        assert mine.dtype == wanted.dtype and mine.tobytes() == wanted.tobytes()


def test_presents_need_not_be_handed_on(
    qkv: dict[str, np.ndarray], rng: np.random.Generator
) -> None:
    for name in ("past_key", "past_value"):
        qkv[name] = rng.standard_normal((2, 2, 20, 16), np.float32)
    for outputs in (["Y"], ["Y", "", "present_value"]):
        got = run(session_of(model_of("Attention", qkv, NAMES, outputs)), qkv)
        wanted = outputs_of(qkv)
        assert got[0].tobytes() == wanted[0].tobytes()
        assert got[-1].tobytes() == wanted[0 if len(outputs) == 1 else 2].tobytes()


def test_lengths_and_a_bias(qkv: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    qkv["nonpad_kv_seqlen"] = np.array([37, 9])
    qkv["attn_mask"] = rng.standard_normal((6, 1, 37), np.float32)
    got = outputs_of(qkv, is_causal=1)[0]
    wanted = attention(*(qkv.get(name) for name in NAMES), is_causal=1)[0]
    assert got.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(("opset", "sees"), [(23, 37), (24, 1)])
def test_a_mask_of_one_column(qkv: dict[str, np.ndarray], opset: int, sees: int) -> None:
    qkv["attn_mask"] = np.ones((37, 1), bool)
    got = outputs_of(qkv, opset=opset)[0]
    np.testing.assert_array_equal(
        got, na.attention(qkv["Q"], qkv["K"][:, :, :sees], qkv["V"][:, :, :sees])
    )


def test_joined_heads_and_values_of_another_width(rng: np.random.Generator) -> None:
    q, k, v = (rng.standard_normal((2, 11, 4 * width), np.float32) for width in (8, 8, 3))
    model = model_of(
        "Attention", {"Q": q, "K": k, "V": v}, NAMES, ["Y"], q_num_heads=4, kv_num_heads=4
    )
    (got,) = run(session_of(model), {"Q": q, "K": k, "V": v})
    split = (x.reshape(2, 11, 4, -1) for x in (q, k, v))
    np.testing.assert_array_equal(got, na.attention(*split, layout="bshd").reshape(2, 11, 12))


def test_no_tokens_at_all() -> None:
    empty = {name: np.zeros((1, 2, 0, 4), np.float32) for name in "QKV"}
    assert [x.shape for x in outputs_of(empty)] == [(1, 2, 0, 4)] * 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"K": np.ones((2, 2, 37, 8), np.float32)}, "must have the same head dimension"),
        ({"attn_mask": np.ones((37, 37), np.int32)}, "attn_mask must be bool, float"),
        ({"past_key": np.ones((2, 2, 3, 16), np.float32)}, "must be given together"),
        ({"nonpad_kv_seqlen": np.ones(3, np.int64)}, r"must have shape \(2\), not \(3\)"),
        ({"nonpad_kv_seqlen": np.full(2, 38)}, "kv_lens"),
    ],
)
def test_what_does_not_fit_is_said(
    qkv: dict[str, np.ndarray], change: dict[str, np.ndarray], words: str
) -> None:
    with pytest.raises(Exception, match=f"numattn's Attention: .*{words}"):
        outputs_of(qkv | change)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"softcap": -1.0}, "softcap must be 0 or positive"),
        ({"left_window_size": -2}, "left_window_size and right_window_size must be -1 or more"),
        ({"softmax_precision": 2}, "softmax_precision must be 1, 10, 11 or 16, not 2"),
    ],
)
def test_attributes_are_refused_with_the_session(
    qkv: dict[str, np.ndarray], attributes: dict[str, Any], words: str
) -> None:
    with pytest.raises(Exception, match=words):
        session_of(model_of("Attention", qkv, NAMES, ["Y"], **attributes))


def test_a_result_that_is_not_computed_is_refused(qkv: dict[str, np.ndarray]) -> None:
    with pytest.raises(Exception, match="the output qk_matmul_output is not implemented"):
        session_of(model_of("Attention", qkv, NAMES, ["Y", "", "", "qk"]))


def test_float64_is_refused(qkv: dict[str, np.ndarray]) -> None:
    wide = {name: x.astype(np.float64) for name, x in qkv.items()}
    with pytest.raises(Exception, match=r"Type 'tensor\(double\)'"):
        session_of(model_of("Attention", wide, NAMES, ["Y"]))


def test_values_keep_their_memory(qkv: dict[str, np.ndarray]) -> None:
    """Inputs are read in place, and none is written to."""
    before = {name: x.copy() for name, x in qkv.items()}
    values = {name: ort_value(x) for name, x in qkv.items()}
    session_of(model_of("Attention", qkv, NAMES, ["Y"])).run_with_ort_values(["Y"], values)
    for name, value in values.items():
        np.testing.assert_array_equal(value.numpy(), before[name])
