"""What the rows of a service are in float64: `probe` of oracle.py, for them too."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cases import Operands
from oracle import Probe, exact, probe
from serving import GenerationCase, RaggedCase


@probe.register
def probe_ragged(case: RaggedCase, operands: Operands) -> Probe:
    """The first and the last sequence."""
    from numattn import reference

    starts = case.starts
    ends = [slice(starts[0], starts[1]), slice(starts[-2], starts[-1])]
    expected = [
        reference.attention(*(exact(operands[name][rows]) for name in operands), layout="bshd")
        for rows in ends
    ]

    def pick(result: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([result[rows] for rows in ends])

    return Probe(pick, np.concatenate(expected))


@probe.register
def probe_generation(case: GenerationCase, operands: Operands) -> Probe:
    """The logits after the token."""
    return Probe(lambda result: result.reshape(-1), llama_step(case, operands))


def llama_step(case: GenerationCase, operands: Operands) -> NDArray[np.float64]:
    """Logits (V,) of the formulas of Llama as written, the new token at position `context`."""
    from numattn import reference

    weights = {name: exact(tensor) for name, tensor in case.tensors().items()}
    size, inverse = case.head_dim, 10000.0 ** (-np.arange(0, case.head_dim, 2) / case.head_dim)
    cos, sin = np.cos(case.context * inverse), np.sin(case.context * inverse)

    def norm(x: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(x / np.sqrt(np.mean(x**2) + 1e-5))  # the weights are 1

    def turned(x: NDArray[Any]) -> NDArray[Any]:
        a, b = x[..., : size // 2], x[..., size // 2 :]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    x = weights["model.embed_tokens.weight"][int(operands["token"][0, 0])]
    for layer in range(case.layers):
        name = f"model.layers.{layer}"
        part = {
            key.removeprefix(f"{name}.").removesuffix("_proj.weight").split(".")[-1]: value
            for key, value in weights.items()
            if key.startswith(f"{name}.") and key.endswith("_proj.weight")
        }
        h = norm(x)
        q, k, v = ((part[which] @ h).reshape(-1, 1, size) for which in "qkv")
        keys = np.concatenate([exact(operands["keys"][layer, 0]), turned(k)], axis=1)
        values = np.concatenate([exact(operands["values"][layer, 0]), v], axis=1)
        x = x + part["o"] @ reference.attention(turned(q), keys, values).reshape(-1)
        h = norm(x)
        gate = part["gate"] @ h
        x = x + part["down"] @ (gate / (1 + np.exp(-gate)) * (part["up"] @ h))
    return np.asarray(weights["model.embed_tokens.weight"] @ norm(x))
