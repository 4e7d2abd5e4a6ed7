"""One node as a model, run by ONNX Runtime: its own operator, or numattn's."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import helper

from numattn.compat.onnxruntime import library_path

TYPES = {
    "float32": onnx.TensorProto.FLOAT,
    "float64": onnx.TensorProto.DOUBLE,
    "float16": onnx.TensorProto.FLOAT16,
    "bfloat16": onnx.TensorProto.BFLOAT16,
    "bool": onnx.TensorProto.BOOL,
    "int32": onnx.TensorProto.INT32,
    "int64": onnx.TensorProto.INT64,
}
Inputs = Mapping[str, np.ndarray]


def options(threads: int = 1) -> onnxruntime.SessionOptions:
    """Return what knows numattn's operators and writes no log of what fails."""
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = threads
    made.log_severity_level = 4
    made.register_custom_ops_library(library_path())
    return made


def model_of(
    operator: str,
    inputs: Inputs,
    names: Sequence[str],
    outputs: Sequence[str],
    domain: str = "numattn",
    **attributes: Any,
) -> onnx.ModelProto:
    """Return a model of one node; names that are not among the inputs are left out of it."""
    given = [name if name in inputs else "" for name in names]
    while given and not given[-1]:
        given.pop()
    node = helper.make_node(operator, given, list(outputs), domain=domain, **attributes)
    element = TYPES[str(next(iter(inputs.values())).dtype)]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        operator,
        [value(name, TYPES[str(x.dtype)], None) for name, x in inputs.items()],
        [value(name, element, None) for name in outputs if name],
    )
    opsets = [helper.make_opsetid(name, 1) for name in ("numattn", "com.microsoft")]
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 23), *opsets], ir_version=10
    )


def session_of(model: onnx.ModelProto, threads: int = 1) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options(threads), providers=["CPUExecutionProvider"]
    )


def ort_value(x: np.ndarray) -> onnxruntime.OrtValue:
    if x.dtype == ml_dtypes.bfloat16:
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
            x.view(np.uint16), onnx.TensorProto.BFLOAT16
        )
    return onnxruntime.OrtValue.ortvalue_from_numpy(x)


def array_of(value: onnxruntime.OrtValue) -> np.ndarray:
    if value.data_type() != "tensor(bfloat16)":
        return value.numpy()
    copied = ctypes.string_at(value.data_ptr(), 2 * int(np.prod(value.shape())))
    return np.frombuffer(copied, ml_dtypes.bfloat16).reshape(value.shape())


def run(session: onnxruntime.InferenceSession, inputs: Inputs) -> list[np.ndarray]:
    """Return all outputs, bfloat16 ones too."""
    names = [output.name for output in session.get_outputs()]
    values = session.run_with_ort_values(names, {name: ort_value(x) for name, x in inputs.items()})
    return [array_of(value) for value in values]
