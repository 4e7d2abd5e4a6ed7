"""numattn.compat.torch: flash-attn's functions against the formulas of its README."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import numattn.compat.torch as nt  # noqa: E402
from torch_tensors import assert_close, qkv  # noqa: E402

pytestmark = pytest.mark.usefixtures("seeded_torch")


def flash_reference(
    q: Any, k: Any, v: Any, causal: bool = False, window: tuple[int, int] = (-1, -1),
    softcap: float = 0.0, slopes: Any = None, scale: float | None = None,
) -> tuple[Any, Any]:  # fmt: skip
    """The formulas of flash-attn's README over (S, H, D), in float64."""
    q, k, v = (x.double().transpose(0, 1) for x in (q, k, v))
    group = len(q) // len(k)
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    rows, keys = q.shape[1], k.shape[1]
    scores = q @ k.transpose(1, 2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    distance = torch.arange(rows)[:, None] + keys - rows - torch.arange(keys)
    if slopes is not None:
        scores = scores - slopes.double()[:, None, None] * distance.abs()
    hidden = torch.zeros(rows, keys, dtype=torch.bool)
    if causal:
        hidden |= distance < 0
    if window[0] >= 0:
        hidden |= distance > window[0]
    if window[1] >= 0:
        hidden |= distance < -window[1]
    scores = scores.masked_fill(hidden, -torch.inf)
    weights = torch.softmax(scores, -1).nan_to_num(0.0)
    return (weights @ v).transpose(0, 1).float(), torch.logsumexp(scores, -1).float()


FLASH = [
    {},
    {"causal": True},
    {"causal": True, "window_size": (2, 0)},
    {"window_size": (1, 2)},
    {"softcap": 5.0, "softmax_scale": 0.7},
    {"causal": True, "alibi_slopes": torch.tensor([0.5, 0.25, 0.125, 1.0])},
]


def in_short(options: dict[str, Any]) -> dict[str, Any]:
    names = {"window_size": "window", "alibi_slopes": "slopes", "softmax_scale": "scale"}
    return {names.get(name, name): value for name, value in options.items()}


@pytest.mark.parametrize("options", FLASH, ids=range(len(FLASH)))
@pytest.mark.parametrize("lengths", [(5, 7), (7, 5), (1, 6)])
def test_flash(options: dict[str, Any], lengths: tuple[int, int]) -> None:
    q, k, v = (x.transpose(1, 2) for x in qkv(heads=4, kv_heads=2, lengths=lengths))
    out, lse, _ = nt.flash_attn_func(q, k, v, return_attn_probs=True, **options)
    assert torch.equal(out, nt.flash_attn_func(q, k, v, **options))
    for row in range(2):
        expected, sums = flash_reference(q[row], k[row], v[row], **in_short(options))
        assert_close(out[row], expected)
        torch.testing.assert_close(lse[row], sums)


@pytest.mark.parametrize("options", FLASH, ids=range(len(FLASH)))
def test_flash_varlen(options: dict[str, Any]) -> None:
    q, k, v = torch.randn(9, 4, 16), torch.randn(11, 2, 16), torch.randn(11, 2, 16)
    starts_q, starts_k = (torch.tensor(x, dtype=torch.int32) for x in ([0, 4, 9], [0, 8, 11]))
    arguments = (q, k, v, starts_q, starts_k, 5, 8)
    out, lse, _ = nt.flash_attn_varlen_func(*arguments, return_attn_probs=True, **options)
    assert torch.equal(out, nt.flash_attn_varlen_func(*arguments, **options))
    for rows, keys in ((slice(0, 4), slice(0, 8)), (slice(4, 9), slice(8, 11))):
        expected, sums = flash_reference(q[rows], k[keys], v[keys], **in_short(options))
        assert_close(out[rows], expected)
        torch.testing.assert_close(lse[:, rows], sums)


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("options", FLASH, ids=range(len(FLASH)))
def test_flash_with_a_cache(options: dict[str, Any], paged: bool) -> None:
    q, new_k, new_v = (torch.randn(2, 3, heads, 16) for heads in (4, 2, 2))
    lengths = torch.tensor([4, 9], dtype=torch.int32)
    if paged:
        k_cache, v_cache = torch.randn(8, 4, 2, 16), torch.randn(8, 4, 2, 16)
        where = {"block_table": torch.tensor([[5, 1, 7, 0], [2, 6, 3, 4]], dtype=torch.int32)}
        rows = where["block_table"].long()
    else:
        k_cache, v_cache = torch.randn(3, 16, 2, 16), torch.randn(3, 16, 2, 16)
        where = {"cache_batch_idx": torch.tensor([2, 0], dtype=torch.int32)}
        rows = where["cache_batch_idx"].long()[:, None]
    before = [cache[rows].flatten(1, 2).clone() for cache in (k_cache, v_cache)]
    out, lse = nt.flash_attn_with_kvcache(
        q, k_cache, v_cache, new_k, new_v, cache_seqlens=lengths, return_softmax_lse=True,
        **where, **options,
    )  # fmt: skip
    for row, length in enumerate(lengths.tolist()):
        k, v = (
            torch.cat([old[row, :length], new[row]])
            for old, new in zip(before, (new_k, new_v), strict=True)
        )
        assert torch.equal(k_cache[rows].flatten(1, 2)[row, : length + 3], k)
        expected, sums = flash_reference(q[row], k, v, **in_short(options))
        assert_close(out[row], expected)
        torch.testing.assert_close(lse[row], sums)


def test_flash_with_a_cache_turned_and_padded() -> None:
    q, k = torch.randn(1, 2, 4, 16), torch.randn(1, 2, 4, 16)
    v = torch.randn(1, 2, 4, 16)
    angles = torch.arange(32)[:, None] * 10.0 ** -torch.arange(8)
    cos, sin = angles.cos(), angles.sin()

    def turned(x: Any, positions: Any) -> Any:
        a, b = x[..., ::2], x[..., 1::2]
        c, s = cos[positions][:, None], sin[positions][:, None]
        return torch.stack([a * c - b * s, b * c + a * s], -1).flatten(-2)

    k_cache, v_cache = torch.randn(1, 12, 4, 16), torch.randn(1, 12, 4, 16)
    k_cache[:, :2] = v_cache[:, :2] = torch.nan
    held_k, held_v = k_cache.clone(), v_cache.clone()
    out = nt.flash_attn_with_kvcache(
        q, k_cache, v_cache, k, v, cos, sin, cache_seqlens=5, causal=True,
        cache_leftpad=torch.tensor([2]),
    )  # fmt: skip
    positions = torch.tensor([3, 4])
    keys = torch.cat([held_k[0, 2:5], turned(k[0], positions)])
    values = torch.cat([held_v[0, 2:5], v[0]])
    expected, _ = flash_reference(turned(q[0], positions), keys, values, causal=True)
    torch.testing.assert_close(out[0], expected)


def test_flash_refuses() -> None:
    q, k, v = (x.transpose(1, 2) for x in qkv())
    starts = torch.tensor([0, 5], dtype=torch.int32)
    with pytest.raises(ValueError, match="dropout_p must be 0"):
        nt.flash_attn_func(q, k, v, dropout_p=0.5)
    with pytest.raises(ValueError, match="window_size must be a pair"):
        nt.flash_attn_func(q, k, v, window_size=3)
    with pytest.raises(ValueError, match="block_table must be None here"):
        nt.flash_attn_varlen_func(q[0], k[0], v[0], starts, starts, 5, 7, block_table=starts)
    with pytest.raises(ValueError, match="room for 7 tokens"):
        nt.flash_attn_with_kvcache(q, k, v, k, v, cache_seqlens=2)
    with pytest.raises(ValueError, match="k and v must be given together"):
        nt.flash_attn_with_kvcache(q, k, v, k)
    with pytest.raises(ValueError, match="give cache_batch_idx"):
        nt.flash_attn_with_kvcache(q, k[:1], v[:1])
