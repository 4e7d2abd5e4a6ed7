"""numattn.compat.torch: scaled_dot_product_attention against PyTorch's."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

import numattn.compat.torch as nt  # noqa: E402
from torch_tensors import TOLERANCE, assert_close, qkv  # noqa: E402

pytestmark = pytest.mark.usefixtures("seeded_torch")


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_sdpa(dtype: Any) -> None:
    q, k, v = qkv(dtype=dtype)
    assert_close(
        nt.scaled_dot_product_attention(q, k, v), F.scaled_dot_product_attention(q, k, v), dtype
    )


@pytest.mark.parametrize("shape", [(5, 7), (4, 5, 7), (2, 1, 5, 7), (2, 1, 1, 7), (1, 7)])
@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_sdpa_masks(shape: tuple[int, ...], kind: Any) -> None:
    q, k, v = qkv()
    mask = torch.rand(shape) > 0.4 if kind == torch.bool else torch.randn(shape)
    if kind == torch.bool:
        mask[..., 0] = True
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert_close(nt.scaled_dot_product_attention(q, k, v, attn_mask=mask), expected)


@pytest.mark.parametrize("lengths", [(5, 7), (7, 5), (6, 6)])
def test_sdpa_is_causal_from_the_top_left(lengths: tuple[int, int]) -> None:
    q, k, v = qkv(lengths=lengths)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert_close(nt.scaled_dot_product_attention(q, k, v, is_causal=True), expected)


def test_sdpa_grouped_heads_and_scale() -> None:
    q, k, v = qkv(heads=8, kv_heads=2)
    options = {"enable_gqa": True, "scale": 0.3}
    expected = F.scaled_dot_product_attention(q, k, v, **options)
    assert_close(nt.scaled_dot_product_attention(q, k, v, **options), expected)
    with pytest.raises(ValueError, match="query has 8 heads and key 2: give enable_gqa=True"):
        nt.scaled_dot_product_attention(q, k, v)


@pytest.mark.parametrize("axes", [(), (3,), (2, 3), (2, 1, 3)])
def test_sdpa_of_any_number_of_axes(axes: tuple[int, ...]) -> None:
    q, k, v = (torch.randn(*axes, length, 8) for length in (5, 7, 7))
    expected = F.scaled_dot_product_attention(q, k, v)
    assert_close(nt.scaled_dot_product_attention(q, k, v), expected)


def test_sdpa_batch_axes_broadcast() -> None:
    q, k, v = qkv()
    expected = F.scaled_dot_product_attention(q, k[:1], v[:1])
    assert_close(nt.scaled_dot_product_attention(q, k[:1], v[:1]), expected)
    expected = F.scaled_dot_product_attention(q[:, :1], k, v)
    assert_close(nt.scaled_dot_product_attention(q[:, :1], k, v), expected)


def test_sdpa_refuses() -> None:
    q, k, v = qkv()
    with pytest.raises(ValueError, match="dropout_p must be 0, not 0.1"):
        nt.scaled_dot_product_attention(q, k, v, dropout_p=0.1)
    with pytest.raises(ValueError, match="attn_mask must be None with is_causal"):
        nt.scaled_dot_product_attention(q, k, v, torch.ones(5, 7), is_causal=True)
    with pytest.raises(TypeError, match="q is float64"):
        nt.scaled_dot_product_attention(q.double(), k.double(), v.double())
    with pytest.raises(TypeError, match="device meta"):
        nt.scaled_dot_product_attention(q.to("meta"), k, v)
    with pytest.raises(ValueError, match="as many axes"):
        nt.scaled_dot_product_attention(q, k[0], v[0])


def test_gradients_are_refused() -> None:
    q, k, v = qkv()
    q.requires_grad_()
    with pytest.raises(RuntimeError, match="no gradients: call it under torch.no_grad"):
        nt.scaled_dot_product_attention(q, k, v)
    with pytest.raises(RuntimeError, match="no gradients"):
        nt.flash_attn_func(q, k, v)
    for quiet in (torch.no_grad, torch.inference_mode):
        with quiet():
            expected = F.scaled_dot_product_attention(q, k, v)
            assert_close(nt.scaled_dot_product_attention(q, k, v), expected)


def test_names_are_there() -> None:
    assert set(nt.__all__) <= set(dir(nt))
    assert all(getattr(nt, name) is not None for name in nt.__all__)
    with pytest.raises(AttributeError, match="no attribute 'no_such'"):
        _ = nt.no_such
