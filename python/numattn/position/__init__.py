"""Positional encodings: what is added to inputs, to scores, or turns queries and keys."""

from __future__ import annotations

from numattn.position.alibi import alibi_slopes
from numattn.position.axes import axial_tables, grid_positions, section_tables
from numattn.position.disentangled import disentangled
from numattn.position.learned import learned
from numattn.position.relative import Relative
from numattn.position.rope import Rope
from numattn.position.shaw import shaw
from numattn.position.sinusoidal import sinusoidal, sinusoidal_2d
from numattn.position.t5 import t5_bias, t5_buckets
from numattn.position.transformer_xl import transformer_xl

__all__ = [
    "Relative",
    "Rope",
    "alibi_slopes",
    "axial_tables",
    "disentangled",
    "grid_positions",
    "learned",
    "section_tables",
    "shaw",
    "sinusoidal",
    "sinusoidal_2d",
    "t5_bias",
    "t5_buckets",
    "transformer_xl",
]
