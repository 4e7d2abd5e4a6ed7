"""Sparse attention layers of transformers, with random weights, beside the patterns they have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import numattn as na
from numattn import BlockMask, reference

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

Array = NDArray[Any]
HEADS, DIM, WIDTH = 2, 16, 32

# Of unit-normal values: above the rounding of float32 in any order, far below a key too many.
NEAR = 2e-5


def filled(module: Any, rng: np.random.Generator) -> Any:
    with torch.no_grad():
        for parameter in module.parameters():
            numbers = rng.standard_normal(tuple(parameter.shape), dtype=np.float32)
            parameter.copy_(torch.from_numpy(numbers / np.sqrt(WIDTH)))
    return module


def heads_of(linear: Any, x: Array) -> Array:
    """(B, S, H·D) projected, as (B, H, S, D)."""
    with torch.no_grad():
        y = linear(torch.from_numpy(x)).numpy()
    return np.ascontiguousarray(y.reshape(*y.shape[:2], HEADS, DIM).swapaxes(1, 2))


def joined(o: Array) -> Array:
    return o.swapaxes(1, 2).reshape(o.shape[0], o.shape[2], WIDTH)


@pytest.mark.parametrize("tokens", [[], [0], [0, 1, 100, 255]])
def test_longformer(isa: str, rng: np.random.Generator, tokens: list[int]) -> None:
    """Its local and its global rows; the latter by the same projections."""
    from transformers.models.longformer import LongformerConfig
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    length, window = 256, 64
    config = LongformerConfig(
        hidden_size=WIDTH, num_attention_heads=HEADS, attention_window=[window],
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    layer = filled(LongformerSelfAttention(config, 0).eval(), rng)
    for name in ("query", "key", "value"):
        getattr(layer, f"{name}_global").load_state_dict(getattr(layer, name).state_dict())
    x = rng.standard_normal((1, length, WIDTH), dtype=np.float32)
    is_global = torch.zeros((1, length), dtype=torch.bool)
    is_global[0, tokens] = True
    with torch.no_grad():
        theirs = layer(
            torch.from_numpy(x), attention_mask=10000.0 * is_global.float(),
            is_index_masked=torch.zeros_like(is_global), is_index_global_attn=is_global,
            is_global_attn=bool(tokens),
        )[0].numpy()  # fmt: skip
    q, k, v = (heads_of(linear, x) for linear in (layer.query, layer.key, layer.value))
    mask = na.patterns.longformer(length, window, tokens)
    ours = joined(na.attention(q, k, v, block_mask=mask))
    assert np.abs(ours - theirs).max() <= NEAR
    exact = joined(reference.attention(q, k, v, block_mask=mask))
    assert np.abs(theirs - exact).max() <= NEAR


def test_bigbird(isa: str, rng: np.random.Generator) -> None:
    """The lists that it draws in training: otherwise it counts its first block several times."""
    from transformers.models.big_bird import BigBirdConfig
    from transformers.models.big_bird.modeling_big_bird import (
        BigBirdBlockSparseAttention,
        BigBirdModel,
    )

    length, block = 1024, 64
    count = length // block
    config = BigBirdConfig(
        hidden_size=WIDTH, num_attention_heads=HEADS, block_size=block, num_random_blocks=2,
        max_position_embeddings=length,
    )  # fmt: skip
    layer = filled(BigBirdBlockSparseAttention(config, seed=0), rng).train()
    drawn, layer.seed = draw_apart(layer, count)
    lists = []
    for head in drawn:
        for own in range(count):
            fixed = {0, count - 1, max(own - 1, 0), own, min(own + 1, count - 1)}
            inner = 0 < own < count - 1
            lists.append(sorted(fixed | set(head[own - 1])) if inner else list(range(count)))
    x = rng.standard_normal((1, length, WIDTH), dtype=np.float32)
    masks = BigBirdModel.create_masks_for_block_sparse_attn(torch.ones((1, length)), block)
    blocked, band, to_rows, to_columns = masks
    with torch.no_grad():
        theirs = layer(
            torch.from_numpy(x), band_mask=band, from_mask=to_rows, to_mask=to_columns,
            from_blocked_mask=blocked, to_blocked_mask=blocked,
        )[0].numpy()  # fmt: skip
    q, k, v = (heads_of(linear, x) for linear in (layer.query, layer.key, layer.value))
    mask = BlockMask.from_lists((HEADS, length, length), lists)
    ours = joined(na.attention(q, k, v, block_mask=mask))
    assert np.abs(ours - theirs).max() <= NEAR


def draw_apart(layer: Any, count: int) -> tuple[list[list[list[int]]], int]:
    """Return random blocks of each head and inner query block, and the seed that draws them.

    Of the first seed for which none is a neighbour, which the layer would count twice.
    """
    for seed in range(1000):
        np.random.seed(seed)  # noqa: NPY002
        drawn = [
            layer._bigbird_block_rand_mask(1024, 1024, 64, 64, 2, last_idx=1024).tolist()
            for _ in range(HEADS)
        ]
        if all(
            abs(other - own) > 1
            for head in drawn
            for own, others in enumerate(head, 1)
            for other in others
        ):
            return drawn, seed
    raise AssertionError(f"no seed draws {count} blocks apart")
