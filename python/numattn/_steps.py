"""Calls on arrays that follow one another, with no Python between them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numattn import _core
from numattn._arguments import thread_count
from numattn._names import Array, Float32Array, Int64Array
from numattn._score import Score
from numattn.linear import Linear

FEW_ROWS = 64
"""Of so many, a layer's arrays take little memory and its steps little time."""


class Steps:
    """Projections, norms and attention that are noted down, and then run in one go.

    Each method stands for the public function of its name and has its bits. It takes arrays as
    they are to be, looks at little, and computes nothing: until `run` is through, no array that a
    step writes holds what it will.

    So the interpreter's lock is let go once, not once for each call, and threads of Python that
    have a model each do not wait for one another (cpp/bind/steps.h). A step also takes 1 to 1.4 us
    less than a call. MiniLM, one text of 16 tokens: 42 of them.

    Parameters
    ----------
    num_threads : int, optional
        Upper limit for each step.
    """

    def __init__(self, num_threads: int | None) -> None:
        self.num_threads = num_threads
        self._core = _core.Steps(thread_count(num_threads))

    def linear(
        self,
        layer: Linear,
        x: Array,
        *,
        activation: str | None = None,
        factor: Linear | None = None,
        residual: Array | None = None,
        out: Array | None = None,
    ) -> Array:
        """Project x (T, in_features) into `out` (T, out_features), or a new array of x's dtype."""
        multiplier = None if factor is None else factor._packed
        return layer._packed.add_to(self._core, x, activation or "", multiplier, residual, out)

    def layer_norm(
        self,
        x: Float32Array,
        weight: Float32Array,
        bias: Float32Array | None,
        eps: float,
        out: Float32Array | None = None,
    ) -> Float32Array:
        """Normalise x (T, E) into `out`, which may be x, or a new array."""
        return _core.add_layer_norm(self._core, x, weight, bias, eps, out)

    def rms_norm(
        self,
        x: Float32Array,
        weight: Float32Array,
        eps: float,
        out: Float32Array | None = None,
    ) -> Float32Array:
        """Normalise x (T, E) into `out`, which may be x, or a new array."""
        return _core.add_rms_norm(self._core, x, weight, eps, out)

    def rope(self, heads: Array, cos: Float32Array, sin: Float32Array) -> None:
        """Turn heads (B, S, H, D) where they stand, by the angles of tokens (S, R) or (B, S, R)."""
        _core.add_rope(self._core, heads, cos, sin, None, False, "bshd", heads)

    def attention_varlen(
        self, q: Array, k: Array, v: Array, starts: Int64Array, out: Array, **score: Any
    ) -> None:
        """Attend from (T, H, D) to the same tokens, sequence by sequence, into `out`.

        The score's arguments are such as have a hash: no arrays.
        """
        _core.add_attention_varlen(self._core, q, k, v, starts, _rules(**score), out)

    def attention(self, q: Array, k: Array, v: Array, out: Array, **score: Any) -> None:
        """Attend from (B, S, H, D) to the same tokens, into `out`."""
        _core.add_attention(self._core, q, k, v, Score.of(**score), out)

    def run(self) -> None:
        """Compute what has been noted down since the last time, in its order."""
        self._core.run()

    def end_layer(self, rows: int) -> None:
        """Run, if arrays of so many rows should go before those of the next layer come."""
        if rows > FEW_ROWS:
            self.run()


@lru_cache(maxsize=64)
def _rules(**score: Any) -> Score:
    return Score.of(**score)
