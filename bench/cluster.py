"""What attention over a text on many nodes takes, on paper: ring and gathered, time and memory.

    python bench/cluster.py

Prints docs/cluster.md's table for 1M tokens. bench/cluster_measure.py holds the same formulas to
what processes of this machine take.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

GIB = 1 << 30


@dataclass(frozen=True)
class Layer:
    """A causal layer over a whole text."""

    tokens: int
    query_heads: int
    key_heads: int
    width: int
    bytes: int = 4
    """Of a number."""

    @property
    def flops(self) -> float:
        """Operations of both products, where a query sees the keys up to itself."""
        return 2.0 * self.query_heads * self.width * self.tokens**2

    @property
    def keys_and_values(self) -> int:
        """How many numbers there are of both together."""
        return 2 * self.tokens * self.key_heads * self.width

    @property
    def queries(self) -> int:
        """How many numbers there are of queries; of results, likewise."""
        return self.tokens * self.query_heads * self.width


@dataclass(frozen=True)
class Node:
    """What a process has."""

    flops: float
    """Per second, of attention."""
    combine: float
    """Seconds a number of the result takes when two parts are combined: NumPy, on one thread."""
    copy: float
    """Bytes per second that are written to memory in another order: NumPy, on one thread."""
    bandwidth: float
    """Bytes per second that it sends, while it receives as many."""
    latency: float
    """Seconds until the first byte comes."""


def ring_seconds(layer: Layer, node: Node, nodes: int) -> dict[str, float]:
    """Return the seconds of computing, combining and waiting, when keys and values go round.

    In each step a node works with one part and receives the next: the longer of both counts.
    """
    compute = layer.flops / nodes / node.flops
    combine = layer.queries / nodes * node.combine
    send = node.latency + layer.keys_and_values * layer.bytes / nodes / node.bandwidth
    wait = max(0.0, send - compute / nodes - combine) * (nodes - 1)
    # The node's own part is two chunks of which one sees the other: one chunk is combined.
    return {"compute": compute, "combine": combine * (nodes - 0.5), "wait": wait}


def gather_seconds(layer: Layer, node: Node, nodes: int) -> dict[str, float]:
    """Return the seconds of computing, of ordering and of the exchange, when all come to all."""
    total = layer.keys_and_values * layer.bytes
    exchange = (nodes - 1) * node.latency + total * (nodes - 1) / nodes / node.bandwidth
    return {
        "compute": layer.flops / nodes / node.flops,
        "order": total / node.copy,
        "wait": exchange,
    }


def ring_bytes(layer: Layer, nodes: int) -> float:
    """Return the bytes of a node: queries, results, sums of float32 and three parts of the keys."""
    parts = (2 * layer.queries + 3 * layer.keys_and_values) * layer.bytes
    return (parts + 1.5 * layer.queries * 4) / nodes


def gather_bytes(layer: Layer, nodes: int) -> float:
    """Return the bytes of a node: queries, results, all keys and values, and one of them twice."""
    own = (2.5 * layer.queries + layer.keys_and_values) * layer.bytes / nodes
    return own + 1.5 * layer.keys_and_values * layer.bytes


def row(name: str, layer: Layer, node: Node, nodes: int) -> str:
    """Return a line of the table."""
    cells = [name]
    for seconds, size in (
        (ring_seconds(layer, node, nodes), ring_bytes(layer, nodes)),
        (gather_seconds(layer, node, nodes), gather_bytes(layer, nodes)),
    ):
        parts = " + ".join(f"{part:.2f}" for part in seconds.values())
        cells += [f"{parts} = {sum(seconds.values()):.1f} s", f"{size / GIB:.1f}"]
    return "| " + " | ".join(cells) + " |"


# By cluster_measure.py 8192 in one process of one thread, on a 2-core AMD EPYC (Zen 3, AVX2) with
# other work at a load of 8: float32, D 128. Network is assumed below.
MEASURED = Node(flops=53.5e9, combine=1.7e-9, copy=2.8e9, bandwidth=0.0, latency=0.0)
# Assumed: 64 cores, each as fast as the one measured with all at work; 100 Gbit/s Ethernet.
ASSUMED = replace(MEASURED, flops=64 * MEASURED.flops, bandwidth=12.5e9, latency=20e-6)
# Attention of Llama 3 8B's shape.
LAYER = Layer(tokens=1 << 20, query_heads=32, key_heads=8, width=128)


def main() -> None:
    """Print the table."""
    print(
        "| nodes, network, numbers | ring: compute + combine + wait | GiB "
        "| gathered: compute + order + wait | GiB |\n|---|---|---|---|---|"
    )
    for name, nodes, changed in (
        ("64, 100 Gbit/s, 4 bytes", 64, {}),
        ("64, 10 Gbit/s, 4 bytes", 64, {"bandwidth": 1.25e9}),
        ("64, 1 Gbit/s, 4 bytes", 64, {"bandwidth": 0.125e9}),
        ("64, 100 Gbit/s, 16 times the speed", 64, {"flops": 16 * ASSUMED.flops}),
        ("16, 100 Gbit/s, 4 bytes", 16, {}),
        ("256, 100 Gbit/s, 4 bytes", 256, {}),
    ):
        print(row(name, LAYER, replace(ASSUMED, **changed), nodes))
    half = replace(LAYER, bytes=2)
    print(row("64, 100 Gbit/s, 2 bytes (float16)", half, ASSUMED, 64))


if __name__ == "__main__":
    main()
