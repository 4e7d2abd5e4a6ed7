"""numattn.compat.torch: MultiheadAttention against PyTorch's layer."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import numattn.compat.torch as nt  # noqa: E402

pytestmark = pytest.mark.usefixtures("seeded_torch")


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
