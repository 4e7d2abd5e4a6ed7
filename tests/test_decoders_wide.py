"""Decoders whose keys have large biases, over caches of integers: which channels get 16 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import numattn as na
from numattn.cache import Cache
from numattn.models import Gpt, Llama
from numattn.models.decoders.wide_keys import wide_keys
from tiny_decoders import CHANGES, LLAMA, load, random_ids, tensors_of, write_folder
from tolerance import assert_same_bits

LENGTH, PROMPT = 120, 90
# As a Qwen-2 has them in its first and last layers, of 64 elements a head: large in the pairs that
# turn slowest, of other number and sign in each head, ‖b‖ up to 921.
QWEN: dict[str, Any] = {
    **LLAMA,
    **CHANGES["qwen2"],
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 64,
}
BIAS = {30: 1.0, 31: -1.0, 62: 0.5, 63: 1.0, 64 + 30: 1.0, 64 + 62: -1.0}
NORMS = (0, 22, 100, 300, 605, 921)


def qwen(folder: Path, size: float, channels: dict[int, float], **config: Any) -> Llama:
    """Return the model whose first layer's keys have a bias of that norm in those channels."""
    tensors = tensors_of(QWEN)
    for name, tensor in tensors.items():
        if tensor.ndim == 2:
            tensor *= 0.3  # keys have a standard deviation of 1
        elif name.endswith("bias"):
            tensor *= 0
    values = np.array(list(channels.values()))
    bias = tensors["model.layers.0.self_attn.k_proj.bias"]
    bias[list(channels)] = size * values / np.linalg.norm(values)
    model = load(write_folder(folder, "qwen2", {**QWEN, **config}, tensors), "qwen2")
    assert isinstance(model, Llama)
    return model


def read(model: Llama | Gpt, ids: NDArray[Any], cache: Cache) -> NDArray[Any]:
    """Return the logits of a prompt and of what follows it, token by token."""
    parts = [model(ids[:, :PROMPT], cache=cache)]
    parts += [model(ids[:, [column]], cache=cache) for column in range(PROMPT, ids.shape[1])]
    return np.concatenate(parts, axis=1)


def plain(model: Llama | Gpt, **options: Any) -> na.KVCache:
    """Return a cache without wide channels."""
    sizes = model.config
    return na.KVCache(sizes.num_layers, 1, sizes.num_kv_heads, sizes.head_size, **options)


@pytest.mark.parametrize("theta", [1e4, 1e6])
@pytest.mark.parametrize(
    "channels",
    [BIAS, {3: 1.0, 4: -1.0, 35: 0.5, 36: 1.0, 64 + 3: 1.0, 64 + 35: -1.0}],
    ids=["slow pairs", "fast pairs"],
)
def test_a_large_bias_costs_no_more_than_none(
    tmp_path: Path, rng: np.random.Generator, channels: dict[int, float], theta: float
) -> None:
    """In both caches, however fast the pair turns; without wide channels errors grow with it."""
    ids = random_ids(rng, 1, LENGTH)
    errors = {}
    for size in NORMS:
        model = qwen(tmp_path / str(size), size, channels, rope_theta=theta)
        right = model(ids)
        caches = {
            "side by side": model.new_cache(1, storage="int8"),
            "pages": model.new_paged_cache(1, pages=40, page_size=4, storage="int8"),
            "plain": plain(model, storage="int8"),
        }
        for name, cache in caches.items():
            error = read(model, ids, cache) - right
            errors[name, size] = np.linalg.norm(error) / np.linalg.norm(right)
    for size in NORMS:
        for name in ("side by side", "pages"):
            assert errors[name, size] < 1.5 * errors["plain", 0]
    assert errors["side by side", 0] == errors["plain", 0] < 0.05
    assert errors["plain", 300] > 5 * errors["plain", 0]


