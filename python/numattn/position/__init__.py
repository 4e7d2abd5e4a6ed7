"""Positional encodings: what is added to inputs, to scores, or turns queries and keys."""

from __future__ import annotations

from numattn.position.alibi import alibi_slopes
from numattn.position.learned import learned
from numattn.position.rope import Rope
from numattn.position.sinusoidal import sinusoidal, sinusoidal_2d
from numattn.position.t5 import t5_bias, t5_buckets

__all__ = [
    "Rope",
    "alibi_slopes",
    "learned",
    "sinusoidal",
    "sinusoidal_2d",
    "t5_bias",
    "t5_buckets",
]
