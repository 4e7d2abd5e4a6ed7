"""Folders that transformers writes now, of models that it makes: names of tensors and settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from numattn.models import load
from tiny_decoders import FAMILIES, config_of, random_ids

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_transformers_saves(tmp_path: Path, family: str, rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**config_of(family))
    theirs = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0.1, 0.3)
    theirs.save_pretrained(tmp_path)
    ids = random_ids(rng, 1, 24)
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits.numpy()
    got = load(tmp_path)(ids)
    assert np.linalg.norm(got - expected) < 1e-4 * np.linalg.norm(expected)
