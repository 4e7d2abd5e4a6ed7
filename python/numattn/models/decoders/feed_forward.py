"""The second half of a layer of Llama's family: a gated MLP, or experts of which a token has a few.

    gated      (activation(h·Wgateᵀ) ∘ h·Wupᵀ)·Wdownᵀ
    clamped    (g·sigmoid(alpha·g) ∘ (u + 1))·Wdownᵀ,  g = min(h·Wgateᵀ, limit), u = clip(h·Wupᵀ)

    experts    Σ over the chosen e of p_e · MLP_e(h),  p = softmax of the largest logits h·Wrouterᵀ

(Shazeer, GLU variants, 2020; Jiang et al., Mixtral of Experts, 2024; OpenAI, gpt-oss-120b &
gpt-oss-20b Model Card, 2025.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from numattn import Linear, silu
from numattn._aligned import empty
from numattn._steps import Steps

from ..arrays import Float32Array, Int64Array
from ..files.activations import Activation
from ..norms import RmsNorm


@dataclass(frozen=True)
class Addition:
    """How a layer adds to x: normalised, if there is a norm, and times a factor."""

    norm: RmsNorm | None
    scale: float

    def product(self, steps: Steps, x: Float32Array, linear: Linear, h: NDArray[Any]) -> None:
        """Add the projection of h to x in place, as a step or at once."""
        if self.norm is None and self.scale == 1:
            steps.linear(linear, h, residual=x, out=x)
            return
        # Of x's dtype, whatever that of h is.
        self.rows(steps, x, steps.linear(linear, h, out=empty(x.shape, x.dtype)))

    def rows(self, steps: Steps, x: Float32Array, more: Float32Array) -> None:
        """Run the steps, which make `more`, and add it to x in place; its memory changes."""
        if self.norm is not None:
            self.norm.add_to(steps, more, out=more)
        steps.run()
        if self.scale != 1:
            more *= np.float32(self.scale)
        x += more


class FeedForward(Protocol):
    """What stands in the second half of a layer."""

    def add(self, steps: Steps, x: Float32Array, h: Float32Array, addition: Addition) -> None:
        """Add what it makes of h (T, E) to x in place, as steps or at once."""


@dataclass(frozen=True)
class Gated:
    """The MLP that most of these models have."""

    gate: Linear
    up: Linear
    down: Linear
    activation: Activation

    def add(self, steps: Steps, x: Float32Array, h: Float32Array, addition: Addition) -> None:
        addition.product(steps, x, self.down, self._inner(steps, h))

    def __call__(self, h: Float32Array, threads: int | None) -> Float32Array:
        """Return what it makes of h (T, E)."""
        steps = Steps(threads)
        result: Float32Array = steps.linear(self.down, self._inner(steps, h))
        steps.run()
        return result

    def _inner(self, steps: Steps, h: Float32Array) -> NDArray[Any]:
        return steps.linear(self.gate, h, activation=self.activation, factor=self.up)


@dataclass(frozen=True)
class Clamped:
    """The MLP of one of GPT-OSS' experts."""

    gate: Linear
    up: Linear
    down: Linear
    alpha: float
    limit: float

    def __call__(self, h: Float32Array, threads: int | None) -> Float32Array:
        """Return what it makes of h (T, E)."""
        gate, up = (linear(h, num_threads=threads) for linear in (self.gate, self.up))
        np.minimum(gate, self.limit, out=gate)
        np.clip(up, -self.limit, self.limit, out=up)
        up += 1
        # silu(alpha·g)/alpha = g·sigmoid(alpha·g)
        gate *= np.float32(self.alpha)
        up *= silu(gate, out=gate, num_threads=threads)
        up /= np.float32(self.alpha)
        return self.down(up, num_threads=threads)


@dataclass(frozen=True)
class Experts:
    """MLPs, of which each token passes through those that the router's logits are largest for.

    The router is float32 whatever the weights are stored in: which ones they are must not change
    with that. A token's sum is made in the order of the experts, so that it does not depend on the
    tokens beside it.
    """

    router: Linear
    experts: Sequence[Gated | Clamped]
    chosen: int

    def add(self, steps: Steps, x: Float32Array, h: Float32Array, addition: Addition) -> None:
        steps.run()
        addition.rows(steps, x, self(h, steps.num_threads))

    def __call__(self, h: Float32Array, threads: int | None) -> Float32Array:
        """Return what it makes of h (T, E)."""
        experts, shares = choose(self.router(h, num_threads=threads), self.chosen)
        # Places in (T, chosen), those of one expert after those of another.
        places = np.argsort(experts, axis=None, kind="stable")
        counts = np.bincount(experts.reshape(-1), minlength=len(self.experts))
        result = np.zeros(h.shape, dtype=np.float32)
        ends = np.cumsum(counts)
        for number in np.flatnonzero(counts).tolist():
            mine = places[ends[number] - counts[number] : ends[number]]
            tokens = mine // self.chosen  # each at most once
            made = self.experts[number](h[tokens], threads)
            made *= shares.reshape(-1, 1)[mine]
            result[tokens] += made
        return result


def choose(logits: Float32Array, count: int) -> tuple[Int64Array, Float32Array]:
    """Return the experts of each token (T, count), and the softmax of their logits.

    >>> choose(np.float32([[0, 2, 1], [5, 5, 5]]), 2)[0]
    array([[1, 2],
           [0, 1]])
    """
    experts = np.argsort(-logits, axis=1, kind="stable")[:, :count]
    shares = np.take_along_axis(logits, experts, axis=1)
    with np.errstate(invalid="ignore"):  # of a token that has become infinite
        shares -= shares[:, :1]
    np.exp(shares, out=shares)
    shares /= shares.sum(axis=1, keepdims=True)
    return experts, shares
