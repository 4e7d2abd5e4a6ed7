"""numattn.compat.torch in torch.compile and torch.export: operators that these pass through."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

import numattn.compat.torch as nt  # noqa: E402
from torch_tensors import assert_close, qkv  # noqa: E402

pytestmark = pytest.mark.usefixtures("seeded_torch")


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
