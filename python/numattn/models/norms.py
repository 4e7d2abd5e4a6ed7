"""The two normalisations of rows, each with its parameters."""

from __future__ import annotations

from dataclasses import dataclass

from numattn import layer_norm, rms_norm

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