def test_chunks_and_neighbours_change_nothing(tmp_path: Path, rng: np.random.Generator) -> None:
    """What is stored of a token follows from it alone: so too with wide channels."""
    model = qwen(tmp_path, 605, BIAS)
    ids = random_ids(rng, 3, 40)
    together = model.new_cache(3, storage="int8")
    expected = model(ids, cache=together)[:, -1]
    for chunk in (1, 7):
        cache = model.new_paged_cache(3, pages=40, storage="int8")
        for start in range(0, 40, chunk):
            last = model(ids[:, start : start + chunk], cache=cache)[:, -1]
        np.testing.assert_allclose(last, expected, rtol=0, atol=1e-3 * np.abs(expected).max())
    next_ids = random_ids(rng, 3, 1)
    step = model(next_ids, cache=together)
    for row in range(3):
        alone = model.new_cache(1, storage="int8")
        model(ids[[row]], cache=alone)
        np.testing.assert_allclose(
            model(next_ids[[row]], cache=alone)[0], step[row], rtol=0,
            atol=1e-3 * np.abs(expected).max(),
        )  # fmt: skip


def test_caches_know_the_channels(tmp_path: Path) -> None:
    """Those of both ends of each pair, in the layer and head that they belong to."""
    model = qwen(tmp_path, 300, BIAS)
    expected = np.zeros((2, 2, 64), dtype=bool)
    expected[0, 0, [30, 31, 62, 63]] = expected[0, 1, [30, 62]] = True
    for cache in (
        model.new_cache(1, storage="int8"),
        model.new_paged_cache(1, pages=4, storage="int8"),
    ):
        assert cache.wide_keys is not None
        assert_same_bits(cache.wide_keys, expected)
    assert model.new_cache(1).wide_keys is None
    small = qwen(tmp_path / "small", 5, BIAS)
    assert small.new_cache(1, storage="int8").wide_keys is None
    llama = load(write_folder(tmp_path / "llama"), "llama")
    assert llama.new_paged_cache(1, pages=4, storage="int8").wide_keys is None


def test_positions_that_are_learned(tmp_path: Path, rng: np.random.Generator) -> None:
    """GPT-2, where nothing turns."""
    config = {**CHANGES["gpt2"], "n_positions": LENGTH}
    tensors = tensors_of(config)
    for layer in range(3):
        bias = tensors[f"transformer.h.{layer}.attn.c_attn.bias"]
        bias[32 + 3 + layer] = 400  # of queries, keys and values, 32 each
    model = load(write_folder(tmp_path, "gpt2", config, tensors), "gpt2")
    cache = model.new_cache(1, storage="int8")
    assert np.argwhere(cache.wide_keys).tolist() == [[layer, 0, 3 + layer] for layer in range(3)]
    ids = random_ids(rng, 1, LENGTH)
    right = model(ids)
    errors = [
        np.linalg.norm(read(model, ids, each) - right) / np.linalg.norm(right)
        for each in (cache, plain(model, storage="int8"))
    ]
    assert errors[0] < errors[1] / 3


def test_the_limit_is_that_of_what_varies() -> None:
    """Three times a head's root mean square; of what turns in part, pairs of that part."""
    weight = np.zeros((16, 4), np.float32)
    weight[:, 0] = 2  # with a gain of 0.5, a standard deviation of 1
    gain = np.array([0.5, 9, 9, 9], np.float32)
    bias = np.zeros(16, np.float32)
    bias[[0, 3, 6]], bias[[8, 10]] = [3.1, 2.9, -3.1], 2.2
    found = wide_keys(weight, bias, gain, None, kv_heads=2, pairs=2)
    # Channels 0 and 2 turn together, 1 and 3; 4 to 7 do not. In head 1, hypot(2.2, 2.2) > 3.
    assert found.tolist() == [
        [True, False, True, False, False, False, True, False],
        [True, False, True, False, False, False, False, False],
    ]
    shifted = wide_keys(weight, bias * 0, gain, np.array([2, 0, 0, 0], np.float32), 2, 0)
    assert shifted.all()
    alone = wide_keys(weight, bias, gain, None, kv_heads=2, pairs=0)
    assert np.argwhere(alone).tolist() == [[0, 0], [0, 6]]
