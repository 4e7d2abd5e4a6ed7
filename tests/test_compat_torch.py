"""numattn.compat.torch: PyTorch's functions and layers, and flash-attn's, against PyTorch."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

import numattn.compat.torch as nt  # noqa: E402

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


# --- scaled_dot_product_attention -----------------------------------------------------------------


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


class Attends(torch.nn.Module):
    """A module that calls what it is given between two layers."""

    def __init__(self, sdpa: Any, **options: Any) -> None:
        super().__init__()
        self.before, self.after = torch.nn.Linear(16, 48), torch.nn.Linear(16, 16)
        self.sdpa, self.options = sdpa, options

    def forward(self, x: Any, mask: Any = None) -> Any:
        q, k, v = self.before(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        o = self.sdpa(q, k, v, attn_mask=mask, **self.options)
        return self.after(o.transpose(1, 2).flatten(-2))


def modules(**options: Any) -> tuple[Any, Any]:
    theirs = Attends(F.scaled_dot_product_attention, **options).eval().requires_grad_(False)
    ours = Attends(nt.scaled_dot_product_attention, **options).eval().requires_grad_(False)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.5}])
def test_compile_passes_through_without_a_break(options: dict[str, Any]) -> None:
    ours, theirs = modules(**options)
    x = torch.randn(2, 6, 16)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    assert_close(compiled(x), theirs(x))
    longer = torch.randn(2, 9, 16)
    assert_close(compiled(longer), theirs(longer))


@pytest.mark.parametrize("strict", [False, True])
def test_export_passes_through(strict: bool) -> None:
    ours, theirs = modules()
    x, mask = torch.randn(2, 6, 16), torch.ones(6, 6, dtype=torch.bool).tril()
    program = torch.export.export(ours, (x, mask), strict=strict)
    assert "numattn.attention" in str(program.graph)
    assert_close(program.module()(x, mask), theirs(x, mask))


def test_the_operators_are_right_of_their_kind() -> None:
    q, k, v = qkv()
    for arguments in ({}, {"is_causal": True, "layout": "bshd"}, {"mask": torch.ones(5, 7) > 0}):
        if arguments.get("layout") == "bshd":
            arguments["q_offset"] = torch.tensor([2])
            q2, k2, v2 = (x.transpose(1, 2) for x in (q, k, v))
        else:
            q2, k2, v2 = q, k, v
        torch.library.opcheck(torch.ops.numattn.attention.default, (q2, k2, v2), arguments)
        torch.library.opcheck(torch.ops.numattn.attention_weights.default, (q2, k2), arguments)


@torch.no_grad()
def test_compile_passes_through_the_layer_and_flash_attention() -> None:
    layer = nt.MultiheadAttention(16, 4, batch_first=True, add_zero_attn=True).eval()
    x = torch.randn(2, 6, 16)
    padding = torch.tensor([[False] * 4 + [True] * 2, [False] * 6])
    hidden = torch.ones(6, 6, dtype=torch.bool).triu(1)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    options = {"key_padding_mask": padding, "attn_mask": hidden}
    for found, expected in zip(
        compiled(x, x, x, **options), layer(x, x, x, **options), strict=True
    ):
        assert_close(found, expected)
    q, k, v = (x.transpose(1, 2) for x in qkv(heads=4, kv_heads=2))
    options = {"causal": True, "window_size": (2, 0), "softcap": 9.0}
    flash = torch.compile(nt.flash_attn_func, backend="aot_eager", fullgraph=True)
    assert_close(flash(q, k, v, **options), nt.flash_attn_func(q, k, v, **options))


# --- flash-attn -----------------------------------------------------------------------------------


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


# --- MultiheadAttention ---------------------------------------------------------------------------

LAYERS = [
    {},
    {"bias": False},
    {"add_bias_kv": True},
    {"add_zero_attn": True},
    {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True},
    {"kdim": 8, "vdim": 12, "batch_first": True},
]


def layers(options: dict[str, Any]) -> tuple[Any, Any, tuple[Any, Any, Any]]:
    """torch's layer, ours of the same weights, and inputs for both."""
    theirs = torch.nn.MultiheadAttention(16, 4, **options).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = nt.MultiheadAttention(16, 4, **options).eval()
    ours.load_state_dict(theirs.state_dict())
    inputs = [
        torch.randn(2, length, options.get(name, 16))
        for name, length in (("qdim", 5), ("kdim", 7), ("vdim", 7))
    ]
    if not options.get("batch_first"):
        inputs = [x.transpose(0, 1) for x in inputs]
    return theirs, ours, (inputs[0], inputs[1], inputs[2])


