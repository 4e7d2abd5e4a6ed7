"""The two normalisations of rows, each with its parameters."""

from __future__ import annotations

from dataclasses import dataclass

from numattn import layer_norm, rms_norm
from numattn._steps import Steps

from .arrays import Float32Array


@dataclass(frozen=True)
class LayerNorm:
    """``(x − mean) / sqrt(variance + eps) · weight + bias``, the bias 0 if it is None."""

    weight: Float32Array
    bias: Float32Array | None
    eps: float

    def __call__(
        self, x: Float32Array, num_threads: int | None, out: Float32Array | None = None
    ) -> Float32Array:
        """Return x (..., E) normalised, in `out`, which may be x."""
        return layer_norm(x, self.weight, self.bias, eps=self.eps, out=out, num_threads=num_threads)

    def add_to(
        self, steps: Steps, x: Float32Array, out: Float32Array | None = None
    ) -> Float32Array:
        """Return the array that is to hold x (T, E) normalised: `out`, which may be x."""
        return steps.layer_norm(x, self.weight, self.bias, self.eps, out)


@dataclass(frozen=True)
class RmsNorm:
    """``x / sqrt(mean of x² + eps) · weight``."""

    weight: Float32Array
    eps: float

    def __call__(
        self, x: Float32Array, num_threads: int | None, out: Float32Array | None = None
    ) -> Float32Array:
        """Return x (..., E) normalised, in `out`, which may be x."""
        return rms_norm(x, self.weight, eps=self.eps, out=out, num_threads=num_threads)

    def add_to(
        self, steps: Steps, x: Float32Array, out: Float32Array | None = None
    ) -> Float32Array:
        """Return the array that is to hold x (T, E) normalised: `out`, which may be x."""
        return steps.rms_norm(x, self.weight, self.eps, out)
