"""ONNX Runtime: the Attention operator and Microsoft's own ones, through I/O binding."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cases import AttentionCase, Case, IntegerCase, LinearCase, Operands
from contestant import Candidate, Recipe, Unsupported
from peers.torch import window_mask
from serving import ServingCase

OPSETS = {"": 23, "com.microsoft": 1}
IR_VERSION = 11  # the one that belongs to opset 23


class OnnxRuntime:
    """The CPU provider; inputs shared with NumPy, the output bound to one buffer."""

    name = "ONNX Runtime"

    def __init__(self, threads: int) -> None:
        import onnx
        import onnxruntime

        self.onnx: Any = onnx
        self.onnxruntime: Any = onnxruntime
        self.version = str(onnxruntime.__version__)
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.options.log_severity_level = 3
        # Its workers spin within a run, but not on into the next contestant's.
        self.options.add_session_config_entry("session.force_spinning_stop", "1")

    def recipes(self, case: Case | ServingCase, dtype: str, operands: Operands) -> list[Recipe]:
        if dtype == "bf16":
            raise Unsupported("its CPU operators take no bf16")
        if isinstance(case, IntegerCase):
            return [partial(self.integer_linear, case, operands)]
        if isinstance(case, LinearCase):
            return [partial(self.linear, case, operands)]
        if not isinstance(case, AttentionCase):
            raise Unsupported("no ONNX model of it here")
        ways: list[Recipe] = [partial(self.attention, case, operands)]
        if case.key_heads == case.heads:
            ways.append(partial(self.multi_head_attention, case, operands))
        if case.queries == 1 or (case.causal or case.window) and not case.dense_mask:
            ways.append(partial(self.group_query_attention, case, operands))
        return ways

    def attention(self, case: AttentionCase, operands: Operands) -> Candidate:
        """ai.onnx Attention, opset 23, on (B, H, S, D)."""
        feeds = {name: operands[name] for name in ("query", "key", "value")}
        if case.dense_mask:
            feeds["mask"] = operands["mask"]
        if case.window is not None:
            feeds["mask"] = window_mask(case)
        node = self.node("Attention", list(feeds), is_causal=int(case.causal))
        return self.candidate("Attention-23", node, feeds, {}, case.query_shape, case.query_shape)

    def multi_head_attention(self, case: AttentionCase, operands: Operands) -> Candidate:
        """com.microsoft MultiHeadAttention on (B, S, H·D); a mask must come as additive floats."""
        feeds = {name: tokens_first(operands[name]) for name in ("query", "key", "value")}
        inputs = list(feeds)
        mask = operands.get("mask")
        if case.window is not None:
            mask = window_mask(case)[None, None]
        if mask is not None:
            dtype = operands["query"].dtype
            feeds["bias"] = np.where(mask, 0, np.finfo(dtype).min).astype(dtype)
            inputs += ["", "", "bias"]
        node = self.node(
            "MultiHeadAttention",
            inputs,
            domain="com.microsoft",
            num_heads=case.heads,
            unidirectional=int(case.causal),
        )
        shape = feeds["query"].shape
        return self.candidate("MultiHeadAttention", node, feeds, {}, shape, case.query_shape)

    def group_query_attention(self, case: AttentionCase, operands: Operands) -> Candidate:
        """com.microsoft GroupQueryAttention: always causal, with a cache of (B, Hkv, S, D).

        In decode the last key is the new token and the others are the cache, extended in place;
        otherwise the cache is empty before and holds all keys after.
        """
        dtype = operands["query"].dtype
        new = case.queries
        past = case.keys - new if new == 1 else 0
        feeds = {"query": tokens_first(operands["query"])}
        buffers = {}
        for name in ("key", "value"):
            array = operands[name]
            feeds[name] = tokens_first(array[:, :, past:])
            buffers[f"present_{name}"] = array.copy()
            feeds[f"past_{name}"] = buffers[f"present_{name}"] if past else array[:, :, :0].copy()
        feeds["last"] = np.full(case.batch, case.keys - 1, dtype=np.int32)
        feeds["total"] = np.array(case.keys, dtype=np.int32)
        order = ["query", "key", "value", "past_key", "past_value", "last", "total"]
        window = case.window[0] + 1 if case.window is not None else -1
        node = self.node(
            "GroupQueryAttention",
            order,
            domain="com.microsoft",
            outputs=["output", *buffers],
            num_heads=case.heads,
            kv_num_heads=case.key_heads,
            local_window_size=window,
        )
        shape = feeds["query"].shape
        assert feeds["query"].dtype == dtype
        how = "GroupQueryAttention"
        return self.candidate(how, node, feeds, buffers, shape, case.query_shape)

    def linear(self, case: LinearCase, operands: Operands) -> Candidate:
        constants = {"weight": np.ascontiguousarray(operands["weight"].T)}
        if case.plain:
            return self.projection(
                "MatMul", case, [self.node("MatMul", ["x", "weight"])], operands, constants
            )
        constants["bias"] = operands["bias"]
        nodes = [
            self.node("MatMul", ["x", "weight"], outputs=["product"]),
            self.node("Add", ["product", "bias"], outputs=["sum" if case.activation else "output"]),
        ]
        return self.projection("MatMul", case, nodes, operands, constants)

    def integer_linear(self, case: IntegerCase, operands: Operands) -> Candidate:
        """com.microsoft DynamicQuantizeMatMul: weights int8 by column, x uint8 by one scale."""
        scale = np.abs(operands["weight"]).max(axis=1) / np.float32(127)
        integers = np.rint(operands["weight"] / scale[:, np.newaxis]).astype(np.int8)
        constants = {
            "weight": np.ascontiguousarray(integers.T),
            "scale": scale,
            "zero": np.zeros(case.outputs, np.int8),
            "bias": operands["bias"],
        }
        node = self.node(
            "DynamicQuantizeMatMul",
            ["x", *constants],
            domain="com.microsoft",
            outputs=["sum" if case.activation else "output"],
        )
        return self.projection("DynamicQuantizeMatMul", case, [node], operands, constants)

    def projection(
        self,
        how: str,
        case: LinearCase,
        nodes: list[Any],
        operands: Operands,
        constants: dict[str, NDArray[Any]],
    ) -> Candidate:
        """The nodes, and an activation on what they leave in "sum"."""
        if case.activation == "gelu":
            nodes = [*nodes, self.node("Gelu", ["sum"])]
        elif case.activation is not None:
            raise Unsupported(f"no adapter for activation {case.activation}")
        shape = (case.rows, case.outputs)
        return self.candidate(how, nodes, {"x": operands["x"]}, {}, shape, shape, constants)

    def node(
        self,
        operator: str,
        inputs: list[str],
        *,
        domain: str = "",
        outputs: list[str] | None = None,
        **attributes: Any,
    ) -> Any:
        return self.onnx.helper.make_node(
            operator, inputs, outputs or ["output"], domain=domain, **attributes
        )

    def describe(self, name: str, array: NDArray[Any]) -> Any:
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        return self.onnx.helper.make_tensor_value_info(name, kind, array.shape)

    def candidate(
        self,
        how: str,
        nodes: Any,
        feeds: dict[str, NDArray[Any]],
        more_outputs: dict[str, NDArray[Any]],
        shape: tuple[int, ...],
        row_shape: tuple[int, ...],
        constants: dict[str, NDArray[Any]] | None = None,
    ) -> Candidate:
        """A session on the nodes, bound to `feeds` and to an output buffer of `shape`."""
        dtype = next(iter(feeds.values())).dtype
        results = {"output": np.empty(shape, dtype), **more_outputs}
        graph = self.onnx.helper.make_graph(
            nodes if isinstance(nodes, list) else [nodes],
            "row",
            [self.describe(name, array) for name, array in feeds.items()],
            [self.describe(name, array) for name, array in results.items()],
            [self.onnx.numpy_helper.from_array(a, name) for name, a in (constants or {}).items()],
        )
        opsets = [self.onnx.helper.make_opsetid(d, version) for d, version in OPSETS.items()]
        model = self.onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        session = self.onnxruntime.InferenceSession(
            model.SerializeToString(), self.options, providers=["CPUExecutionProvider"]
        )
        binding = session.io_binding()
        values = {
            id(array): self.onnxruntime.OrtValue.ortvalue_from_numpy(array)
            for array in [*feeds.values(), *results.values()]
        }
        for name, array in feeds.items():
            binding.bind_ortvalue_input(name, values[id(array)])
        for name, array in results.items():
            binding.bind_ortvalue_output(name, values[id(array)])

        def fetch(_: Any) -> NDArray[np.float32]:
            result = results["output"].astype(np.float32)
            if result.ndim == 3 and len(row_shape) == 4:
                batch, heads, queries, head_dim = row_shape
                split = result.reshape(batch, queries, heads, head_dim)
                return np.ascontiguousarray(split.transpose(0, 2, 1, 3))
            return result

        run = partial(session.run_with_iobinding, binding)
        return Candidate(f"{how}, I/O binding", run, fetch, keep=[feeds, results, values])


def tokens_first(array: NDArray[Any]) -> NDArray[Any]:
    """(B, H, S, D) → (B, S, H·D), contiguous: the layout that Microsoft's operators take."""
    batch, heads, length, head_dim = array.shape
    return np.ascontiguousarray(array.transpose(0, 2, 1, 3)).reshape(
        batch, length, heads * head_dim
    )
