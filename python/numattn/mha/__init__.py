"""Multi-head attention: projections, attention of the heads, and what comes between them."""

from __future__ import annotations

from .heads import ProjectedContext
from .layer import MultiHeadAttention

__all__ = ["MultiHeadAttention", "ProjectedContext"]
