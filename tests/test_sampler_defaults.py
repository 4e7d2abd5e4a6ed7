"""The sampler that a folder's generation_config.json asks for."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numattn.models import load
from numattn.models.decoders.gguf_text import GgufText
from numattn.models.decoders.sampler_defaults import NEUTRAL, sampler_of
from tiny_tokenizers import text_model

DRAWS = {"do_sample": True}


@pytest.mark.parametrize(
    ("config", "changes", "expected"),
    [
        (None, {}, (0, None, None, None, 1)),
        ({"temperature": 0.7, "top_k": 9}, {}, (0, None, None, None, 1)),
        ({"repetition_penalty": 1.2}, {}, (0, None, None, None, 1.2)),
        (DRAWS, {}, (1, 50, 1, None, 1)),
        (DRAWS | {"temperature": 0.7, "top_k": 0, "top_p": 0.9}, {}, (0.7, None, 0.9, None, 1)),
        (DRAWS | {"min_p": 0.1, "top_k": 20}, {}, (1, 20, 1, 0.1, 1)),
        (DRAWS | {"top_p": 0.9}, {"temperature": 0, "top_k": None}, (0, None, 0.9, None, 1)),
        (DRAWS | {"num_beams": 1, "typical_p": 1.0, "eta_cutoff": None}, {}, (1, 50, 1, None, 1)),
        (DRAWS | {"max_length": 4096, "pad_token_id": 0}, {"seed": 3}, (1, 50, 1, None, 1)),
    ],
)
def test_settings(tmp_path: Path, config: Any, changes: dict[str, Any], expected: Any) -> None:
    sampler = text_model(tmp_path, generation_config=config).sampler(**changes)
    got = (sampler.temperature, sampler.top_k, sampler.top_p, sampler.min_p)
    assert (*got, sampler.penalties.repetition) == expected


@pytest.mark.parametrize("config", [DRAWS, DRAWS | {"temperature": 0.6, "top_p": 0.8, "top_k": 7}])
def test_as_transformers(tmp_path: Path, config: dict[str, Any]) -> None:
    """Its processors for such a file leave the same probabilities."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    ours = text_model(tmp_path, generation_config=config)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    given = torch.tensor([[5, 6, 7]])
    output = theirs.generate(
        given, attention_mask=torch.ones_like(given), max_new_tokens=1, eos_token_id=None,
        pad_token_id=0, return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    expected = torch.softmax(output.scores[0], dim=-1)[0].numpy()
    got = ours.sampler().probabilities(ours([[5, 6, 7]])[0, -1])
    assert 1 < np.count_nonzero(expected) < expected.size
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"no_repeat_ngram_size": 3}, "no_repeat_ngram_size 3 is not supported: make a Sampler"),
        ({"num_beams": 4}, "num_beams 4 is not supported"),
        ({"suppress_tokens": [1]}, r"suppress_tokens \[1\] is not supported"),
        (DRAWS | {"temperature": 0.0}, "temperature must be a positive number, not 0.0"),
        (DRAWS | {"temperature": "x"}, "temperature must be a positive number, not 'x'"),
        (DRAWS | {"top_k": -1}, "top_k must be a whole number from 0 on, not -1"),
        (DRAWS | {"top_p": 1.5}, "top_p must be above 0 and at most 1, not 1.5"),
        ({"do_sample": "yes"}, "do_sample must be true or false, not 'yes'"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, config: Any, message: str) -> None:
    model = text_model(tmp_path, generation_config=config)
    with pytest.raises(ValueError, match=message):
        model.sampler()


def test_bad_changes(tmp_path: Path) -> None:
    model = text_model(tmp_path)
    with pytest.raises(TypeError, match="tempreture"):
        model.sampler(tempreture=1)
    with pytest.raises(ValueError, match="min_p must be 0 … 1, not 2"):
        model.sampler(min_p=2)
    assert not set(NEUTRAL) & {"temperature", "top_k", "top_p", "min_p", "repetition_penalty"}


# What a GGUF file says of it, general.sampling.*, and what of that becomes of a Sampler.
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, (0, None, None, None, 1)),
        ({"temp": 0.5}, (0.5, None, 1, None, 1)),
        ({"temp": 0.5, "top_k": 20, "top_p": 0.75, "min_p": 0.125}, (0.5, 20, 0.75, 0.125, 1)),
        ({"top_k": 7, "min_p": 0.0, "mirostat": 0, "mirostat_tau": 5.0}, (1, 7, 1, None, 1)),
        ({"top_k": -1, "xtc_threshold": 0.5}, (1, None, 1, None, 1)),
        ({"temp": 0.0, "top_k": 40}, (0, None, None, None, 1)),
        ({"penalty_repeat": 1.25, "penalty_last_n": -1}, (1, None, 1, None, 1.25)),
        ({"penalty_last_n": 64}, (1, None, 1, None, 1)),
    ],
)
def test_a_gguf_file(said: dict[str, Any], expected: Any) -> None:
    settings = gguf_text(said).sampling
    sampler = sampler_of(settings, {})
    got = (sampler.temperature, sampler.top_k, sampler.top_p, sampler.min_p)
    assert (*got, sampler.penalties.repetition) == expected


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"mirostat": 2}, "general.sampling.mirostat 2 is not supported: make a Sampler"),
        ({"xtc_probability": 0.5}, "general.sampling.xtc_probability 0.5 is not supported"),
        ({"sequence": "top_k;temp"}, "general.sampling.sequence 'top_k;temp' is not supported"),
        ({"penalty_repeat": 1.25, "penalty_last_n": 64}, "sampling.penalty_last_n 64 is not suppo"),
        ({"temp": -1.0}, "temperature must be a positive number, not -1.0"),
        ({"top_k": "x"}, "top_k must be a whole number from 0 on, not 'x'"),
    ],
)
def test_what_of_a_gguf_file_is_refused(said: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        sampler_of(gguf_text(said).sampling, {})
    assert "model.gguf" in str(caught.value)


def gguf_text(said: dict[str, Any]) -> GgufText:
    values = {f"general.sampling.{name}": value for name, value in said.items()}
    return GgufText(Path("model.gguf"), {**values, "general.name": "x"})


def test_a_gguf_file_that_is_loaded(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    tiny_gguf = pytest.importorskip("tiny_gguf")
    said = {"general.sampling.temp": 0.5, "general.sampling.top_k": 3}
    tiny_gguf.write_gguf(tmp_path / "model.gguf", "llama", metadata=said)
    for model in (load(tmp_path), pickle.loads(pickle.dumps(load(tmp_path)))):
        sampler = model.sampler(seed=1)
        assert (sampler.temperature, sampler.top_k) == (0.5, 3)
