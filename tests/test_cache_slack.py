"""`KVCache(window=, slack=)`: tokens taken back from a cache that keeps a window."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import numattn as na
from tiny_decoders import load, random_ids, write_folder

WINDOW = 5


def step(cache: na.KVCache, tokens: list[NDArray[Any]], rng: np.random.Generator) -> None:
    """Append a few tokens to a cache of one row and to a list, and hold what they see to a copy."""
    size = int(rng.integers(1, 5))
    new = rng.standard_normal((3, 1, 2, size, 8), np.float32)
    tokens.append(new)
    q, k, v = np.concatenate(tokens, axis=3)
    got = cache.attend(0, *new)
    expected = na.attention(q, k, v, is_causal=True, window=(WINDOW, None))[:, :, -size:]
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)


def cut(cache: na.KVCache, tokens: list[NDArray[Any]], length: int) -> None:
    cache.truncate(length)
    tokens[:] = [np.concatenate(tokens, axis=3)[..., :length, :]]


@pytest.mark.parametrize("slack", [1, 4, 11])
@pytest.mark.parametrize("storage", ["as it is", "pickled", "forked"])
def test_any_history_of_steps_back(slack: int, storage: str, rng: np.random.Generator) -> None:
    cache = na.KVCache(1, 1, 2, 8, window=WINDOW, slack=slack)
    tokens: list[NDArray[Any]] = []
    longest, back = 0, 0
    for _ in range(120):
        step(cache, tokens, rng)
        longest = max(longest, int(cache.lengths[0]))
        if storage == "pickled":
            cache = pickle.loads(pickle.dumps(cache))
        elif storage == "forked":
            cache.fork([0])
        if rng.random() < 0.6:
            length = max(int(rng.integers(longest - slack, longest + 1)), 1)
            if length < cache.lengths[0]:
                back += 1
                cut(cache, tokens, length)
    assert back > 20
    assert cache._stores[0].capacity <= 2 * (WINDOW + slack) + 4


def test_the_memory_is_the_window_s_and_the_slack_s(rng: np.random.Generator) -> None:
    token = rng.standard_normal((1, 2, 1, 8), np.float32)
    caches = [na.KVCache(1, 1, 2, 8, window=WINDOW, slack=slack) for slack in (0, 7)]
    for _ in range(100):
        for cache in caches:
            cache.append(0, token, token)
    assert [cache.nbytes for cache in caches] == [
        2 * 2 * 2 * kept * 8 * 4 for kept in (WINDOW, WINDOW + 7)
    ]


def test_more_than_the_slack_cannot_be_taken_back(rng: np.random.Generator) -> None:
    token = rng.standard_normal((1, 2, 1, 8), np.float32)
    for slack in (0, 3):
        refused = 0
        for count in range(30, 50):
            cache = na.KVCache(1, 1, 2, 8, window=WINDOW, slack=slack)
            for _ in range(count):
                cache.append(0, token, token)
            cache.truncate(count - slack)
            try:
                cache.truncate(count - slack - 2)
            except ValueError as error:
                assert f"(slack={slack} tokens can be taken back)" in str(error)
                assert cache.lengths == [count - slack]
                refused += 1
        assert refused > 0  # for some lengths more is left than was promised


def test_a_slack_that_is_refused() -> None:
    with pytest.raises(ValueError, match="slack must be 0 or more, not -1"):
        na.KVCache(1, 1, 2, 8, window=5, slack=-1)
    with pytest.raises(TypeError, match="slack must be an integer, not 1.5"):
        na.KVCache(1, 1, 2, 8, window=5, slack=1.5)  # type: ignore[arg-type]


def test_guesses_of_a_model_with_a_window(tmp_path: Path, rng: np.random.Generator) -> None:
    """Four tokens are guessed at a time; some of them stay."""
    model = load(write_folder(tmp_path, "mistral"), "mistral")
    text = random_ids(rng, 1, 60)
    cache, length = model.new_cache(1, slack=4), 6
    model(text[:, :length], cache=cache)
    while length < 50:
        right = int(rng.integers(0, 4))
        guess = np.concatenate(
            [text[:, length : length + right], random_ids(rng, 1, 4 - right)], axis=1
        )
        for column in range(4):
            model(guess[:, column : column + 1], cache=cache)
        length += right
        cache.truncate(length)
        logits = model(text[:, length : length + 1], cache=cache)[0, 0]
        length += 1
        expected = model(text[:, :length], only_last=True)[0]
        assert np.linalg.norm(logits - expected) <= 1e-5 * np.linalg.norm(expected)
