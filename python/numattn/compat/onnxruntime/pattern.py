"""Attention in pieces, as exporters write it: MatMul, scale, mask, Softmax, MatMul.

    q ─[Mul]─ MatMul ─[Mul, Div]…─[Add mask]─ Softmax ─[Where(IsNaN(·), 0, ·)]─ MatMul ─
    k ─ Transpose ─[Mul]─┘                                                    v ─┘

A row that may attend nothing is 0 in numattn; in these pieces it is NaN, or, where the mask holds
the lowest number instead of −∞, the mean of all values, which stays so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numattn.compat.onnxruntime.graph import Graph, attributes, is_a

RANK = 4
LEAST_OPSET = 13
"""From here on the default axis of Softmax is the last one, and it is over that alone."""


class Unlike(Exception):
    """Why a Softmax is not that of an attention that can be replaced."""


@dataclass
class Pieces:
    """What is read off the nodes from the end to the beginning."""

    nodes: list[Any] = field(default_factory=list)
    scale: float = 1.0
    mask: str = ""


def own_nodes(softmax: Any, graph: Graph) -> tuple[list[Any], list[Any]]:
    """Return the nodes to take out and those to put in. Raise `Unlike` with the reason against."""
    from onnx import helper

    axis = attributes(softmax).get("axis", -1)
    if graph.opset < LEAST_OPSET or axis not in (-1, RANK - 1):
        raise Unlike("not over the last axis of four")
    pieces = Pieces([softmax])
    last = after_softmax(softmax, graph, pieces)
    product = before_softmax(softmax, graph, pieces)
    query, key = product.input
    query = without_scale(query, graph, pieces)
    new = turned_keys(key, graph, pieces, f"{last.output[0]}_keys")
    for name in (query, last.input[1]):
        if not has_rank(name, graph):
            raise Unlike(f"{name} is not known to have four dimensions")
    inputs = [query, new[-1].output[0], last.input[1], *([pieces.mask] if pieces.mask else [])]
    new.append(
        helper.make_node(
            "Attention", inputs, [last.output[0]], name=last.name, domain="numattn",
            scale=pieces.scale, opset=graph.opset,
        )
    )  # fmt: skip
    return pieces.nodes, new


def after_softmax(softmax: Any, graph: Graph, pieces: Pieces) -> Any:
    """Return the product with the values."""
    name = softmax.output[0]
    readers = graph.readers.get(name, [])
    is_nan = next((node for node in readers if is_a(node, "IsNaN")), None)
    where = next((node for node in readers if is_a(node, "Where")), None)
    if is_nan is not None and where is not None and len(readers) == 2 and name not in graph.kept:
        chosen = (is_nan.output[0], name) == (where.input[0], where.input[2])
        if not chosen or graph.number(where.input[1]) != 0:
            raise Unlike("its results are chosen among")
        pieces.nodes += [is_nan, where]
        name = where.output[0]
    last = graph.only_reader(name)
    if last is None or not is_a(last, "MatMul") or last.input[0] != name:
        raise Unlike("its results are not multiplied by values alone")
    pieces.nodes.append(last)
    return last


def before_softmax(softmax: Any, graph: Graph, pieces: Pieces) -> Any:
    """Return the product of queries and keys."""
    name = softmax.input[0]
    while True:
        node = graph.makers.get(name)
        if node is None or graph.only_reader(name) is None:
            raise Unlike("its scores are used elsewhere, or made elsewhere")
        pieces.nodes.append(node)
        if is_a(node, "MatMul"):
            return node
        if is_a(node, "Add") and not pieces.mask and pieces.scale == 1.0:
            scores = next((x for x in node.input if leads_to_product(x, graph)), None)
            if scores is None:
                raise Unlike("no product of queries and keys before its mask")
            pieces.mask = node.input[1] if node.input[0] == scores else node.input[0]
            name = scores
            continue
        name = scaled(node, graph, pieces)


def leads_to_product(name: str, graph: Graph) -> bool:
    node = graph.makers.get(name)
    while node is not None and is_a(node, "Mul", "Div"):
        left, right = (graph.makers.get(factor) for factor in node.input)
        node = right if left is None or is_a(left, "Constant") else left
    return node is not None and is_a(node, "MatMul")


def scaled(node: Any, graph: Graph, pieces: Pieces) -> str:
    """Return what a node multiplies or divides by a constant, which becomes part of the scale."""
    if not is_a(node, "Mul", "Div"):
        raise Unlike(f"{node.op_type} among its scores")
    name, factor = node.input
    number = graph.number(factor)
    if number is None and is_a(node, "Mul"):
        name, factor = factor, name
        number = graph.number(factor)
    if number is None:
        raise Unlike("scaled by what is not a constant number")
    pieces.scale *= 1 / number if is_a(node, "Div") else number
    return str(name)


def without_scale(name: str, graph: Graph, pieces: Pieces) -> str:
    """Return queries before they are scaled."""
    node = graph.maker(name, "Mul", "Div")
    if node is None or graph.only_reader(name) is None:
        return name
    try:
        return scaled(node, graph, pieces)
    except Unlike:
        return name  # they come scaled


def turned_keys(name: str, graph: Graph, pieces: Pieces, new_name: str) -> list[Any]:
    """Return the node that makes keys with their tokens in rows."""
    from onnx import helper

    unscaled = without_scale(name, graph, pieces)
    node = graph.maker(unscaled, "Transpose")
    perm = attributes(node).get("perm", []) if node is not None else []
    if node is None or len(perm) != RANK:
        raise Unlike("its keys are not those of a Transpose")
    order = [perm[0], perm[1], perm[3], perm[2]]
    return [helper.make_node("Transpose", [node.input[0]], [new_name], perm=order)]


def has_rank(name: str, graph: Graph) -> bool:
    node = graph.maker(name, "Transpose")
    if node is not None and len(attributes(node).get("perm", [])) == RANK:
        return True
    scaled_by = graph.maker(name, "Mul", "Div")
    if scaled_by is not None and has_rank(scaled_by.input[0], graph):
        return True
    return len(graph.shapes.get(name, [])) == RANK
