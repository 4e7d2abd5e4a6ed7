"""Windows of images: against a roll and a partition, and in Swin's and Swin-V2's layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import numattn as na

Array = NDArray[Any]


def rolled(x: Array, size: tuple[int, int], shift: tuple[int, int]) -> Array:
    x = np.roll(x, (-shift[0], -shift[1]), axis=(-3, -2))
    *lead, height, width, channels = x.shape
    rows, columns = size
    x = x.reshape(*lead, height // rows, rows, width // columns, columns, channels)
    return x.swapaxes(-4, -3).reshape(*lead, -1, rows * columns, channels)


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
@pytest.mark.parametrize("size", [1, 2, 4, (2, 3), (4, 12)])
@pytest.mark.parametrize("shift", [0, 1, 3, (0, 2), (-1, 13)])
def test_windows_are_those_of_a_roll(lead: tuple[int, ...], size: Any, shift: Any) -> None:
    x = np.arange(math.prod(lead) * 8 * 12 * 2, dtype=np.float32).reshape(*lead, 8, 12, 2)
    pair = np.broadcast_to(size, 2).tolist(), np.broadcast_to(shift, 2).tolist()
    parts = na.windows(x, size, shift)
    np.testing.assert_array_equal(parts, rolled(x, *pair))
    back = na.unwindow(parts, size, shift, height=8, width=12)
    np.testing.assert_array_equal(back, x)
    odd = x[..., ::-1, :, :1]
    np.testing.assert_array_equal(na.windows(odd, size, shift), rolled(odd, *pair))


def test_no_copy_where_strides_allow() -> None:
    x = np.zeros((2, 8, 6, 4), np.float32)
    parts = na.windows(x, (4, 6))
    assert np.shares_memory(parts, x)
    assert np.shares_memory(na.unwindow(parts, (4, 6), height=8, width=6), x)
    assert na.windows(x, 2, 1).ctypes.data % 64 == 0


@pytest.mark.parametrize("shift", [0, 1, 3, (2, 0)])
def test_window_mask(shift: Any) -> None:
    """Tokens see one another iff they are as far apart in the window as in the image."""
    height, width, size = 8, 12, 4
    rows, columns = np.mgrid[:height, :width]
    places = np.stack((rows, columns), axis=-1)
    window = na.windows(places, size, shift)
    inside = na.windows(places, size)[0]
    apart = window[:, :, None] - window[:, None]
    expected = (apart == inside[:, None] - inside[None]).all(axis=-1)
    mask = na.window_mask(height, width, size, shift)
    assert mask.shape == (6, 1, 16, 16)
    np.testing.assert_array_equal(mask[:, 0], expected)


def test_what_does_not_fit() -> None:
    x = np.zeros((8, 6, 4), np.float32)
    with pytest.raises(ValueError, match="an image of 8 x 6 is no whole number of windows of 4 x"):
        na.windows(x, 4)
    with pytest.raises(ValueError, match=r"x must have shape \(..., height, width, C\)"):
        na.windows(x[0], 2)
    with pytest.raises(ValueError, match=r"size must be positive, not \(0, 0\)"):
        na.windows(x, 0)
    with pytest.raises(ValueError, match="size must be one number or a pair"):
        na.windows(x, [1, 2, 3])
    with pytest.raises(TypeError, match="shift must hold integers"):
        na.windows(x, 2, 0.5)
    with pytest.raises(ValueError, match=r"x must have shape \(..., 12, 4, C\), not \(8, 6, 4\)"):
        na.unwindow(x, 2, height=8, width=6)
    with pytest.raises(ValueError, match="shift must be 0 … 1 with windows of 2, not 2"):
        na.window_mask(8, 6, 2, 2)


# --- transformers ---------------------------------------------------------------------------------

SIZE, HEADS, DIM = 4, 2, 8
WIDTH = HEADS * DIM


def filled(module: Any, rng: np.random.Generator) -> dict[str, Array]:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        for parameter in module.parameters():
            numbers = rng.standard_normal(tuple(parameter.shape)) / np.sqrt(WIDTH)
            parameter.copy_(torch.from_numpy(numbers))
    return {name: value.detach().float().numpy() for name, value in module.named_parameters()}


def windowed_heads(x: Array, shift: int, state: dict[str, Array], names: str) -> list[Array]:
    """Queries, keys and values (B, windows, tokens, H, D) of an image (B, height, width, C)."""
    heads = []
    for name in names.split():
        linear = na.Linear(state[f"{name}.weight"], state.get(f"{name}.bias"))
        parts = na.windows(linear(x), SIZE, shift)
        heads.append(parts.reshape(*parts.shape[:-1], HEADS, DIM))
    return heads


@pytest.mark.parametrize("shift", [0, 2])
def test_swin(isa: str, rng: np.random.Generator, shift: int) -> None:
    torch = pytest.importorskip("torch")
    swin = pytest.importorskip("transformers.models.swin.modeling_swin")
    config = swin.SwinConfig(window_size=SIZE, qkv_bias=True)
    config._attn_implementation = "eager"
    layer = swin.SwinLayer(config, WIDTH, (8, 12), HEADS, shift_size=shift).double().eval()
    state = filled(layer.attention, rng)
    x = rng.standard_normal((3, 8, 12, WIDTH), np.float32)
    with torch.no_grad():
        given = layer.cyclic_shift(torch.from_numpy(x).double())
        parts = swin.window_partition(given, SIZE).view(-1, SIZE * SIZE, WIDTH)
        mask = layer.get_attn_mask(8, 12, torch.float64, parts.device)
        expected = layer.attention(parts, mask)[0].view(-1, SIZE, SIZE, WIDTH)
        expected = swin.window_reverse(expected, SIZE, 8, 12)
        expected = layer.cyclic_shift(expected, reverse=True).numpy()
        bias = layer.attention.relative_position_bias().float().numpy()
    q, k, v = windowed_heads(x, shift, state, "q_proj k_proj v_proj")
    mask = na.window_mask(8, 12, SIZE, shift) if shift else None
    o = na.attention(q, k, v, bias=bias, mask=mask, layout="bshd")
    joined = na.unwindow(o.reshape(*o.shape[:-2], WIDTH), SIZE, shift, height=8, width=12)
    output = na.Linear(state["o_proj.weight"], state["o_proj.bias"])
    got = output(joined)
    assert np.linalg.norm(got - expected) <= 2e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("shift", [0, 2])
def test_swin_v2(isa: str, rng: np.random.Generator, shift: int) -> None:
    """Cosine attention: unit queries and keys, and a scale for each head."""
    torch = pytest.importorskip("torch")
    swin = pytest.importorskip("transformers.models.swin.modeling_swin")
    module = pytest.importorskip("transformers.models.swinv2.modeling_swinv2")
    attention = module.Swinv2SelfAttention(module.Swinv2Config(), WIDTH, HEADS, SIZE)
    attention = attention.double().eval()
    state = filled(attention, rng)
    x = rng.standard_normal((3, 8, 12, WIDTH), np.float32)
    kept: dict[str, Any] = {}
    mlp = attention.continuous_position_bias_mlp
    mlp.register_forward_hook(lambda m, given, table: kept.update(table=table))
    mask = na.window_mask(8, 12, SIZE, shift) if shift else None
    with torch.no_grad():
        given = torch.roll(torch.from_numpy(x).double(), (-shift, -shift), (1, 2))
        parts = swin.window_partition(given, SIZE).view(-1, SIZE * SIZE, WIDTH)
        hidden = None
        if mask is not None:
            hidden = torch.from_numpy(np.where(mask[:, 0], 0.0, -1000.0))
        expected = attention(parts, hidden)[0].numpy()
        table = kept["table"].view(-1, HEADS)[attention.relative_position_index.view(-1)]
        bias = 16 * torch.sigmoid(table).view(SIZE**2, SIZE**2, HEADS).permute(2, 0, 1)
    q, k, v = windowed_heads(x, shift, state, "query key value")
    q, k = (y / np.linalg.norm(y, axis=-1, keepdims=True) for y in (q, k))
    scale = np.exp(np.minimum(state["logit_scale"][:, 0, 0], math.log(100)))
    o = na.attention(
        q, k, v, bias=bias.float().numpy(), mask=mask, scale=scale, layout="bshd"
    )  # fmt: skip
    got = o.reshape(expected.shape)
    assert np.linalg.norm(got - expected) <= 5e-6 * np.linalg.norm(expected)
