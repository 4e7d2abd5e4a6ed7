"""Attention that is not exact, for a cost that is linear in the length: ask for it by name.

Nothing else in numattn approximates. Each function says what its result differs from exact
attention by; docs/approximations.md has numbers, and says when not to use them.
"""

from __future__ import annotations

from numattn.approx.linear import LinearState, linear_attention
from numattn.approx.linformer import linformer
from numattn.approx.nystrom import nystrom
from numattn.approx.performer import orthogonal_projection, performer

__all__ = [
    "LinearState",
    "linear_attention",
    "linformer",
    "nystrom",
    "orthogonal_projection",
    "performer",
]
