"""Frequencies of rotary positions, and how models stretch them to longer contexts.

Each entry of `SCALINGS` takes the plain frequencies ``w_i = base^(-2i/dim)`` of a head, the
parameters under their names in Hugging Face configurations, and the length of the sequence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frequencies = NDArray[np.float64]


@dataclass(frozen=True)
class Parameters:
    """A scaling by name, its numbers checked as they are asked for."""

    kind: str
    given: Mapping[str, Any]

    def has(self, name: str) -> bool:
        """Whether a value is there; None is none."""
        return self.given.get(name) is not None

    def positive(self, name: str, default: float | None = None) -> float:
        """A positive number; without a default it must be there."""
        value = self.given.get(name)
        if value is None:
            if default is None:
                raise ValueError(f"scaling of type {self.kind!r} needs {name!r}")
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
            raise TypeError(f"{name} of the scaling must be a number, not {value!r}")
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} of the scaling must be positive and finite, not {value}")
        return float(value)

    def factors(self, name: str, count: int) -> Frequencies:
        """One positive number for each frequency."""
        if not self.has(name):
            raise ValueError(f"scaling of type {self.kind!r} needs {name!r}")
        values = np.asarray(self.given[name], dtype=np.float64)
        if values.shape != (count,):
            raise ValueError(
                f"{name} of the scaling must have {count} numbers, one per frequency, "
                f"not shape {values.shape}"
            )
        if not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"{name} of the scaling must hold positive finite numbers")
        return values

    def trained_length(self) -> float:
        """The context that the model was trained with before it was stretched."""
        name = "original_max_position_embeddings"
        length = self.positive(name) if self.has(name) else self.longest(name)
        if length <= 1:
            raise ValueError(f"{name} of the scaling must be more than 1, not {length}")
        return length

    def longest(self, instead_of: str) -> float:
        """The longest context, where a configuration has it instead of another number."""
        if not self.has("max_position_embeddings"):
            raise ValueError(f"scaling of type {self.kind!r} needs {instead_of!r}")
        return self.positive("max_position_embeddings")

    def stretch(self) -> float:
        """The factor, or the ratio of the contexts that stands for it."""
        if self.has("factor"):
            return self.positive("factor")
        return self.longest("factor") / self.trained_length()


def plain_frequencies(dim: int, base: float) -> Frequencies:
    """``base^(-2i/dim)`` for the dim/2 pairs (Su et al., RoFormer, 2021)."""
    frequencies: Frequencies = float(base) ** (-np.arange(0, dim, 2) / dim)
    return frequencies


def unscaled(plain: Frequencies, base: float, scaling: Parameters, length: float) -> Frequencies:
    """As trained."""
    return plain


def linear(plain: Frequencies, base: float, scaling: Parameters, length: float) -> Frequencies:
    """Positions divided by a factor (Chen et al., Position Interpolation, 2023)."""
    return plain / scaling.positive("factor")


def dynamic(plain: Frequencies, base: float, scaling: Parameters, length: float) -> Frequencies:
    """A base that grows with the sequence beyond the trained length (NTK-aware scaling).

    ``base' = base · (factor · length/trained − (factor − 1))^(dim/(dim − 2))``
    """
    dim = 2 * len(plain)
    if dim < 4:
        raise ValueError(f"scaling of type 'dynamic' needs a dim of at least 4, not {dim}")
    factor = scaling.positive("factor")
    if scaling.has("max_position_embeddings"):
        trained = scaling.positive("max_position_embeddings")
    else:
        trained = scaling.trained_length()
    growth = factor * max(length, trained) / trained - (factor - 1)
    return plain_frequencies(dim, base * growth ** (dim / (dim - 2)))


def yarn(plain: Frequencies, base: float, scaling: Parameters, length: float) -> Frequencies:
    """Fast pairs as trained, slow ones interpolated, a ramp between (Peng et al., YaRN, 2023).

    Fast is a pair that turns more than beta_fast times within the trained length, slow one that
    turns less than beta_slow times. Pair i turns ``trained · w_i / 2π`` times; solved for i:
    """
    dim = 2 * len(plain)
    trained = scaling.trained_length()
    if base <= 1:
        raise ValueError(f"scaling of type 'yarn' needs a base of more than 1, not {base}")

    def pair_that_turns(times: float) -> float:
        return dim * math.log(trained / (times * 2 * math.pi)) / (2 * math.log(base))

    low = pair_that_turns(scaling.positive("beta_fast", 32.0))
    high = pair_that_turns(scaling.positive("beta_slow", 1.0))
    truncate = scaling.given.get("truncate")
    if truncate is None or truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    width = high - low if high != low else 0.001  # a step between two pairs
    interpolated: Frequencies = np.clip((np.arange(len(plain)) - low) / width, 0, 1)
    return plain / scaling.stretch() * interpolated + plain * (1 - interpolated)


def llama3(plain: Frequencies, base: float, scaling: Parameters, length: float) -> Frequencies:
    """Long waves divided by a factor, short ones as trained, a ramp between (Llama 3.1, 2024).

    A wave is long if the trained length holds less than low_freq_factor of it, short if more than
    high_freq_factor.
    """
    low, high = scaling.positive("low_freq_factor"), scaling.positive("high_freq_factor")
    if high <= low:
        raise ValueError(
            f"high_freq_factor of the scaling must be more than low_freq_factor {low}, not {high}"
        )
    waves = scaling.trained_length() * plain / (2 * math.pi)
    kept = np.clip((waves - low) / (high - low), 0, 1)
    return (1 - kept) * plain / scaling.positive("factor") + kept * plain


def longrope(plain: Frequencies, base: float, scaling: Parameters, length: float) -> Frequencies:
    """A divisor for each pair, one set within the trained length, another beyond it.

    (Ding et al., LongRoPE, 2024.)
    """
    sets = {name: scaling.factors(name, len(plain)) for name in ("short_factor", "long_factor")}
    return plain / sets["long_factor" if length > scaling.trained_length() else "short_factor"]


def proportional(
    plain: Frequencies, base: float, scaling: Parameters, length: float
) -> Frequencies:
    """The first pairs alone turn; the others, frequency 0, stay as they are (Gemma 4)."""
    turning = int(scaling.positive("partial_rotary_factor", 1.0) * 2 * len(plain) // 2)
    return np.where(np.arange(len(plain)) < turning, plain / scaling.positive("factor", 1.0), 0.0)


Scaling = Callable[[Frequencies, float, Parameters, float], Frequencies]

SCALINGS: dict[str, Scaling] = {
    "default": unscaled,
    "linear": linear,
    "dynamic": dynamic,
    "yarn": yarn,
    "llama3": llama3,
    "longrope": longrope,
    "proportional": proportional,
}
SCALINGS["su"] = longrope  # its name in early configurations


def attention_factor(scaling: Parameters) -> float:
    """What cosines and sines are multiplied by; its square multiplies the scores."""
    if SCALINGS[scaling.kind] not in (yarn, longrope):
        return 1.0
    if scaling.has("attention_factor"):
        return scaling.positive("attention_factor")
    factor = scaling.stretch()
    if SCALINGS[scaling.kind] is longrope:
        if factor <= 1:
            return 1.0
        return math.sqrt(1 + math.log(factor) / math.log(scaling.trained_length()))
    if scaling.given.get("mscale") and scaling.given.get("mscale_all_dim"):
        over, under = (scaling.positive(name) for name in ("mscale", "mscale_all_dim"))
        return yarn_magnitude(factor, over) / yarn_magnitude(factor, under)
    return yarn_magnitude(factor, 1.0)


def yarn_magnitude(factor: float, weight: float) -> float:
    """``0.1 · weight · ln(factor) + 1``; 1 where nothing is stretched (YaRN, equation 22)."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0
