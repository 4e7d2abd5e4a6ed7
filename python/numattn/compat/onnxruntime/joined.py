"""Heads that lie side by side: the transpositions before and after a node, taken into it.

    (B, S, H·D) ─ Reshape (B, S, H, D) ─ Transpose (B, H, S, D) ─ Attention ─ Transpose ─ Reshape

numattn reads heads where they lie, so that the node takes the first of these and makes the last
but for its shape. ONNX Runtime would copy each.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numattn.compat.onnxruntime.graph import Graph, attributes

TO_HEADS = [0, 2, 1, 3]  # and back


def join_heads(node: Any, graph: Graph) -> None:
    """Let a node "numattn" Attention of four dimensions take three, if all around it are known."""
    if len(node.input) > 4 or len(node.output) > 1:
        return  # past and present are heads of their own
    joined = [joined_input(name, graph) for name in node.input[:3]]
    back = graph.only_reader(node.output[0])
    if back is None or not is_swap(back) or not only_reshaped(back.output[0], graph):
        return
    from onnx import helper

    query, key, value = joined
    if query is None or key is None or value is None or key.heads != value.heads:
        return
    node.input[:3] = [query.name, key.name, value.name]
    node.attribute.append(helper.make_attribute("q_num_heads", query.heads))
    node.attribute.append(helper.make_attribute("kv_num_heads", key.heads))
    node.output[0] = back.output[0]
    batch, length = graph.shapes[query.name][:2]
    graph.shapes[node.output[0]] = [batch, length, query.heads * value.width]
    graph.replace([back], [])


class Joined(NamedTuple):
    """A value (B, S, H·D)."""

    name: str
    heads: int
    width: int


def joined_input(name: str, graph: Graph) -> Joined | None:
    """Return what (B, H, S, D) was before its heads were told apart."""
    swap = graph.maker(name, "Transpose")
    if swap is None or not is_swap(swap):
        return None
    reshape = graph.maker(swap.input[0], "Reshape")
    if reshape is None:
        return None
    before = graph.shapes.get(reshape.input[0], [])
    after = graph.shapes.get(swap.input[0], [])
    if len(before) != 3 or len(after) != 4 or None in before[:2] or before[:2] != after[:2]:
        return None
    whole, heads, width = before[2], after[2], after[3]
    if not isinstance(whole, int):
        return None
    if isinstance(width, int) and width and not isinstance(heads, int):
        heads = whole // width
    if isinstance(heads, int) and heads and not isinstance(width, int):
        width = whole // heads
    if not isinstance(heads, int) or not isinstance(width, int) or whole != heads * width:
        return None
    return Joined(reshape.input[0], heads, width)


def is_swap(node: Any) -> bool:
    return node.op_type == "Transpose" and attributes(node).get("perm") == TO_HEADS


def only_reshaped(name: str, graph: Graph) -> bool:
    """Whether the shape of a value is of no account."""
    readers = graph.readers.get(name, [])
    return name not in graph.kept and bool(readers) and all(
        node.op_type == "Reshape" and node.input[0] == name and names_all_lengths(node, graph)
        for node in readers
    )  # fmt: skip


def names_all_lengths(reshape: Any, graph: Graph) -> bool:
    """Whether it takes no length after the second from its input (0 may stand for that)."""
    if attributes(reshape).get("allowzero", 0):
        return True
    whole = graph.constant(reshape.input[1])
    if whole is not None:
        return 0 not in whole[2:]
    parts = graph.maker(reshape.input[1], "Concat")
    return parts is not None and all(graph.number(name) != 0 for name in parts.input[2:])
