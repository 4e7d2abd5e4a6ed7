"""OpenVINO: its ScaledDotProductAttention and MatMul operations, and the converted BertModel."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cases import (
    AttentionCase,
    Case,
    ConcurrentCase,
    IntegerCase,
    IntegerEncoderCase,
    LayerCase,
    LinearCase,
    Operands,
    RaggedEncoderCase,
)
from concurrent_texts import from_threads
from contestant import Candidate, Recipe, Unsupported
from peers.torch import bert_model, window_mask
from serving import GenerationCase, RaggedCase, ServingCase

WHOLE_ROWS = 2**31  # a group of that many has one scale for a row


class OpenVINO:
    """The CPU plugin, static shapes, one stream, operands shared with NumPy."""

    name = "OpenVINO"

    def __init__(self, threads: int) -> None:
        import openvino
        from openvino import opset13

        self.openvino: Any = openvino
        self.operations: Any = opset13
        self.core = openvino.Core()
        self.version = str(openvino.__version__).split("-")[0]
        self.threads = threads

    def recipes(self, case: Case | ServingCase, dtype: str, operands: Operands) -> list[Recipe]:
        if isinstance(case, RaggedCase | GenerationCase):
            raise Unsupported("no model of it here")
        # 16-bit rows are tried in float32 arithmetic too: not every CPU has the other.
        precisions = ["f32"] if dtype == "f32" else [dtype, "f32"]
        if isinstance(case, IntegerCase):
            return [
                partial(self.integer_linear, case, operands, group) for group in (0, case.inputs)
            ]
        if isinstance(case, IntegerEncoderCase):
            return [partial(self.integer_encoder, operands, group) for group in (0, 32, WHOLE_ROWS)]
        return [partial(self.candidate, case, operands, precision) for precision in precisions]

    def candidate(self, case: Case, operands: Operands, precision: str) -> Candidate:
        if isinstance(case, AttentionCase):
            return self.attention(case, precision, operands)
        if isinstance(case, LinearCase):
            return self.linear(case, precision, operands)
        if isinstance(case, LayerCase):
            return self.layer(case, precision, operands)
        if isinstance(case, RaggedEncoderCase):
            return self.ragged_encoder(case, precision, operands)
        if isinstance(case, ConcurrentCase):
            return self.concurrent(case, precision, operands)
        return self.encoder(precision, operands)

    def attention(self, case: AttentionCase, precision: str, operands: Operands) -> Candidate:
        arrays = [operands[name] for name in ("query", "key", "value")]
        how = "ScaledDotProductAttention"
        grouped = case.key_heads != case.heads
        if grouped and case.queries == 1:
            # The group's heads become query rows of their key head: a free reshape.
            group = case.heads // case.key_heads
            arrays[0] = arrays[0].reshape(case.batch, case.key_heads, group, case.head_dim)
            how += ", group as query rows"
        if case.dense_mask:
            arrays.append(operands["mask"])
        if case.window is not None:
            arrays.append(window_mask(case)[None, None])
        inputs = [self.parameter(array) for array in arrays]
        query, key, value, *mask = inputs
        if grouped and case.queries > 1:
            key, value = (self.repeat_heads(case, node) for node in (key, value))
            how += ", K and V broadcast"
        output = self.operations.scaled_dot_product_attention(
            query, key, value, *mask, causal=case.causal
        )
        model = self.openvino.Model([output], inputs)
        return self.compiled(how, model, precision, arrays, case.query_shape)

    def repeat_heads(self, case: AttentionCase, node: Any) -> Any:
        """(B, Hkv, S, D) → (B, Hq, S, D), each key head repeated for its group."""
        group = case.heads // case.key_heads
        wide = [case.batch, case.key_heads, group, case.keys, case.head_dim]
        full = [case.batch, case.heads, case.keys, case.head_dim]
        node = self.operations.unsqueeze(node, self.operations.constant(np.int64(2)))
        node = self.operations.broadcast(node, self.operations.constant(np.array(wide)))
        return self.operations.reshape(node, self.operations.constant(np.array(full)), False)

    def linear(self, case: LinearCase, precision: str, operands: Operands) -> Candidate:
        weight = self.constant(operands["weight"])
        model = self.linear_model(case, operands, weight)
        shape = (case.rows, case.outputs)
        return self.compiled("MatMul", model, precision, [operands["x"]], shape)

    def linear_model(self, case: LinearCase, operands: Operands, weight: Any) -> Any:
        x = self.parameter(operands["x"])
        output = self.operations.matmul(x, weight, False, True)
        if not case.plain:
            output = self.operations.add(output, self.constant(operands["bias"]))
        if case.activation == "gelu":
            output = self.operations.gelu(output, "ERF")
        elif case.activation is not None:
            raise Unsupported(f"no adapter for activation {case.activation}")
        return self.openvino.Model([output], [x])

    def integer_linear(self, case: IntegerCase, operands: Operands, group: int) -> Candidate:
        """Compressed weights as its own tools write them; x rounded by groups of a row, or not."""
        model = self.linear_model(case, operands, self.compressed(operands["weight"]))
        how = f"MatMul, int8 weights, dynamic quantization {f'by {group}' if group else 'off'}"
        shape = (case.rows, case.outputs)
        more = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": group}
        return self.compiled(how, model, "f32", [operands["x"]], shape, more)

    def compressed(self, matrix: NDArray[Any]) -> Any:
        """A weight as integers of 8 bits with a scale for each row, as floats."""
        scale = np.abs(matrix).max(axis=1, keepdims=True) / np.float32(127)
        integers = np.rint(matrix / scale).astype(np.int8)
        weight = self.operations.convert(self.operations.constant(integers), np.float32)
        return self.operations.multiply(weight, self.operations.constant(scale))

    def layer(self, case: LayerCase, precision: str, operands: Operands) -> Candidate:
        operations = self.operations
        split = [case.batch, case.sequence, case.heads, case.embed // case.heads]
        swap = operations.constant(np.array([0, 2, 1, 3]))

        def heads(node: Any) -> Any:
            node = operations.reshape(node, operations.constant(np.array(split)), False)
            return operations.transpose(node, swap)

        x = self.parameter(operands["x"])
        weights = np.split(operands["in_proj_weight"], 3)
        biases = np.split(operands["in_proj_bias"], 3)
        projected = [heads(self.project(x, w, b)) for w, b in zip(weights, biases, strict=True)]
        joined = operations.transpose(operations.scaled_dot_product_attention(*projected), swap)
        shape = operands["x"].shape
        joined = operations.reshape(joined, operations.constant(np.array(shape)), False)
        output = self.project(joined, operands["out_proj.weight"], operands["out_proj.bias"])
        model = self.openvino.Model([output], [x])
        how = "MatMul and ScaledDotProductAttention"
        return self.compiled(how, model, precision, [operands["x"]], shape)

    def encoder(self, precision: str, operands: Operands) -> Candidate:
        ids = operands["token_ids"]
        model = self.converted({"input_ids": ids})
        return self.compiled("converted BertModel", model, precision, [ids], (*ids.shape, -1))

    def converted(self, inputs: Operands) -> Any:
        """The encoder for inputs of these shapes."""
        import warnings

        import torch

        with warnings.catch_warnings(), torch.inference_mode(False):
            # Tracing refuses inference tensors, and warns of every constant that it bakes in:
            # here each of them follows from the static shape.
            warnings.simplefilter("ignore")
            return self.openvino.convert_model(
                bert_model(),
                example_input={name: torch.from_numpy(array) for name, array in inputs.items()},
                input=[(name, list(array.shape)) for name, array in inputs.items()],
            )

    def integer_encoder(self, operands: Operands, group: int) -> Candidate:
        """The encoder, all its products by weights compressed."""
        ids = operands["token_ids"]
        model = self.converted({"input_ids": ids})
        for node in model.get_ops():
            if node.get_type_name() != "MatMul":
                continue
            weight = node.input_value(1).get_node()
            if weight.get_type_name() == "Constant":
                assert node.get_attributes()["transpose_b"]
                node.input(1).replace_source_output(self.compressed(weight.data).output(0))
        how = f"BertModel, int8 weights, dynamic quantization {f'by {group}' if group else 'off'}"
        more = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": group}
        return self.compiled(how, model, "f32", [ids], (*ids.shape, -1), more)

    def ragged_encoder(
        self, case: RaggedEncoderCase, precision: str, operands: Operands
    ) -> Candidate:
        """Padded to the longest."""
        longest = int(case.lengths.max())
        real = case.real[:, :longest]
        ids = np.ascontiguousarray(operands["token_ids"][:, :longest])
        inputs = {"input_ids": ids, "attention_mask": real.astype(np.int64)}
        model = self.converted(inputs)
        arrays = list(inputs.values())
        how = "converted BertModel, padded"
        padded = self.compiled(how, model, precision, arrays, (*ids.shape, -1))
        return replace(padded, fetch=lambda result: padded.fetch(result)[real])

    def concurrent(self, case: ConcurrentCase, precision: str, operands: Operands) -> Candidate:
        """A stream and a request for each thread."""
        model = self.converted({"input_ids": operands["token_ids"][:1]})
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": case.threads,
            "INFERENCE_NUM_THREADS": case.threads,
            "INFERENCE_PRECISION_HINT": precision,
        }
        compiled = self.core.compile_model(model, "CPU", settings)
        own = threading.local()

        def hidden(ids: NDArray[Any]) -> NDArray[Any]:
            if not hasattr(own, "request"):
                own.request = compiled.create_infer_request()
            own.request.infer([ids])
            return np.array(own.request.get_output_tensor(0).data)

        run = from_threads(case, operands["token_ids"], hidden)
        how = f"converted BertModel, a stream each, precision {precision}"
        return Candidate(how, run, np.concatenate, keep=[compiled])

    def project(self, x: Any, weight: NDArray[Any], bias: NDArray[Any]) -> Any:
        product = self.operations.matmul(x, self.constant(weight), False, True)
        return self.operations.add(product, self.constant(bias))

    def parameter(self, array: NDArray[Any]) -> Any:
        return self.operations.parameter(list(array.shape), self.element_type(array))

    def constant(self, array: NDArray[Any]) -> Any:
        return self.operations.constant(self.tensor(array))

    def element_type(self, array: NDArray[Any]) -> Any:
        if array.dtype.name == "bfloat16":
            return self.openvino.Type.bf16
        return self.openvino.Type(array.dtype)

    def tensor(self, array: NDArray[Any]) -> Any:
        """A tensor over the array's own memory (which it does not keep alive)."""
        if array.dtype.name == "bfloat16":
            bits = array.view(np.uint16)
            return self.openvino.Tensor(bits, list(array.shape), self.openvino.Type.bf16)
        return self.openvino.Tensor(array, shared_memory=True)

    def compiled(
        self,
        how: str,
        model: Any,
        precision: str,
        arrays: list[NDArray[Any]],
        shape: tuple[int, ...],
        more_settings: dict[str, Any] | None = None,
    ) -> Candidate:
        """The compiled model on its inputs; `shape` is the row's layout of the result."""
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": precision,
            **(more_settings or {}),
        }
        compiled = self.core.compile_model(model, "CPU", settings)
        request = compiled.create_infer_request()
        tensors = [self.tensor(array) for array in arrays]
        for index, tensor in enumerate(tensors):
            request.set_input_tensor(index, tensor)

        def fetch(_: Any) -> NDArray[np.float32]:
            tensor = request.get_output_tensor(0)
            data = tensor.data
            if tensor.element_type == self.openvino.Type.bf16:
                bits = np.asarray(data).view(np.uint16).astype(np.uint32) << 16
                data = bits.view(np.float32)
            return np.array(data, dtype=np.float32).reshape(shape)

        run = partial(request.infer, share_outputs=True)
        return Candidate(
            f"{how}, precision {precision}", run, fetch, keep=[arrays, tensors, request]
        )
