"""When the text of a window of sound is to be written again, and with what temperature.

A text that repeats itself (its tokens compress well), or that the model itself finds unlikely, is
written again, drawn at random at the next temperature. One that is unlikely after a beginning that
says "nothing is said" is none. (Radford et al., "Robust Speech Recognition via Large-Scale Weak
Supervision", 2023, 4.5; the numbers are those of transformers' `generate` for Whisper.)
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from numattn._arguments import bounded_integer, optional_real

from ..files.settings import Settings, shown
from ..sampling import Sampler
from .generation_config import any_number

# What else changes which tokens are drawn → values with which it does not.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "typical_p": (1.0, 1),
    "epsilon_cutoff": (0.0, 0),
    "eta_cutoff": (0.0, 0),
    "top_h": (),
}


class Look(NamedTuple):
    """What a second look at a text finds."""

    mean_log: float
    """The mean of log p over its tokens, its end included."""
    no_speech: float
    """The probability that nothing is said."""


class Verdict(NamedTuple):
    """What is to become of a text."""

    again: bool
    """Whether it is written again, if there is a further temperature."""
    silent: bool
    """Whether nothing is said."""


@dataclass(frozen=True)
class Thresholds:
    """Beyond which numbers a text is written again, or is none."""

    compression_ratio: float | None = None
    """The most that a text may shrink by compression."""
    logprob: float | None = None
    """The least mean of log p."""
    no_speech: float | None = None
    """The most probable that silence may be before an unlikely text."""

    @classmethod
    def of(cls, settings: Settings) -> Thresholds:
        """Read a generation_config.json."""

        def number(name: str) -> float | None:
            return None if settings.get(name) is None else any_number(settings, name, 0.0)

        return cls(
            number("compression_ratio_threshold"),
            number("logprob_threshold"),
            number("no_speech_threshold"),
        )

    def changed(self, **given: float | None) -> Thresholds:
        """Return these with what a call gives; None stays as it is."""
        names = {name: optional_real(f"{name}_threshold", value) for name, value in given.items()}
        for name, value in names.items():
            if value is not None and math.isnan(value):
                raise ValueError(f"{name}_threshold must be a number, not {value}")
        result = replace(self, **{key: each for key, each in names.items() if each is not None})
        if result.no_speech is not None and result.logprob is None:
            raise ValueError(
                f"no_speech_threshold {result.no_speech} needs a logprob_threshold: silence is "
                "where the text is unlikely as well"
            )
        return result

    @property
    def needs_look(self) -> bool:
        """Return whether a verdict needs a second look."""
        return self.logprob is not None

    def verdict(self, tokens: list[int], vocab_size: int, look: Look | None) -> Verdict:
        """Return what is to become of a text's tokens, its end included."""
        ratio = self.compression_ratio
        again = ratio is not None and compression_ratio(tokens, vocab_size) > ratio
        if self.logprob is None or look is None or not look.mean_log < self.logprob:
            return Verdict(again, False)
        silent = self.no_speech is not None and look.no_speech > self.no_speech
        return Verdict(not silent, silent)


def compression_ratio(tokens: list[int], vocab_size: int) -> float:
    """Return how many times smaller zlib makes tokens, written as bytes.

    >>> compression_ratio([7] * 100, 51865) > 10 > 1 > compression_ratio([7, 8], 51865)
    True
    """
    size = int(math.log2(vocab_size) / 8) + 1
    data = b"".join(token.to_bytes(size, "little") for token in tokens)
    return len(data) / len(zlib.compress(data))


@dataclass(frozen=True)
class Draws:
    """How a folder wants tokens to be drawn, if they are."""

    top_k: int | None
    top_p: float | None
    min_p: float | None

    @classmethod
    def of(cls, settings: Settings) -> Draws:
        """Read a generation_config.json; top_k is 50 where it is not said, as in transformers."""
        for name, neutral in NEUTRAL.items():
            value = settings.get(name)
            if value is not None and not any(value == each for each in neutral):
                raise ValueError(f"{settings.path}: {name} {shown(value)} is not supported")
        top_p = settings.number("top_p", 1.0)
        return cls(
            settings.whole("top_k", 0, 50) or None,
            None if top_p == 1 else top_p,
            settings.optional_number("min_p"),
        )

    def samplers(
        self, temperature: float | Sequence[float] | None, seed: int | None
    ) -> list[Sampler]:
        """Return what chooses tokens in one attempt after the other, or raise.

        Of one seed each attempt draws other numbers than those before it.
        """
        if seed is not None and bounded_integer("seed", seed) < 0:
            raise ValueError(f"seed must be 0 or more, not {seed}")
        given: Any = 0.0 if temperature is None else temperature
        if isinstance(given, str) or not hasattr(given, "__len__"):
            given = [given]
        if not len(given):
            raise ValueError("temperature must be one number or more, not none")
        return [
            Sampler(
                temperature=each, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p,
                seed=None if seed is None else seed_of(seed, number),
            )
            for number, each in enumerate(given)
        ]  # fmt: skip


def seed_of(seed: int, attempt: int) -> int:
    """Return the seed of one of several attempts."""
    return int(np.random.SeedSequence([seed, attempt]).generate_state(1, np.uint64)[0])
