"""Multi-head latent attention, absorbed: one key head whose first elements are the values too.

That is DeepSeek-V2's and V3's: with kv_b = [K_h; V_h] for each head h, keys K_h·c and values V_h·c
of a latent c, the scores are (K_hᵀ·q_h)·c and the outputs V_h·Σ w·c.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import numattn as na
from cases import DTYPES, STORAGES, normal
from numattn._quantize import FORMATS
from numattn.position import Rope
from tolerance import assert_same_bits, expect

Array = NDArray[Any]
LATENT, ROTARY = 512, 64
WIDTH = LATENT + ROTARY


@pytest.mark.parametrize("dtype", [*DTYPES])
@pytest.mark.parametrize(("heads", "queries"), [(1, 1), (8, 1), (16, 1), (128, 1), (16, 5)])
def test_values_are_part_of_keys(
    isa: str, dtype: str, heads: int, queries: int, rng: np.random.Generator
) -> None:
    q = normal(rng, (2, heads, queries, WIDTH), dtype)
    k = normal(rng, (2, 1, 250, WIDTH), dtype)
    options: dict[str, Any] = {"is_causal": True, "q_offset": 250 - queries}
    exact = expect(q, k, k[..., :LATENT], **options)
    o, lse = na.attention(q, k, k[..., :LATENT], return_lse=True, **options)
    exact.check(o, lse)
    apart = na.attention(q, k, k[..., :LATENT].copy(), **options)
    assert_same_bits(o, apart, "values of their own")


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("heads", [2, 16])
def test_values_are_part_of_stored_keys(
    isa: str, storage: str, heads: int, rng: np.random.Generator
) -> None:
    q, k = normal(rng, (1, heads, 1, WIDTH)), normal(rng, (1, 1, 250, WIDTH))
    numbers, scale = FORMATS[storage](k)
    o = na.attention(q, numbers, numbers[..., :LATENT], k_scale=scale, v_scale=scale)
    apart = na.attention(q, numbers, numbers[..., :LATENT].copy(), k_scale=scale, v_scale=2 * scale)
    assert_same_bits(2 * o, apart, "values of their own, scaled by twice as much")


def test_many_heads_of_one_key_head_are_split(isa: str, rng: np.random.Generator) -> None:
    """So that the one step of one text has work for many threads."""
    q, k = normal(rng, (1, 128, 1, WIDTH)), normal(rng, (1, 1, 2400, WIDTH))
    v = k[..., :LATENT]
    plan = na.plan(q.shape, k.shape, v.shape)
    assert plan.is_split and plan.work_items >= 3
    o, lse = na.attention(q, k, v, return_lse=True, num_threads=1)
    expect(q, k, v).check(o, lse)
    assert_same_bits(na.attention(q, k, v, num_threads=3), o, "threads")


class Absorbed:
    """A layer of DeepSeek-V3 over a cache of latents, with the weights of transformers'."""

    def __init__(self, layer: Any, config: Any) -> None:
        self.config = config
        weights = {name: each.detach().numpy() for name, each in layer.named_parameters()}
        self.q_a, self.q_norm, self.q_b, self.kv_a, self.kv_norm, self.o = (
            weights[f"{name}.weight"]
            for name in (
                "q_a_proj", "q_a_layernorm", "q_b_proj", "kv_a_proj_with_mqa", "kv_a_layernorm",
                "o_proj",
            )
        )  # fmt: skip
        heads, plain = config.num_attention_heads, config.qk_nope_head_dim
        kv_b = weights["kv_b_proj.weight"].reshape(heads, -1, LATENT)
        self.key_up, self.value_up = kv_b[:, :plain], kv_b[:, plain:]
        self.scale = float(layer.scaling)
        self.rope = Rope(ROTARY, scaling=config.rope_parameters, interleaved=True)

    def __call__(self, x: Array, cache: na.Cache) -> Array:
        """Return what the layer makes of new tokens (B, S, E), which the cache then has."""
        batch, count, _ = x.shape
        heads, plain = self.config.num_attention_heads, self.config.qk_nope_head_dim
        positions = cache.lengths[0] + np.arange(count)
        cos, sin = self.rope.tables(positions)
        q = na.rms_norm(x @ self.q_a.T, self.q_norm) @ self.q_b.T
        q = q.reshape(batch, count, heads, plain + ROTARY)
        latent = x @ self.kv_a.T
        k = np.empty((batch, count, 1, WIDTH), np.float32)
        k[..., 0, :LATENT] = na.rms_norm(np.ascontiguousarray(latent[..., :LATENT]), self.kv_norm)
        k[..., LATENT:] = self.turned(latent[..., None, LATENT:], cos, sin)
        absorbed = np.empty((batch, count, heads, WIDTH), np.float32)
        absorbed[..., :LATENT] = np.einsum("bshp,hpl->bshl", q[..., :plain], self.key_up)
        absorbed[..., LATENT:] = self.turned(q[..., plain:], cos, sin)
        o = cache.attend(0, absorbed, k, layout="bshd", scale=self.scale)
        o = np.einsum("bshl,hvl->bshv", o, self.value_up)
        return o.reshape(batch, count, -1) @ self.o.T

    @staticmethod
    def turned(x: Array, cos: Array, sin: Array) -> Array:
        return na.apply_rope(x, cos, sin, interleaved=True, layout="bshd")


YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0, "beta_fast": 32, "beta_slow": 1,
    "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096,
}  # fmt: skip


@pytest.mark.parametrize("parameters", [{"rope_type": "default", "rope_theta": 10000.0}, YARN])
@pytest.mark.parametrize("paged", [False, True])
def test_layer_of_deepseek_v3(
    isa: str, parameters: dict[str, Any], paged: bool, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    deepseek = pytest.importorskip("transformers.models.deepseek_v3.modeling_deepseek_v3")
    config = deepseek.DeepseekV3Config(
        hidden_size=128, num_attention_heads=16, num_key_value_heads=16, q_lora_rank=96,
        kv_lora_rank=LATENT, qk_rope_head_dim=ROTARY, qk_nope_head_dim=128, v_head_dim=128,
        rope_parameters=parameters, attn_implementation="eager",
    )  # fmt: skip
    layer = deepseek.DeepseekV3Attention(config, 0).eval()
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            numbers = rng.standard_normal(tuple(parameter.shape), dtype=np.float32)
            if "norm" in name:
                parameter.copy_(torch.from_numpy(1 + 0.1 * numbers))
            else:
                parameter.copy_(torch.from_numpy(numbers / np.sqrt(parameter.shape[1])))
    count = 40
    x = rng.standard_normal((2, count, 128), dtype=np.float32)
    tokens = torch.from_numpy(x)
    hidden = torch.full((count, count), -torch.inf).triu(1)[None, None]
    with torch.no_grad():
        turn = deepseek.DeepseekV3RotaryEmbedding(config)
        expected = layer(tokens, turn(tokens, torch.arange(count)[None]), hidden)[0].numpy()
    sizes: dict[str, Any] = {"head_dim": WIDTH, "value_dim": LATENT, "shared_values": True}
    cache: na.Cache = (
        na.PagedKVCache(1, 2, 1, **sizes, pages=8) if paged else na.KVCache(1, 2, 1, **sizes)
    )
    ours = Absorbed(layer, config)
    parts = [ours(x[:, :30], cache), *(ours(x[:, i : i + 1], cache) for i in range(30, count))]
    np.testing.assert_allclose(np.concatenate(parts, 1), expected, rtol=0, atol=1e-5)
