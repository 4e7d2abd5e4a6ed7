"""Operators of ONNX with their own names, attributes and semantics."""

from __future__ import annotations

from numattn.compat.onnx.attention import attention
from numattn.compat.onnx.evaluator import new_ops
from numattn.compat.onnx.rotary_embedding import rotary_embedding

__all__ = ["attention", "new_ops", "rotary_embedding"]
