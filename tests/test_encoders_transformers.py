"""Every encoder of numattn.models beside transformers' own, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_encoders
from numattn import models
from numattn.models import load
from tiny_encoders import CASES, CLASSES, SIZES, save, theirs

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
# Hidden states have components of the order 1.
AGREEMENT = 1e-5


def hidden(model: Any, ids: Any, mask: Any, types: Any = None) -> Any:
    arguments = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask.astype(int))}
    if types is not None:
        arguments["token_type_ids"] = torch.tensor(types)
    with torch.no_grad():
        return model(**arguments).last_hidden_state.numpy()


@pytest.mark.parametrize(("stem", "number"), CASES)
def test_hidden_states(tmp_path: Path, stem: str, number: int, rng: np.random.Generator) -> None:
    model = theirs(stem, number)
    ours = load(save(model, tmp_path))
    assert type(ours) is getattr(models, CLASSES.get(stem, stem))
    # MPNet and RoBERTa count positions past their padding token.
    ids = rng.integers(2, SIZES["vocab_size"], (3, 20))
    lengths = np.array([20, 9, 1])
    mask = np.arange(20) < lengths[:, np.newaxis]
    ids[~mask] = 1 if stem in ("MPNet", "Roberta") else 0
    types = None
    if ours.config.type_vocab_size > 1:
        types = rng.integers(0, 2, ids.shape)
    expected = hidden(model, ids, mask, types)
    found = ours(ids, lengths, token_type_ids=types)
    assert np.abs(expected[mask]).max() > 1
    np.testing.assert_allclose(found[mask], expected[mask], rtol=0, atol=AGREEMENT)


@pytest.mark.parametrize("stem", tiny_encoders.FAMILIES)
def test_attention_maps(tmp_path: Path, stem: str, rng: np.random.Generator) -> None:
    model = theirs(stem)
    model.config._attn_implementation = "eager"
    ours = load(save(model, tmp_path))
    ids = rng.integers(2, SIZES["vocab_size"], 15)
    with torch.no_grad():
        maps = model(torch.tensor(ids[np.newaxis]), output_attentions=True).attentions
    expected = np.stack([each[0].numpy() for each in maps])
    found = ours.attention_weights(ids)
    np.testing.assert_allclose(found, expected, rtol=0, atol=AGREEMENT)
    rows = ours.attention_weights(ids, 1, 2, [14, 3])
    np.testing.assert_allclose(rows, expected[1, 2, [14, 3]], rtol=0, atol=AGREEMENT)
