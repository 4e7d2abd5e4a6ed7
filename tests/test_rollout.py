"""Attention through all layers at once."""

from __future__ import annotations

import numpy as np
import pytest

from numattn.models import Bert, attention_rollout


def test_of_the_formula() -> None:
    raw = np.random.RandomState(0).uniform(size=(3, 2, 5, 5))
    maps = (raw / raw.sum(axis=-1, keepdims=True)).astype(np.float32)
    expected = np.eye(5)
    for layer in maps.astype(np.float64):
        expected = (0.5 * layer.mean(axis=0) + 0.5 * np.eye(5)) @ expected
    found = attention_rollout(maps)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)


def test_of_a_causal_model_nothing_comes_from_later() -> None:
    maps = np.tril(np.ones((4, 1, 6, 6), np.float32))
    maps /= maps.sum(axis=-1, keepdims=True)
    assert not np.triu(attention_rollout(maps), 1).any()


def test_of_a_model(bert: Bert) -> None:
    ids = bert.tokenizer.encode("the cat sat on the mat").ids
    rolled = attention_rollout(bert.attention_weights(ids))
    assert rolled.shape == (len(ids), len(ids))
    np.testing.assert_allclose(rolled.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 3), (2, 0, 3, 3), (0, 2, 3, 3), (2, 2, 3, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"maps must be \(L, H, S, S\)"):
        attention_rollout(np.zeros(shape, np.float32))
