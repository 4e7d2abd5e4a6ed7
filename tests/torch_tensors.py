"""Tensors for tests of numattn.compat.torch, and how near to PyTorch's results are to be."""

from __future__ import annotations

from typing import Any

import torch

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}


def qkv(
    batch: int = 2, heads: int = 4, kv_heads: int = 4, lengths: tuple[int, int] = (5, 7),
    width: int = 16, dtype: Any = torch.float32,
) -> tuple[Any, Any, Any]:  # fmt: skip
    q = torch.randn(batch, heads, lengths[0], width, dtype=dtype)
    k, v = (torch.randn(batch, kv_heads, lengths[1], width, dtype=dtype) for _ in range(2))
    return q, k, v


def assert_close(result: Any, expected: Any, dtype: Any = torch.float32) -> None:
    assert result.shape == expected.shape
    assert result.dtype == expected.dtype
    largest = expected.float().abs().max().item()
    assert (result.float() - expected.float()).abs().max().item() <= TOLERANCE[dtype] * largest
