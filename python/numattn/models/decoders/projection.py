"""Projections, of one weight or of several that a file quantises otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from numattn import Linear
from numattn._aligned import empty
from numattn._names import Array
from numattn._steps import Steps

from ..arrays import Float32Array
from ..files.integers import Integers, joined


@dataclass(frozen=True)
class Parts:
    """Projections of the same rows, whose results stand side by side."""

    layers: tuple[Linear, ...]

    def add_to(self, steps: Steps, x: Array) -> Array:
        """Return the array that is to hold their results for x (T, E), of its dtype."""
        out = empty((x.shape[0], sum(layer.out_features for layer in self.layers)), x.dtype)
        begin = 0
        for layer in self.layers:
            end = begin + layer.out_features
            steps.linear(layer, x, out=out[:, begin:end])
            begin = end
        return out


Projection: TypeAlias = Linear | Parts


def project(steps: Steps, projection: Projection, x: Array) -> Array:
    """Return the array that is to hold a projection of x (T, E), of its dtype."""
    if isinstance(projection, Parts):
        return projection.add_to(steps, x)
    return steps.linear(projection, x)


def projection_of(parts: Sequence[Integers], bias: Float32Array | None) -> Projection:
    """Return the projection to parts that are kept as integers: one layer, if they are alike."""
    whole = joined(parts)
    if whole is not None:
        return Linear.from_integers(*whole, bias=bias)
    layers, begin = [], 0
    for part in parts:
        end = begin + part.integers.shape[0]
        own = None if bias is None else bias[begin:end]
        layers.append(Linear.from_integers(*part, bias=own))
        begin = end
    return Parts(tuple(layers))
