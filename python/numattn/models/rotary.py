"""Rotary positions: how the models of this package turn queries and keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from numattn.rope import apply_rope

from .settings import Settings

Float32Array: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Rotary:
    """Angles: position · frequency_i, frequency_i = base^(−2i / dim), or what scaling makes of it.

    (Su et al., RoFormer, 2021.)
    """

    frequencies: NDArray[np.float64]
    """(dim / 2,)"""

    @classmethod
    def from_settings(cls, settings: Settings, dim: int) -> Rotary:
        """Read rope_parameters, or rope_theta and rope_scaling as files named them before."""
        given = settings.part("rope_parameters")
        base = given.number("rope_theta", settings.number("rope_theta", 10000.0))
        if settings.get("rope_parameters") is None:
            given = settings.part("rope_scaling")
        partial = given.number("partial_rotary_factor", settings.number("partial_rotary_factor", 1))
        if partial != 1:
            raise ValueError(f"{settings.path}: partial_rotary_factor must be 1, not {partial}")
        frequencies = base ** (-np.arange(0, dim, 2) / dim)
        kind = given.get("rope_type", given.get("type", "default"))
        if kind == "linear":
            frequencies /= given.number("factor")
        elif kind == "llama3":
            frequencies = llama3_frequencies(frequencies, given)
        elif kind != "default":
            raise ValueError(
                f"{settings.path}: rope_type {kind!r} is not supported; "
                "supported: ['default', 'linear', 'llama3']"
            )
        return cls(frequencies)

    def tables(self, positions: NDArray[np.int64]) -> tuple[Float32Array, Float32Array]:
        """Return cosines and sines of positions (...), each (..., dim / 2)."""
        angles = positions[..., np.newaxis] * self.frequencies
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def llama3_frequencies(frequencies: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """Return the frequencies of Llama 3.1.

    Those of wavelengths above original / low_freq_factor are divided by `factor`, those below
    original / high_freq_factor stay, and between the two it goes over smoothly in original /
    wavelength. (Grattafiori et al., "The Llama 3 Herd of Models", 2024.)
    """
    original = settings.size("original_max_position_embeddings")
    low, high = settings.number("low_freq_factor"), settings.number("high_freq_factor")
    turns = original * frequencies / (2 * np.pi)  # original / wavelength
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return frequencies * (kept + (1 - kept) / settings.number("factor"))


def rotate(x: Float32Array, cos: Float32Array, sin: Float32Array) -> None:
    """Turn the pairs (x_i, x_{i + D/2}) of heads x (B, S, H, D) in place; cos, sin (B, S, D/2)."""
    apply_rope(x, cos, sin, layout="bshd", out=x)
