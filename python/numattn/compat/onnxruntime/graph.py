"""A graph of ONNX nodes: who makes a value, who reads it, and what is known of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

GRAPH, GRAPHS = 5, 10  # onnx.AttributeProto.AttributeType
LEFT_OVER = ("Constant", "Div", "Mul", "Reshape", "Transpose")


class Known(NamedTuple):
    """What is known of values, by name."""

    shapes: dict[str, list[int | str | None]]
    elements: dict[str, int]


class Graph:
    """The nodes of a GraphProto or FunctionProto, indexed by the names of their values."""

    def __init__(self, proto: Any, known: Known, opset: int) -> None:
        self.proto = proto
        self.shapes = known.shapes
        self.elements = known.elements
        self.opset = opset
        self.initializers = {x.name: x for x in getattr(proto, "initializer", ())}
        self.nodes = [type(node).FromString(node.SerializeToString()) for node in proto.node]
        self.index()
        self.read_before = self.kept | self.readers.keys()

    def index(self) -> None:
        """Find makers and readers anew."""
        self.makers = {name: node for node in self.nodes for name in node.output if name}
        self.readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        inside = (name for node in self.nodes for name in names_inside(node))
        # Read by others than nodes of this graph: outputs, and what inner graphs take.
        outputs = (getattr(output, "name", output) for output in self.proto.output)
        self.kept = {*outputs, *inside}

    def maker(self, name: str, *kinds: str) -> Any | None:
        """Return the node of ai.onnx that makes a value, if it is one of those."""
        node = self.makers.get(name)
        return node if node is not None and is_a(node, *kinds) else None

    def only_reader(self, name: str) -> Any | None:
        """Return the node that alone reads a value."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.kept else None

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return a value that does not depend on inputs, where it is written down."""
        from onnx import numpy_helper

        if name in self.initializers:
            return np.asarray(numpy_helper.to_array(self.initializers[name]))
        node = self.maker(name, "Constant")
        tensor = attributes(node).get("value") if node is not None else None
        return None if tensor is None else np.asarray(numpy_helper.to_array(tensor))

    def number(self, name: str) -> float | None:
        """Return a constant of one element."""
        initializer = self.initializers.get(name)
        if initializer is not None and np.prod(initializer.dims) != 1:
            return None  # a weight, which is not read for that
        constant = self.constant(name)
        return None if constant is None or constant.size != 1 else float(constant.reshape(()))

    def replace(self, old: list[Any], new: list[Any]) -> None:
        """Put nodes where the last of others was, and take these out."""
        gone = {id(node) for node in old}
        last = max(index for index, node in enumerate(self.nodes) if id(node) in gone)
        self.nodes[last + 1 : last + 1] = new
        self.nodes = [node for node in self.nodes if id(node) not in gone]
        self.index()

    def write(self) -> None:
        """Put the nodes into the proto, but for those that nothing reads any more."""
        while unread := [
            node for node in self.nodes if is_a(node, *LEFT_OVER) and self.is_unread(node)
        ]:
            gone = {id(node) for node in unread}
            self.nodes = [node for node in self.nodes if id(node) not in gone]
            self.index()
        del self.proto.node[:]
        self.proto.node.extend(self.nodes)
        for name in self.read_before - self.kept - self.readers.keys():
            if name in self.initializers:
                self.proto.initializer.remove(self.initializers[name])

    def is_unread(self, node: Any) -> bool:
        return not any(name in self.readers or name in self.kept for name in node.output)


def is_a(node: Any, *kinds: str) -> bool:
    """Whether a node is one of those operators of ai.onnx."""
    return node.domain in ("", "ai.onnx") and node.op_type in kinds


def attributes(node: Any) -> dict[str, Any]:
    """Return a node's attributes by name."""
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def inner_graphs(node: Any) -> Iterator[Any]:
    """Yield the graphs that a node has as attributes (If, Loop, Scan)."""
    for attribute in node.attribute:
        if attribute.type == GRAPH:
            yield attribute.g
        elif attribute.type == GRAPHS:
            yield from attribute.graphs


def names_inside(node: Any) -> Iterator[str]:
    """Yield what is read or handed on in a node's graphs."""
    for graph in inner_graphs(node):
        yield from (output.name for output in graph.output)
        for inner in graph.node:
            yield from inner.input
            yield from names_inside(inner)