def masks_of(name: str) -> dict[str, Any]:
    hidden = torch.rand(5, 7) > 0.6
    hidden[:, 3] = False
    padding = torch.tensor([[False] * 5 + [True] * 2, [False] * 7])
    return {
        "none": {},
        "bool": {"attn_mask": hidden},
        "float": {"attn_mask": torch.randn(5, 7)},
        "by head": {"attn_mask": torch.randn(8, 5, 7)},
        "padding": {"key_padding_mask": padding},
        "float padding": {"key_padding_mask": torch.randn(2, 7)},
        "both": {"attn_mask": hidden, "key_padding_mask": padding},
        "both in floats": {
            "attn_mask": torch.randn(5, 7), "key_padding_mask": torch.randn(2, 7)
        },
    }[name]  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("mask", ["none", "bool", "float", "by head", "padding", "float padding",
                                  "both", "both in floats"])  # fmt: skip
@pytest.mark.parametrize("options", LAYERS, ids=[" ".join(x) or "plain" for x in LAYERS])
def test_multihead(options: dict[str, Any], mask: str) -> None:
    theirs, ours, inputs = layers(options)
    masks = masks_of(mask)
    for average in (True, False):
        expected, weights = theirs(*inputs, average_attn_weights=average, **masks)
        output, shares = ours(*inputs, average_attn_weights=average, **masks)
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(shares, weights)
    output, shares = ours(*inputs, need_weights=False, **masks)
    torch.testing.assert_close(output, expected)
    assert shares is None


@torch.no_grad()
def test_multihead_without_a_batch_and_causal() -> None:
    theirs, ours, _ = layers({"add_zero_attn": True})
    x = torch.randn(6, 16)
    hidden = torch.ones(6, 6, dtype=torch.bool).triu(1)
    for masks in ({}, {"attn_mask": hidden}):
        expected, shares = theirs(x, x, x, **masks)
        output, weights = ours(x, x, x, **masks)
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(weights, shares)
    # torch's own layer forgets the key of zeros here.
    output, _ = ours(x, x, x, need_weights=False, is_causal=True, **masks)
    torch.testing.assert_close(output, expected)
    with pytest.raises(RuntimeError, match="Need attn_mask"):
        ours(x, x, x, is_causal=True)


def test_multihead_is_for_inference() -> None:
    _, ours, inputs = layers({})
    with pytest.raises(RuntimeError, match="no gradients"):
        ours(*inputs)
    dropping = nt.MultiheadAttention(16, 4, dropout=0.1)
    with pytest.raises(RuntimeError, match="drops no weights"), torch.no_grad():
        dropping(*inputs)


@torch.no_grad()
def test_multihead_is_a_module_of_torch() -> None:
    theirs, ours, inputs = layers({"add_bias_kv": True})
    assert isinstance(ours, torch.nn.MultiheadAttention)
    expected = ours(*inputs)[0]
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert type(other) is nt.MultiheadAttention
        assert torch.equal(other(*inputs)[0], expected)
    narrow = copy.deepcopy(ours).bfloat16()
    output, weights = narrow(*(x.bfloat16() for x in inputs))
    assert output.dtype == weights.dtype == torch.bfloat16
    assert (output.float() - expected).abs().max() < 0.05 * expected.abs().max()
    assert type(theirs) is torch.nn.MultiheadAttention


@torch.no_grad()
@pytest.mark.parametrize("norm_first", [False, True])
def test_convert_a_transformer(norm_first: bool) -> None:
    model = torch.nn.Transformer(
        16, 4, 2, 2, 32, batch_first=True, norm_first=norm_first, dropout=0.0
    ).eval()
    source, target = torch.randn(2, 7, 16), torch.randn(2, 5, 16)
    padding = torch.tensor([[False] * 4 + [True] * 3, [False] * 7])
    hidden = torch.nn.Transformer.generate_square_subsequent_mask(5)
    arguments = {
        "src_key_padding_mask": padding, "memory_key_padding_mask": padding, "tgt_mask": hidden,
        "tgt_is_causal": True,
    }  # fmt: skip
    expected = model(source, target, **arguments)
    parameters = dict(model.named_parameters())
    assert nt.convert(model) is model
    found = [x for x in model.modules() if isinstance(x, torch.nn.MultiheadAttention)]
    assert len(found) == 6 and all(type(x) is nt.MultiheadAttention for x in found)
    for name, parameter in model.named_parameters():
        assert parameter is parameters[name]
    torch.testing.assert_close(model(source, target, **arguments), expected)


@torch.no_grad()
def test_convert_a_layer_and_one_in_two_places() -> None:
    theirs, _, inputs = layers({})
    alone = nt.convert(theirs)
    assert type(alone) is nt.MultiheadAttention and alone.in_proj_weight is theirs.in_proj_weight
    torch.testing.assert_close(alone(*inputs)[0], theirs(*inputs)[0])
    twice = nt.convert(torch.nn.ModuleDict({"a": theirs, "b": theirs}))
    assert twice["a"] is twice["b"] and type(twice["a"]) is nt.MultiheadAttention
    with pytest.raises(TypeError, match="must be a torch.nn.Module"):
        nt.convert(3)


def test_names_are_there() -> None:
    assert set(nt.__all__) <= set(dir(nt))
    assert all(getattr(nt, name) is not None for name in nt.__all__)
    with pytest.raises(AttributeError, match="no attribute 'no_such'"):
        _ = nt.no_such
