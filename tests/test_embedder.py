"""Decoders that make vectors of texts, held to what sentence-transformers computes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numattn.models import Embedder, load
from tiny_embedders import FAMILIES, MODULES, TEXTS, write_embedder
from tolerance import assert_same_bits

GOLDEN = Path(__file__).parent / "data" / "embedders_golden.npz"


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedder(tmp_path_factory.mktemp(family), family)


@pytest.fixture(scope="module")
def model(folder: Path) -> Embedder:
    return load(folder)


def test_vectors_agree_with_the_golden_ones(model: Embedder, family: str) -> None:
    with np.load(GOLDEN) as golden:
        expected, error = golden[family], float(golden[f"{family}_float32_error"])
    vectors = model.encode(TEXTS)
    assert vectors.shape == expected.shape and vectors.dtype == np.float32
    assert np.linalg.norm(vectors - expected) <= max(2 * error, 1e-6)
    assert np.linalg.norm(vectors[0] - vectors[1]) > 0.1


def test_a_vector_is_the_same_alone(model: Embedder) -> None:
    """In whatever company, order, and number of threads; and through pickle."""
    vectors = model.encode(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert_same_bits(model.encode([text])[0], vector)
    assert_same_bits(model.encode(TEXTS[::-1], num_threads=1)[::-1], vectors)
    assert_same_bits(model.encode(TEXTS, batch_tokens=7), vectors)
    assert_same_bits(model.encode_tokens(model.tokenize(TEXTS).ids), vectors)
    assert_same_bits(pickle.loads(pickle.dumps(model)).encode(TEXTS), vectors)


@pytest.mark.parametrize(("dtype", "least"), [("bfloat16", 0.99), ("int8", 0.99)])
def test_weights_stored_in_less(model: Embedder, folder: Path, dtype: str, least: float) -> None:
    vectors = Embedder.from_folder(folder, dtype=dtype).encode(TEXTS)
    cosine = (vectors * model.encode(TEXTS)).sum(axis=1)
    assert least < cosine.min() and cosine.max() < 1 + 1e-6 and cosine.min() < 0.999999


def test_a_prompt_may_be_set(folder: Path) -> None:
    model = load(folder)
    expected = model.encode(["the dog " + text for text in TEXTS])
    model.prompt = "the dog "
    assert_same_bits(model.encode(TEXTS), expected)


def test_long_texts_are_cut(model: Embedder) -> None:
    assert model.max_tokens == 64
    with pytest.warns(UserWarning, match="1 of 2 texts have more than 64 tokens and were cut"):
        vectors = model.encode(["cat " * 100, "cat"])
    assert_same_bits(vectors[0], model.encode(["cat " * 63])[0])
    with pytest.raises(ValueError, match="a text has 129 tokens, and the model positions for 128"):
        model.encode_tokens([[3] * 129])


def test_nothing(model: Embedder) -> None:
    assert model.encode([]).shape == (0, model.config.hidden_size)
    assert not model.encode_tokens([[]]).any()


def test_a_decoder_without_its_head_makes_no_logits(model: Embedder) -> None:
    with pytest.raises(ValueError, match="makes states, and no logits"):
        model.model([[1, 2]])


@pytest.mark.parametrize(
    ("family", "config", "modules", "message"),
    [
        ("qwen3", {"use_bidirectional_attention": True}, None, "use_bidirectional_attention True"),
        ("qwen3", {"is_causal": False}, None, "is_causal False is not supported"),
        (
            "qwen3",
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            None,
            "depend on the length of a text",
        ),
        ("gemma3_text", {"use_bidirectional_attention": 1}, None, "must be true or false, not 1"),
        (
            "gemma3_text",
            {},
            [MODULES["gemma3_text"][0], ("Dense", {"in_features": 33, "out_features": 4,
                                                   "bias": False})],
            "in_features is 33, and vectors have 32 numbers",
        ),
        (
            "gemma3_text",
            {},
            [MODULES["gemma3_text"][0], ("Dense", {"in_features": 32, "out_features": 4,
                                                   "bias": False, "use_residual": True})],
            "use_residual True is not supported",
        ),
        (
            "gemma3_text",
            {},
            [MODULES["gemma3_text"][0], ("Dense", {"in_features": 32, "out_features": 4,
                                                   "bias": False,
                                                   "activation_function": "my.Module"})],
            "activation_function 'my.Module' is not supported",
        ),
        ("qwen3", {}, [("Pooling", {"pooling_mode": "max"})], "pooling 'max'; supported are"),
        ("qwen3", {}, [("WordWeights", {})], r"module 'WordWeights' .* supported are \['Tr"),
    ],
)  # fmt: skip
def test_what_is_refused(
    tmp_path: Path, family: str, config: dict[str, Any], modules: Any, message: str
) -> None:
    folder = write_embedder(tmp_path, family, config, modules)
    with pytest.raises(ValueError, match=message):
        load(folder)
