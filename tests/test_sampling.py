"""numattn.models.decoders.sampling: who may be drawn, and how often."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from numattn.models import Sampler

LOGITS = np.log(np.array([0.05, 0.4, 0.1, 0.25, 0.2]))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.05, 0.4, 0.1, 0.25, 0.2]),
        ({"temperature": 0}, [0, 1, 0, 0, 0]),
        ({"top_k": 1}, [0, 1, 0, 0, 0]),
        ({"top_k": 3}, [0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85]),
        ({"top_k": 9}, [0.05, 0.4, 0.1, 0.25, 0.2]),
        ({"top_p": 0.3}, [0, 1, 0, 0, 0]),
        ({"top_p": 0.5}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        ({"top_p": 0.66}, [0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85]),
        ({"top_p": 1.0}, [0.05, 0.4, 0.1, 0.25, 0.2]),
        # Of 0.4, 0.25, 0.2 the first makes up 0.47, and the first two 0.76.
        ({"top_k": 3, "top_p": 0.6}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        ({"temperature": 0.5}, np.square([0.05, 0.4, 0.1, 0.25, 0.2]) / 0.275),
    ],
)
def test_probabilities(options: dict[str, Any], expected: Any) -> None:
    sampler = Sampler(seed=0, **options)
    np.testing.assert_allclose(sampler.probabilities(LOGITS), expected, rtol=1e-12)
    drawn = sampler(np.tile(LOGITS.astype(np.float32), (4000, 1)))
    counts = np.bincount(drawn, minlength=5)
    assert (counts[np.asarray(expected) == 0] == 0).all()
    # A count of n draws with probability p has the deviation sqrt(n·p·(1 − p)); 5 of them.
    p = np.asarray(expected)
    assert (np.abs(counts - 4000 * p) <= 5 * np.sqrt(4000 * p * (1 - p)) + 1e-9).all()


def test_a_seed_gives_the_same_tokens() -> None:
    rows = np.random.default_rng(0).standard_normal((7, 50))
    first, second, other = (Sampler(top_p=0.9, seed=seed) for seed in (3, 3, 4))
    drawn = [[sampler(rows).tolist() for _ in range(5)] for sampler in (first, second, other)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({tuple(tokens) for tokens in drawn[0]}) > 1


def test_ties_go_to_the_lowest_number() -> None:
    logits = np.array([[0.0, 1.0, 1.0, 1.0]])
    assert Sampler(temperature=0)(logits) == [1]
    assert np.flatnonzero(Sampler(top_k=2).probabilities(logits[0])).tolist() == [1, 2]


def test_a_token_of_no_probability_is_never_drawn() -> None:
    """Also not where the random number meets the edge of what is before or after it."""
    logits = np.array([-np.inf, 0.0, -np.inf, -1e9, -np.inf])
    for uniform in (0.0, 0.5, 1.0 - 2.0**-53):
        assert Sampler()._draw(logits, uniform) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "temperature must be 0 or more, and finite, not -1"),
        ({"temperature": float("nan")}, "temperature must be 0 or more"),
        ({"top_k": 0}, "top_k must be 1 or more, not 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, not 0.0"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1, not 1.5"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampler(**options)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ([0.0, 1.0], r"logits must be \(B, V\) with V of 1 or more, not \(2,\)"),
        (np.empty((1, 0)), r"not \(1, 0\)"),
        ([[0.0, np.nan]], "logits must not be NaN"),
        ([[0.0, np.inf]], r"\+inf"),
        ([[0.0, 1.0], [-np.inf, -np.inf]], "-inf throughout a row"),
    ],
)
def test_bad_logits(logits: Any, message: str) -> None:
    for temperature in (0, 1):
        with pytest.raises(ValueError, match=message):
            Sampler(temperature=temperature)(logits)
