"""Attention layers of transformers that know relative positions, with the same random weights.

Each layer computes in float64, which is what is right, and in float32, which says how far from that
a float32 result may lie.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import numattn as na
from numattn import position
from numattn.position.disentangled import log_buckets

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

Array = NDArray[Any]

BATCH, HEADS, DIM, WIDTH = 2, 4, 16, 64
LENGTH = 150


def weights(module: Any, rng: np.random.Generator) -> dict[str, Array]:
    """Fill a module with numbers that keep unit-normal rows so, and return them by name."""
    with torch.no_grad():
        for parameter in module.parameters():
            filled = rng.standard_normal(tuple(parameter.shape), dtype=np.float32) / np.sqrt(WIDTH)
            parameter.copy_(torch.from_numpy(filled))
    return {name: value.numpy() for name, value in module.state_dict().items()}


def check(got: Array, module: Any, call: Callable[[Any, Any], Any]) -> None:
    """Check against call(module, dtype); what it makes of arrays should have that dtype."""
    with torch.no_grad():
        exact = call(copy.deepcopy(module).double().eval(), torch.float64).numpy()
        single = call(module.eval(), torch.float32).numpy()
    error, theirs = np.linalg.norm(got - exact), np.linalg.norm(single - exact)
    assert np.linalg.norm(exact) > 1e6 * theirs
    assert error <= 2 * theirs, f"error {error:.3g}, and {theirs:.3g} in transformers' float32"


def rows(rng: np.random.Generator, length: int = LENGTH) -> Array:
    return rng.standard_normal((BATCH, length, WIDTH), dtype=np.float32)


def heads(x: Array) -> Array:
    """(..., S, H·D) as (..., H, S, D)."""
    return x.reshape(*x.shape[:-1], HEADS, DIM).swapaxes(-3, -2)


def joined(o: Array) -> Array:
    return o.swapaxes(1, 2).reshape(*o.shape[:1], o.shape[2], WIDTH)


def projected(x: Array, state: dict[str, Array], name: str) -> Array:
    y = x @ state[f"{name}.weight"].T
    return y + state[f"{name}.bias"] if f"{name}.bias" in state else y


def as_torch(x: Array, dtype: Any) -> Any:
    return torch.from_numpy(x).to(dtype)


def hidden(length: int, dtype: Any) -> Any:
    """The additive causal mask (1, 1, length, length)."""
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    return torch.zeros(length, length, dtype=dtype).masked_fill(later, -torch.inf)[None, None]


@pytest.mark.parametrize("is_decoder", [False, True])
def test_t5(isa: str, rng: np.random.Generator, is_decoder: bool) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    config = transformers.T5Config(
        d_model=WIDTH, d_kv=DIM, num_heads=HEADS, is_decoder=is_decoder,
        attn_implementation="eager",
    )  # fmt: skip
    module = T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    state, x = weights(module, rng), rows(rng)
    bias = position.t5_bias(
        state["relative_attention_bias.weight"], LENGTH, LENGTH,
        bidirectional=not is_decoder, max_distance=config.relative_attention_max_distance,
    )  # fmt: skip
    q, k, v = (heads(projected(x, state, name)) for name in "qkv")
    o = na.attention(q, k, v, bias=bias, scale=1.0, is_causal=is_decoder)

    def theirs(m: Any, dtype: Any) -> Any:
        return m(as_torch(x, dtype), mask=hidden(LENGTH, dtype) if is_decoder else None)[0]

    check(projected(joined(o), state, "o"), module, theirs)


def test_mpnet(isa: str, rng: np.random.Generator) -> None:
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder, MPNetSelfAttention

    config = transformers.MPNetConfig(
        hidden_size=WIDTH, num_attention_heads=HEADS, num_hidden_layers=0
    )
    module = torch.nn.ModuleDict({"layer": MPNetSelfAttention(config), "all": MPNetEncoder(config)})
    state, x = weights(module, rng), rows(rng)
    bias = position.t5_bias(
        state["all.relative_attention_bias.weight"], LENGTH, LENGTH,
        bidirectional=True, max_distance=128,
    )  # fmt: skip
    q, k, v = (heads(projected(x, state, f"layer.{name}")) for name in "qkv")
    o = na.attention(q, k, v, bias=bias)

    def theirs(m: Any, dtype: Any) -> Any:
        given = as_torch(x, dtype)
        return m["layer"](given, position_bias=m["all"].compute_position_bias(given))[0]

    check(projected(joined(o), state, "layer.o"), module, theirs)


def test_bloom(isa: str, rng: np.random.Generator) -> None:
    """Its ALiBi counts from the first key: a constant less for each row, which softmax removes."""
    from transformers.models.bloom.modeling_bloom import BloomAttention, build_alibi_tensor

    config = transformers.BloomConfig(hidden_size=WIDTH, n_head=HEADS)
    module = BloomAttention(config, layer_idx=0)
    state, x = weights(module, rng), rows(rng)
    joint = projected(x, state, "query_key_value").reshape(BATCH, LENGTH, HEADS, 3, DIM)
    q, k, v = (joint[..., i, :] for i in range(3))
    slopes = position.alibi_slopes(HEADS)
    o = na.attention(q, k, v, alibi_slopes=slopes, is_causal=True, layout="bshd")

    def theirs(m: Any, dtype: Any) -> Any:
        alibi = build_alibi_tensor(torch.ones(BATCH, LENGTH, dtype=torch.long), HEADS, dtype)
        given = as_torch(x, dtype)
        return m(given, torch.zeros_like(given), alibi, hidden(LENGTH, dtype))[0]

    check(projected(o.reshape(BATCH, LENGTH, WIDTH), state, "dense"), module, theirs)


@pytest.mark.parametrize("memories", [0, 37])
@pytest.mark.parametrize("attn_type", ["bi", "uni"])
@pytest.mark.parametrize("clamp_len", [-1, 50])
def test_xlnet(
    isa: str, rng: np.random.Generator, attn_type: str, memories: int, clamp_len: int
) -> None:
    config = transformers.XLNetConfig(
        d_model=WIDTH, n_head=HEADS, n_layer=1, vocab_size=3, attn_type=attn_type,
        clamp_len=clamp_len,
    )  # fmt: skip
    model = transformers.XLNetModel(config).eval()
    module = model.layer[0].rel_attn
    state = weights(module, rng)
    keys = LENGTH + memories
    x = rows(rng, keys).swapaxes(0, 1)  # (S, B, E), memories first
    encodings = model.relative_positional_encoding(LENGTH, keys).numpy()[:, 0]

    def by_head(given: Array, name: str) -> Array:
        return np.einsum("...e,ehd->...hd", given, state[name])

    q, k, v = by_head(x[memories:], "q"), by_head(x, "k"), by_head(x, "v")
    r = by_head(encodings, "r")
    # The encodings run from distance `keys` down.
    relative = position.transformer_xl(
        r[::-1].swapaxes(0, 1), state["r_w_bias"], state["r_r_bias"],
        first_distance=keys + 1 - len(encodings),
    )  # fmt: skip
    o = na.attention(
        *(given.transpose(1, 2, 0, 3) for given in (q, k, v)),
        relative=relative, q_offset=memories, is_causal=attn_type == "uni",
    )  # fmt: skip

    def theirs(m: Any, dtype: Any) -> Any:
        given = [as_torch(part, dtype) for part in (q, k, v, np.repeat(r[:, None], BATCH, axis=1))]
        mask = None
        if attn_type == "uni":
            mask = torch.ones(LENGTH, keys, dtype=dtype).triu(memories + 1)[:, :, None, None]
        return m.rel_attn_core(*given, attn_mask=mask)

    check(o.transpose(2, 0, 1, 3), module, theirs)


@pytest.mark.parametrize("types", [["c2p", "p2c"], ["c2p"], ["p2c"]], ids="-".join)
@pytest.mark.parametrize(("buckets", "farthest"), [(-1, 40), (32, 128), (16, 100), (256, 512)])
@pytest.mark.parametrize("share_att_key", [False, True])
def test_deberta_v2(
    isa: str,
    rng: np.random.Generator,
    types: list[str],
    buckets: int,
    farthest: int,
    share_att_key: bool,
) -> None:
    from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention

    config = transformers.DebertaV2Config(
        hidden_size=WIDTH, num_attention_heads=HEADS, relative_attention=True, pos_att_type=types,
        position_buckets=buckets, max_relative_positions=farthest, share_att_key=share_att_key,
    )  # fmt: skip
    module = DisentangledSelfAttention(config)
    state, x = weights(module, rng), rows(rng)
    embeddings = rng.standard_normal((2 * max(buckets, farthest), WIDTH), dtype=np.float32)
    used = embeddings[: 2 * (buckets if buckets > 0 else farthest)]
    prefix = "" if share_att_key else "pos_"
    relative = position.disentangled(
        heads(projected(used, state, f"{prefix}key_proj")) if "c2p" in types else None,
        heads(projected(used, state, f"{prefix}query_proj")) if "p2c" in types else None,
        position_buckets=buckets if buckets > 0 else None,
        max_distance=farthest if buckets > 0 else None,
    )
    q, k, v = (heads(projected(x, state, f"{name}_proj")) for name in ("query", "key", "value"))
    o = na.attention(q, k, v, relative=relative)
    everything = torch.ones(BATCH, 1, LENGTH, LENGTH, dtype=torch.bool)

    def theirs(m: Any, dtype: Any) -> Any:
        return m(as_torch(x, dtype), everything, rel_embeddings=as_torch(embeddings, dtype))[0]

    check(joined(o), module, theirs)


@pytest.mark.parametrize(("buckets", "farthest"), [(8, 64), (32, 128), (256, 512), (128, 4096)])
def test_log_buckets_are_those_of_the_code(buckets: int, farthest: int) -> None:
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    distance = np.arange(-3 * farthest, 3 * farthest)
    theirs = make_log_bucket_position(torch.from_numpy(distance), buckets, farthest)
    ours = log_buckets(distance, position_buckets=buckets, max_distance=farthest)
    np.testing.assert_array_equal(ours, theirs.numpy())
