"""numattn's operators for the evaluator of the onnx package."""

from __future__ import annotations

from typing import Any

from numattn.compat.onnx.attention import attention
from numattn.compat.onnx.rotary_embedding import rotary_embedding


def new_ops() -> list[type[Any]]:
    """Return what ``onnx.reference.ReferenceEvaluator(model, new_ops=...)`` takes.

    Nodes Attention and RotaryEmbedding of a model are then computed by numattn, all others by the
    evaluator itself. Outputs that a node does not name are not computed.

    Returns
    -------
    list of classes

    Raises
    ------
    ImportError
        The onnx package is not installed.

    Examples
    --------
    >>> from onnx.reference import ReferenceEvaluator            # doctest: +SKIP
    >>> session = ReferenceEvaluator(model, new_ops=new_ops())   # doctest: +SKIP
    """
    try:
        from onnx.reference.op_run import OpRun
    except ImportError as error:
        raise ImportError("numattn.compat.onnx.new_ops needs onnx: pip install onnx") from error

    class Attention(OpRun):  # type: ignore[misc,unused-ignore]
        """The operator, by `numattn.compat.onnx.attention`."""

        op_domain = ""

        def _run(self, *inputs: Any, **attributes: Any) -> tuple[Any, ...]:
            outputs = list(self.onnx_node.output)
            mode = attributes.pop("qk_matmul_output_mode", None)
            if len(outputs) == 4 and outputs[3]:
                attributes["qk_matmul_output_mode"] = mode or 0
            results = attention(*inputs, **_given(attributes))
            return results[: len(outputs)]

    class RotaryEmbedding(OpRun):  # type: ignore[misc,unused-ignore]
        """The operator, by `numattn.compat.onnx.rotary_embedding`."""

        op_domain = ""

        def _run(self, *inputs: Any, **attributes: Any) -> tuple[Any, ...]:
            return (rotary_embedding(*inputs, **_given(attributes)),)

    return [Attention, RotaryEmbedding]


def _given(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes that a node has, or its operator has by default."""
    return {name: value for name, value in attributes.items() if value is not None}
