"""Models with numattn's operators in place of others' attention."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Any, NamedTuple

from numattn.compat.onnxruntime import named, pattern
from numattn.compat.onnxruntime.graph import Graph, Known, inner_graphs, is_a
from numattn.compat.onnxruntime.joined import join_heads

DOMAIN, VERSION = "numattn", 1
NOTHING = Known({}, {})
LOOKED_FOR = (*(name for _, name in named.KNOWN), "Softmax")
MOST_BYTES = 2**31 - 1
"""What protobuf, and so shape inference, can take."""


class Rewritten(NamedTuple):
    """A model, and what was done to it."""

    model: Any
    """onnx.ModelProto."""
    replaced: dict[str, int]
    """How many of which: names of operators, and "MatMul-Softmax-MatMul"."""
    left: list[str]
    """What was not replaced, each with the reason."""


def rewrite(model: Any) -> Rewritten:
    """Put numattn's operators in place of the attention of a model.

    These are nodes Attention of ai.onnx, MultiHeadAttention and GroupQueryAttention of
    com.microsoft, and attention in pieces (MatMul, Softmax, MatMul, as exporters write it), in
    inner graphs too, and in functions, which are inlined. Transpositions of heads around them go
    where shapes are known.

    Parameters
    ----------
    model : onnx.ModelProto
        With its weights. It is not changed.

    Returns
    -------
    Rewritten
        The new model, how many nodes were replaced, and what was left. It needs
        `library_path` registered in the options of its session.

    Raises
    ------
    ImportError
        The onnx package is not installed.
    ValueError
        If nothing can be replaced; it says why.

    Examples
    --------
    >>> import onnx
    >>> nodes = [onnx.helper.make_node("Attention", ["Q", "K", "V"], ["Y"])]
    >>> value = onnx.helper.make_tensor_value_info
    >>> graph = onnx.helper.make_graph(
    ...     nodes, "g", [value(name, 1, None) for name in "QKV"], [value("Y", 1, None)]
    ... )
    >>> rewritten = rewrite(onnx.helper.make_model(graph))
    >>> rewritten.replaced, rewritten.model.graph.node[0].domain
    ({'Attention': 1}, 'numattn')
    """
    try:
        import onnx
        import onnx.inliner
    except ImportError as error:
        raise ImportError("rewriting a model needs onnx: pip install onnx") from error
    if model.functions:  # ONNX Runtime infers no types through others' operators in them
        new = onnx.inliner.inline_local_functions(model)
    else:
        new = onnx.ModelProto()
        new.CopyFrom(model)
    replaced: Counter[str] = Counter()
    left: list[str] = []
    opset = max((x.version for x in new.opset_import if x.domain in ("", "ai.onnx")), default=0)
    rewrite_graph(new.graph, known_of(new), opset, replaced, left)
    if not replaced:
        reasons = "; ".join(left or [f"the model has no {', '.join(LOOKED_FOR)}"])
        raise ValueError(f"no attention that numattn could replace: {reasons}")
    if all(imported.domain != DOMAIN for imported in new.opset_import):
        new.opset_import.append(onnx.helper.make_opsetid(DOMAIN, VERSION))
    return Rewritten(new, dict(replaced), left)


def rewrite_graph(
    proto: Any, known: Known, opset: int, replaced: Counter[str], left: list[str]
) -> None:
    """Replace what can be in a graph and those inside; count it, and say what is left."""
    graph = Graph(proto, known, opset)
    for node in list(graph.nodes):
        for inner in inner_graphs(node):
            rewrite_graph(inner, NOTHING, opset, replaced, left)
        words = f"{node.op_type} {node.name or node.output[0]}"
        try:
            own = replace_node(node, graph)
        except pattern.Unlike as reason:
            left.append(f"{words}: {reason}")
            continue
        if own is None:
            continue
        replaced["MatMul-Softmax-MatMul" if is_a(node, "Softmax") else node.op_type] += 1
        keep_shape(own, graph)
    graph.write()


def replace_node(node: Any, graph: Graph) -> Any | None:
    """Return the node that is in this one's place; None where it is no attention."""
    domain = named.domain_of(node)
    if (domain, node.op_type) in named.KNOWN:
        if reason := named.reason_against(node, graph):
            raise pattern.Unlike(reason)
        old, new = [node], [named.own_node(node, graph)]
    elif is_a(node, "Softmax"):
        old, new = pattern.own_nodes(node, graph)
    elif domain == "com.microsoft" and node.op_type in named.OTHERS:
        raise pattern.Unlike(named.OTHERS[node.op_type])
    else:
        return None
    graph.replace(old, new)
    own = new[-1]
    if own.op_type == "Attention":
        join_heads(own, graph)
    return own


def known_of(model: Any) -> Known:
    """Return what is known of a model's values."""
    import onnx

    inferred = model
    if model.ByteSize() < MOST_BYTES:
        with contextlib.suppress(onnx.shape_inference.InferenceError):
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    known = Known({}, {})
    graph = inferred.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        known.elements[value.name] = kind.elem_type
        if kind.HasField("shape"):
            known.shapes[value.name] = [
                x.dim_value if x.HasField("dim_value") else x.dim_param or None
                for x in kind.shape.dim
            ]
    return known


def keep_shape(node: Any, graph: Graph) -> None:
    """Write down the shape of a result: ONNX Runtime does not infer that of others' operators."""
    from onnx import helper

    name = node.output[0]
    shape, element = graph.shapes.get(name), graph.elements.get(name)
    if shape is None or not element or name in graph.kept:
        return
    for value in [value for value in graph.proto.value_info if value.name == name]:
        graph.proto.value_info.remove(value)
    graph.proto.value_info.append(helper.make_tensor_value_info(name, element, shape))
