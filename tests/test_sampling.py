"""numattn.models.sampling: who may be drawn, and how often."""

from __future__ import annotations

from typing import Any

import ml_dtypes
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
        ({"min_p": 0.0}, [0.05, 0.4, 0.1, 0.25, 0.2]),
        ({"min_p": 0.26}, [0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85]),
        ({"min_p": 1.0}, [0, 1, 0, 0, 0]),
        ({"top_p": 0.66, "min_p": 0.6}, [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        ({"temperature": 0.5, "min_p": 0.2}, np.array([0, 16, 0, 6.25, 4]) / 26.25),
        ({"logit_bias": {1: -np.inf, 0: np.log(2)}}, np.array([2, 0, 2, 5, 4]) / 13),
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


def test_a_row_draws_by_itself() -> None:
    """What it draws follows from its own seed, or from the seed and its place: not the others."""
    rows = np.random.default_rng(0).standard_normal((5, 200))
    whole, part = Sampler(seed=3), Sampler(seed=3)
    for _ in range(4):
        assert whole(rows)[:2].tolist() == part(rows[:2]).tolist()
    same = [Sampler(seed=3)(np.tile(rows[:1], (40, 1)))]
    assert len(set(same[0].tolist())) > 10  # rows have streams of their own
    whole = Sampler(seed=[7, 8, 9, 10, 11])
    drawn = np.array([whole(rows) for _ in range(4)])
    for number in range(5):
        alone = Sampler(seed=[7 + number])
        assert [int(alone(rows[number : number + 1])[0]) for _ in range(4)] == (
            drawn[:, number].tolist()
        )
    assert 0 <= Sampler(seed=1).uniform() < 1
    zero = np.array(3)  # an array, and one number
    assert Sampler(seed=zero)(rows).tolist() == Sampler(seed=3)(rows).tolist()  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there are 2 seeds, and more rows"):
        Sampler(seed=np.array([1, 2]))(rows)  # type: ignore[arg-type]


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
        ({"top_p": float("nan")}, "top_p must be above 0 and at most 1, not nan"),
        ({"temperature": float("inf")}, "temperature must be 0 or more, and finite, not inf"),
        ({"temperature": 10**400}, "temperature must be finite, not 1000"),
        ({"top_k": 2**63}, "top_k must fit 64 signed bits"),
        ({"seed": -1}, "seed must be 0 or more, not -1"),
        ({"seed": [3, -1]}, "seed must be 0 or more, not -1"),
        ({"min_p": -0.1}, "min_p must be 0 … 1, not -0.1"),
        ({"min_p": 1.1}, "min_p must be 0 … 1, not 1.1"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampler(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": "1"}, "temperature must be a real number, not '1'"),
        ({"temperature": None}, "temperature must be a real number, not None"),
        ({"temperature": True}, "temperature must be a real number, not True"),
        ({"temperature": np.ones(2)}, "temperature must be a real number, not array"),
        ({"top_p": "0.5"}, "top_p must be a real number, not '0.5'"),
        ({"top_k": 1.5}, "top_k must be an integer, not 1.5"),
        ({"seed": "a"}, "seed must be a whole number or None, not 'a'"),
        ({"seed": 1.5}, "seed must be a whole number or None, not 1.5"),
        ({"seed": [1, "a"]}, "seed must be a whole number or None, not 'a'"),
        ({"min_p": "1"}, "min_p must be a real number, not '1'"),
    ],
)
def test_options_that_are_no_numbers(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Sampler(**options)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("temperature", [1e-46, 5e-324, 1e-300])
def test_the_smallest_temperatures_take_the_likeliest(temperature: float) -> None:
    """As their limit does, and equal ones equally often; nothing overflows into NaN."""
    for logits in ([0.0, 1.0, -np.inf, 0.5], np.array([-1e38, 3e38, -3e38, 0], np.float32)):
        assert Sampler(temperature=temperature).probabilities(logits).tolist() == [0, 1, 0, 0]
        assert Sampler(temperature=temperature, top_p=0.9)(np.array([logits])) == [1]
    equal = Sampler(temperature=temperature).probabilities([2.0, 2.0, 1.0])
    assert equal.tolist() == [0.5, 0.5, 0]


@pytest.mark.filterwarnings("error")
def test_the_largest_temperature_makes_all_as_likely() -> None:
    for logits in ([1.7e308, -1.7e308, 0.0], [5.0, 1.0, 3.0]):
        probabilities = Sampler(temperature=1.7e308).probabilities(logits)
        expected = np.exp(np.array(logits) / 1.7e308 - max(logits) / 1.7e308)
        if max(logits) < 10:
            np.testing.assert_allclose(probabilities, 1 / 3, rtol=1e-15)
        else:  # of the smallest the distance to the largest overflows
            assert probabilities[1] in (0, expected[1] / expected.sum())


def test_logits_of_any_real_dtype() -> None:
    for dtype in (np.float16, np.float64, ml_dtypes.bfloat16, np.int8, np.uint8):
        logits = np.array([1, 3, 2], dtype)
        for options in ({}, {"top_k": 2}, {"top_p": 0.9}):
            expected = Sampler(**options).probabilities([1.0, 3.0, 2.0])
            np.testing.assert_array_equal(Sampler(**options).probabilities(logits), expected)


def test_bad_logits_of_one_row() -> None:
    for temperature in (0, 1):
        sampler = Sampler(temperature=temperature, top_k=1)
        for logits in ([[1.0, 2.0]], [], 1.0):
            with pytest.raises(ValueError, match=r"logits must be \(V,\) with V of 1 or more"):
                sampler.probabilities(logits)
        for logits in ([1.0, np.nan], [0.0, np.inf], [-np.inf, -np.inf]):
            with pytest.raises(ValueError, match="logits must not be NaN"):
                sampler.probabilities(logits)
        for odd in (["a"], [True, False], [1j]):
            with pytest.raises(TypeError, match="logits must be real numbers, not "):
                sampler.probabilities(odd)


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
