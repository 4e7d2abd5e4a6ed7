"""Nodes that are one of the operators by name: what may be handed over as it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numattn.compat.onnxruntime.graph import Graph, attributes


@dataclass(frozen=True)
class Known:
    """What numattn's operator of that name takes."""

    attributes: frozenset[str]
    outputs: int = 3
    not_taken: dict[int, str] = field(default_factory=dict)


ONNX = Known(
    frozenset(
        "is_causal kv_num_heads q_num_heads scale softcap softmax_precision left_window_size "
        "right_window_size qk_matmul_output_mode".split()
    )
)
MULTI_HEAD = Known(
    frozenset("num_heads unidirectional scale mask_filter_value".split()),
    not_taken={8: "past_sequence_length", 9: "cache_indirection"},
)
GROUP_QUERY = Known(
    frozenset(
        "num_heads kv_num_heads do_rotary rotary_interleaved local_window_size scale softcap "
        "smooth_softmax causal qk_output kv_cache_bit_width sliding_window_cache k_quant_type "
        "v_quant_type q_norm_epsilon k_norm_epsilon qk_norm_epsilon".split()
    ),
    not_taken={
        12: "k_scale", 13: "v_scale", 14: "q_norm_weight", 15: "k_norm_weight", 16: "query_seqlens",
    },
)  # fmt: skip
KNOWN = {
    ("", "Attention"): ONNX,
    ("com.microsoft", "MultiHeadAttention"): MULTI_HEAD,
    ("com.microsoft", "GroupQueryAttention"): GROUP_QUERY,
}
# Attributes that must say nothing, as cpp/onnxruntime has them.
HARMLESS = {
    "qk_output": 0, "kv_cache_bit_width": 0, "sliding_window_cache": 0,
    "k_quant_type": b"NONE", "v_quant_type": b"NONE",
}  # fmt: skip
MOST_MASK_FILTER = -1000.0
OTHERS = {
    "Attention": "its projections are inside; onnxruntime.transformers' optimizer writes "
    "MultiHeadAttention with use_multi_head_attention",
    "PackedAttention": "no such operator in numattn",
    "PackedMultiHeadAttention": "no such operator in numattn",
    "DecoderMaskedMultiHeadAttention": "no such operator in numattn",
    "QAttention": "no such operator in numattn",
}


def reason_against(node: Any, graph: Graph) -> str | None:
    """Return why numattn's operator cannot take a node's place."""
    known = KNOWN[domain_of(node), node.op_type]
    for index, name in enumerate(node.output):
        if name and index >= known.outputs:
            return f"output {index} ({name}) is not implemented"
    for index, words in known.not_taken.items():
        if index < len(node.input) and node.input[index]:
            return f"input {words} is not implemented"
    given = attributes(node)
    if unknown := sorted(set(given) - known.attributes):
        return f"attribute {', '.join(unknown)} is not known"
    for name, harmless in HARMLESS.items():
        if name in given and given[name] != harmless:
            return f"{name} = {given[name]!r} is not implemented"
    if known is MULTI_HEAD:
        if given.get("mask_filter_value", MOST_MASK_FILTER) > MOST_MASK_FILTER:
            return f"mask_filter_value = {given['mask_filter_value']:g} does not exclude keys"
        if len(node.input) < 3 or not node.input[1] or not node.input[2]:
            return "its projections are packed"
    return None


def own_node(node: Any, graph: Graph) -> Any:
    """Return numattn's node in its place."""
    from onnx import helper

    own = type(node)()
    own.CopyFrom(node)
    own.domain = "numattn"
    if domain_of(node) == "":  # a mask of one column stands for all keys in opset 23 alone
        own.attribute.append(helper.make_attribute("opset", graph.opset))
    return own


def domain_of(node: Any) -> str:
    """Return the domain, whose default has two names."""
    return "" if node.domain == "ai.onnx" else str(node.domain)
