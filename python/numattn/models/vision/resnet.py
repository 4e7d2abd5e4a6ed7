"""A ResNet, by ONNX Runtime: numbers of images → a map of features 32 times as coarse.

The graph is made of a checkpoint's tensors when the model is loaded, each normalisation multiplied
into the convolution before it (eps 1e-5). Of the extra `detection`: onnx writes the graph, and
onnxruntime computes it. (He et al., Deep Residual Learning for Image Recognition, 2016, with the
stride of a block in its 3 × 3 convolution.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numattn import get_num_threads

from ..arrays import Float32Array
from ..files.checkpoint import Checkpoint
from .detr_config import ResNetConfig

STEM = "backbone.conv_encoder.model"
# Old enough for any ONNX Runtime that is about; nothing newer is asked of it.
OPSET, IR_VERSION = 13, 8


class ResNet:
    """Numbers of images (N, 3, H, W) → features (N, C, ⌈H / 32⌉, ⌈W / 32⌉)."""

    def __init__(self, checkpoint: Checkpoint, config: ResNetConfig) -> None:
        self._graph = Graph(checkpoint, config).serialized()
        self._session = session_of(self._graph)

    def __call__(self, numbers: Float32Array) -> Float32Array:
        """Return the features of images."""
        (features,) = self._session.run(None, {"pixels": np.ascontiguousarray(numbers)})
        result: Float32Array = features
        return result

    def __getstate__(self) -> bytes:
        return self._graph

    def __setstate__(self, graph: bytes) -> None:
        self._graph = graph
        self._session = session_of(graph)


def session_of(graph: bytes) -> Any:
    """Return what computes a graph."""
    try:
        import onnxruntime
    except ImportError:
        raise ImportError(
            "the convolutions of a DETR need onnxruntime: pip install 'numattn[detection]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = get_num_threads()
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class Graph:
    """The graph of a ResNet in ONNX, from its tensors."""

    def __init__(self, checkpoint: Checkpoint, config: ResNetConfig) -> None:
        try:
            import onnx
        except ImportError:
            raise ImportError(
                "the convolutions of a DETR need onnx: pip install 'numattn[detection]'"
            ) from None
        self._onnx, self._checkpoint, self._config = onnx, checkpoint, config
        self._nodes: list[Any] = []
        self._tensors: list[Any] = []
        stem = ("embedder.embedder.convolution", "embedder.embedder.normalization")
        if config.timm:
            stem = ("conv1", "bn1")
        value = self._convolution("pixels", stem, (config.first, 3, 7), 2)
        value = self._node("Relu", [value])
        value = self._node("MaxPool", [value], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        width = config.first
        for stage, (wide, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                value = self._block(value, stage, block, width, wide, stride)
                width = wide
        self._last = value

    def serialized(self) -> bytes:
        """Return the file."""
        helper, kind = self._onnx.helper, self._onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            self._nodes,
            "resnet",
            [helper.make_tensor_value_info("pixels", kind, ["n", 3, "h", "w"])],
            [helper.make_tensor_value_info(self._last, kind, ["n", "c", "rows", "columns"])],
            self._tensors,
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
        written: bytes = model.SerializeToString()
        return written

    def _block(self, value: str, stage: int, block: int, width: int, wide: int, stride: int) -> str:
        """Add a block, which has `width` channels before it and `wide` after it."""
        timm, narrow = self._config.timm, wide // 4
        place = f"layer{stage + 1}.{block}" if timm else f"encoder.stages.{stage}.layers.{block}"
        if self._config.bottleneck:
            shapes = [(narrow, width, 1), (narrow, narrow, 3), (wide, narrow, 1)]
            strides = [1, stride, 1]
        else:
            shapes, strides = [(wide, width, 3), (wide, wide, 3)], [stride, 1]
        inner = value
        for number, (shape, step) in enumerate(zip(shapes, strides, strict=True)):
            part = f"{place}.layer.{number}."
            names = (f"{part}convolution", f"{part}normalization")
            if timm:
                names = (f"{place}.conv{number + 1}", f"{place}.bn{number + 1}")
            inner = self._convolution(inner, names, shape, step)
            if number + 1 < len(shapes):
                inner = self._node("Relu", [inner])
        if width != wide or stride != 1:
            names = (f"{place}.shortcut.convolution", f"{place}.shortcut.normalization")
            if timm:
                names = (f"{place}.downsample.0", f"{place}.downsample.1")
            value = self._convolution(value, names, (wide, width, 1), stride)
        return self._node("Relu", [self._node("Add", [inner, value])])

    def _convolution(
        self, value: str, names: tuple[str, str], shape: tuple[int, int, int], stride: int
    ) -> str:
        """Add a convolution (out, in, side) and its normalisation, by their names."""
        out, channels, side = shape
        convolution, norm = (f"{STEM}.{name}" for name in names)
        weight = self._checkpoint.take(f"{convolution}.weight", (out, channels, side, side))
        gain, bias, mean, variance = (
            self._checkpoint.take(f"{norm}.{part}", (out,))
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / np.sqrt(variance + np.float32(1e-5))
        weight *= scale.reshape(-1, 1, 1, 1)
        inputs = [value]
        for array in (weight, bias - mean * scale):
            inputs.append(f"t{len(self._tensors)}")
            self._tensors.append(self._onnx.numpy_helper.from_array(array, inputs[-1]))
        return self._node(
            "Conv",
            inputs,
            kernel_shape=[side, side],
            strides=[stride, stride],
            pads=[side // 2] * 4,
        )

    def _node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node, and return the name of what it gives."""
        name = f"v{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [name], **attributes))
        return name
