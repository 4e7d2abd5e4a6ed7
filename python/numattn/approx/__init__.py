"""Attention that is not exact, for a cost that is linear in the length or nearly so.

Nothing else in numattn approximates. Each function says what its result differs from exact
attention by; docs/approximations.md has numbers, and says when not to use them.
"""

from __future__ import annotations

from numattn.approx.linear import LinearState, linear_attention
from numattn.approx.linformer import linformer
from numattn.approx.nystrom import nystrom
from numattn.approx.performer import orthogonal_projection, performer
from numattn.approx.top_blocks import choose_blocks, top_blocks
from numattn.approx.top_pages import PageBounds, choose_pages, page_bounds, top_pages

__all__ = [
    "LinearState",
    "PageBounds",
    "choose_blocks",
    "choose_pages",
    "linear_attention",
    "linformer",
    "nystrom",
    "orthogonal_projection",
    "page_bounds",
    "performer",
    "top_blocks",
    "top_pages",
]
