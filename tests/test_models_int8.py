"""Models whose weights are int8: what they load, keep and compute."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import normal
from numattn import reference
from numattn.models import Bert
from tiny_decoders import EXPERTS, FAMILIES, VOCABULARY, load, write_folder
from tolerance import Array, assert_same_bits, distance

IDS = np.array([[5, 2, 9, 60, 11, 3, 3, 8], [1, 7, 2, 0, 4, 0, 0, 0]])


def relative(got: Array, expected: Array) -> float:
    return distance(got, expected) / float(np.linalg.norm(expected))


@pytest.mark.parametrize("family", FAMILIES)
def test_decoders_stay_near_float32(isa: str, tmp_path: Path, family: str) -> None:
    """By the rounding of weights to 1/254 of the largest of a row of 32, through three layers.

    Of two experts that a token is about as near to, the rounding may choose the other one.
    """
    folder = write_folder(tmp_path, family)
    model, exact = load(folder, family, dtype="int8"), load(folder, family)
    logits = model(IDS)
    assert logits.dtype == np.float32 and logits.shape == (*IDS.shape, VOCABULARY)
    assert 0 < relative(logits, exact(IDS)) < (0.12 if family in EXPERTS else 0.06)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in EXPERTS])
def test_inputs_of_8_bits_stay_near_those_of_16(isa: str, tmp_path: Path, family: str) -> None:
    """By rounding to 256 steps of a row of 32: the keys and values of the models are float32."""
    folder = write_folder(tmp_path, family)
    model, finer = load(folder, family, dtype="w8a8"), load(folder, family, dtype="int8")
    assert model.dtype == np.int8 and model.storage == "w8a8"
    assert 0 < relative(model(IDS), finer(IDS)) < 0.06


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_a_cache_gives_the_same_logits(isa: str, tmp_path: Path, family: str) -> None:
    model = load(write_folder(tmp_path, family), family, dtype=np.int8)
    whole = model(IDS[:1])
    cache = model.new_cache(1)
    assert cache.dtype == np.float32, "keys and values stay float32"
    parts = [model(IDS[:1, :5], cache=cache), model(IDS[:1, 5:], cache=cache)]
    assert relative(np.concatenate(parts, axis=1), whole) < 1e-3
    generated = model.generate([[5, 2, 9]], 6)
    assert [len(text) for text in generated] == [6]


@pytest.mark.parametrize("storage", ["int8", "w8a8"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_decoders_pickle_and_copy(tmp_path: Path, family: str, storage: str) -> None:
    model = load(write_folder(tmp_path, family), family, dtype=storage)
    assert model.dtype == np.int8
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert other.dtype == np.int8
        assert_same_bits(other(IDS), model(IDS))


@pytest.mark.parametrize("storage", ["int8", "w8a8"])
def test_bert_stays_near_float32(isa: str, bert_folder: Path, bert: Bert, storage: str) -> None:
    model = Bert.from_folder(bert_folder, dtype=storage)
    assert model.dtype == np.int8 and model.storage == storage
    texts = ["the cat sleeps", "a kitten naps on the mat", "the"]
    got, exact = model.encode(texts), bert.encode(texts)
    assert got.dtype == np.float32
    cosine = (got * exact).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(exact, axis=1)
    assert 1 > cosine.min() > 0.998
    assert_same_bits(pickle.loads(pickle.dumps(model)).encode(texts), got)


@pytest.mark.parametrize("storage", ["int8", "w8a8"])
@pytest.mark.parametrize("of_x", [np.float32, np.float16])
def test_multi_head_attention(isa: str, rng: np.random.Generator, of_x: Any, storage: str) -> None:
    """Between its products numbers have x's dtype, as with float32 weights."""
    wq, wk, wv, wo = (normal(rng, (32, 32)) / np.float32(6) for _ in range(4))
    x = normal(rng, (2, 9, 32)).astype(of_x)
    layer = na.MultiHeadAttention(4, wq, wk, wv, wo, dtype=storage)
    exact = reference.MultiHeadAttention(4, wq, wk, wv, wo, dtype=storage)(x, is_causal=True)
    got = layer(x, is_causal=True)
    assert got.dtype == of_x
    # Heads that are rounded to a neighbouring integer of 32639, or of 256; of float16, its own.
    coarse = storage == "w8a8"
    assert relative(got, exact) < (5e-3 if coarse else 2e-4 if of_x == np.float32 else 2e-3)
    plain = reference.MultiHeadAttention(4, wq, wk, wv, wo)(x, is_causal=True)
    assert relative(exact, plain) < 0.02
