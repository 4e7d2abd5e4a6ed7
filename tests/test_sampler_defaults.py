"""The sampler that a folder's generation_config.json asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numattn.models.decoders.sampler_defaults import NEUTRAL
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
