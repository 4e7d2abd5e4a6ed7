"""`numattn.compat.onnx.new_ops` in the evaluator of the onnx package."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.backend.test.case.node import _NodeTestCases as NODE_CASES
from onnx.reference import ReferenceEvaluator

import numattn.compat.onnx.evaluator as evaluator
from numattn.compat.onnx import new_ops

for name in ("attention", "rotaryembedding"):
    importlib.import_module(f"onnx.backend.test.case.node.{name}")  # fills NODE_CASES
CASES = [
    case
    for case in NODE_CASES
    if [node.op_type for node in case.model.graph.node] in (["Attention"], ["RotaryEmbedding"])
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_case_of_the_onnx_package(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    for function in ("attention", "rotary_embedding"):
        own = getattr(evaluator, function)

        def counted(*inputs: Any, own: Any = own, function: str = function, **rest: Any) -> Any:
            called.append(function)
            return own(*inputs, **rest)

        monkeypatch.setattr(evaluator, function, counted)
    session = ReferenceEvaluator(case.model, new_ops=new_ops())
    for inputs, expected in case.data_sets:
        given = dict(zip(session.input_names, inputs, strict=True))
        for got, wanted in zip(session.run(None, given), expected, strict=True):
            assert got.shape == wanted.shape and got.dtype == wanted.dtype
            if got.dtype == np.float32:
                np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
            else:
                wide = (np.asarray(x).astype(np.float64) for x in (got, wanted))
                np.testing.assert_allclose(*wide, rtol=2e-2, atol=2e-3)
    assert len(called) == len(case.data_sets)


def test_among_other_operators() -> None:
    """Y = Attention(X, X, X) + X; the other outputs are not named."""
    helper = onnx.helper
    nodes = [
        helper.make_node("Attention", ["X", "X", "X"], ["Y"], is_causal=1),
        helper.make_node("Add", ["Y", "X"], ["Z"]),
    ]
    shape = (1, 2, 5, 8)
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("X", "Z")
    ]
    graph = helper.make_graph(nodes, "layer", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=10)
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    (own,) = ReferenceEvaluator(model, new_ops=new_ops()).run(None, {"X": x})
    (theirs,) = ReferenceEvaluator(model).run(None, {"X": x})
    np.testing.assert_allclose(own, theirs, rtol=1e-5, atol=1e-6)
