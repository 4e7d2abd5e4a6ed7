"""Multi-head attention: projections, attention of the heads, and what comes between them."""

from __future__ import annotations

from .head_norm import HeadNorm
from .heads import ProjectedContext
from .layer import MultiHeadAttention

__all__ = ["HeadNorm", "MultiHeadAttention", "ProjectedContext"]
