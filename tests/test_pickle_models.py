"""Decoders and translators through pickle and copy: the same bits, and weights without a copy."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

from numattn.models import Gpt, Llama, Seq2Seq
from test_pickle import WAYS, out_of_band, through
from tiny_decoders import FAMILIES, load, random_ids, write_folder
from tiny_marian import VOCABULARY
from tiny_marian import write_folder as write_marian
from tolerance import assert_same_bits

DTYPES = ["float32", "bfloat16"]


@pytest.fixture(scope="module", params=[(f, d) for f in FAMILIES for d in DTYPES], ids="-".join)
def decoder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Gpt | Llama:
    family, dtype = request.param
    return load(write_folder(tmp_path_factory.mktemp(family), family), family, dtype=dtype)


@pytest.fixture(scope="module", params=DTYPES)
def translator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Seq2Seq:
    lists = [[word] for word in range(VOCABULARY)]
    folder = write_marian(tmp_path_factory.mktemp("marian"), lists=lists)
    return Seq2Seq.from_folder(folder, dtype=request.param, language="pt")


@pytest.mark.parametrize("way", WAYS)
def test_decoders(decoder: Gpt | Llama, way: str, rng: np.random.Generator) -> None:
    other, ids = through(decoder, way), random_ids(rng, 2, 9)
    assert type(other) is type(decoder) and other is not decoder
    assert repr(other.config) == repr(decoder.config)  # two Ropes never compare equal
    assert other.dtype == decoder.dtype
    assert_same_bits(other(ids), decoder(ids))
    caches = other.new_cache(2), decoder.new_cache(2)
    for part in (ids[:, :6], ids[:, 6:]):
        results = [model(part, cache=c) for model, c in zip((other, decoder), caches, strict=True)]
        assert_same_bits(*results)
    assert other.generate(ids, 5) == decoder.generate(ids, 5)


@pytest.mark.filterwarnings("ignore:a translation was cut")
@pytest.mark.parametrize("way", WAYS)
def test_translators(translator: Seq2Seq, way: str) -> None:
    other = through(translator, way)
    assert (other.config, other.language) == (translator.config, "pt")
    states = [model.encode([[3, 5, 0], [7, 0, 0]], [3, 2]) for model in (other, translator)]
    for previous in (None, np.array([4, 9])):
        steps = zip((other, translator), states, strict=True)
        assert_same_bits(*(model.step(previous, state) for model, state in steps))
    texts = ["a cab. be", "cage"]
    assert other.translate(texts) == translator.translate(texts)
    assert other.shortlist is not None and translator.shortlist is not None
    words = np.array([3, 8])
    assert np.array_equal(other.shortlist.words_for(words), translator.shortlist.words_for(words))


def test_weights_go_out_of_band(decoder: Gpt | Llama, translator: Seq2Seq) -> None:
    """The embeddings among them, which in bfloat16 are no dtype that pickle hands out."""
    for model in (decoder, translator):
        data, buffers = out_of_band(model)
        sizes = [buffer.raw().nbytes for buffer in buffers]
        assert model._embedding.nbytes in sizes
        # Experts are many times as many projections, of which each is named.
        most = 6000 if len(buffers) < 50 else 9000
        assert len(data) < most < sum(sizes)


def generated(model: Gpt | Llama) -> list[list[int]]:
    return model.generate([[1, 2, 3]], 6)


def test_another_process(tmp_path: Path) -> None:
    """As `Pool.map` hands a model to its workers."""
    model = load(write_folder(tmp_path, "llama"), "llama", dtype="bfloat16")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(generated, [model]) == [generated(model)]
        assert pool.apply(model.generate, ([[1, 2, 3]], 6)) == generated(model)


def test_a_copy_has_nothing_in_common(decoder: Gpt | Llama) -> None:
    other = pickle.loads(pickle.dumps(decoder))
    assert not np.shares_memory(other._embedding, decoder._embedding)
