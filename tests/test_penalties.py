"""Logits changed by what has been written: by the formulas, and by transformers' processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numattn.models import Sampler
from numattn.models.penalties import Penalties
from tiny_decoders import load, write_folder

LOGITS = np.array([2.0, -1.0, 0.5, 0.0, -3.0, 4.0])
PROMPT, TEXT = [1, 5, 5], [0, 0, 4, 0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"repetition_penalty": 2.0}, [1.0, -2.0, 0.5, 0.0, -6.0, 2.0]),
        ({"repetition_penalty": 0.5}, [4.0, -0.5, 0.5, 0.0, -1.5, 8.0]),
        ({"presence_penalty": 0.5}, [1.5, -1.0, 0.5, 0.0, -3.5, 4.0]),
        ({"frequency_penalty": 0.5}, [0.5, -1.0, 0.5, 0.0, -3.5, 4.0]),
        ({"frequency_penalty": -1.0, "presence_penalty": 0.5}, [4.5, -1.0, 0.5, 0.0, -2.5, 4.0]),
        ({"logit_bias": {3: 1.5, 5: -100}}, [2.0, -1.0, 0.5, 1.5, -3.0, -96.0]),
        (
            {"logit_bias": {4: 5.0}, "repetition_penalty": 2.0, "frequency_penalty": 0.25},
            [0.25, -2.0, 0.5, 0.0, 0.75, 2.0],
        ),
        ({}, LOGITS),
    ],
)
def test_formulas(options: dict[str, Any], expected: Any) -> None:
    before = LOGITS.copy()
    got = Penalties(**options).applied(LOGITS, PROMPT, TEXT)
    np.testing.assert_allclose(got, expected, rtol=1e-15)
    np.testing.assert_array_equal(LOGITS, before)
    weights = np.exp(expected - np.max(expected))
    sampler = Sampler(**options)
    probabilities = sampler.probabilities(LOGITS, PROMPT, TEXT)
    np.testing.assert_allclose(probabilities, weights / weights.sum(), rtol=1e-12)
    greedy = Sampler(temperature=0, **options)
    rows = greedy(np.tile(LOGITS, (2, 1)), [PROMPT, []], [TEXT, []])
    assert rows.tolist() == [
        np.argmax(expected),
        np.argmax(Penalties(**options).applied(LOGITS, [], [])),
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 0.8, "temperature": 0.7, "top_k": 9},
        {"temperature": 1.7, "min_p": 0.15},
        {"temperature": 0.6, "top_k": 25, "top_p": 0.8, "min_p": 0.05},
        {"top_p": 0.5},
        {"temperature": 2.0, "top_k": 3, "min_p": 0.5, "repetition_penalty": 1.1},
    ],
)
def test_as_the_processors_of_transformers(options: dict[str, Any]) -> None:
    """In the order in which its generate applies them."""
    torch = pytest.importorskip("torch")
    logits = pytest.importorskip("transformers.generation.logits_process")
    kinds = {
        "repetition_penalty": logits.RepetitionPenaltyLogitsProcessor,
        "temperature": logits.TemperatureLogitsWarper,
        "top_k": logits.TopKLogitsWarper,
        "top_p": logits.TopPLogitsWarper,
        "min_p": logits.MinPLogitsWarper,
    }
    rng = np.random.default_rng(5)
    for _ in range(20):
        row = rng.normal(0, 3, 40)
        prompt, text = rng.integers(0, 40, 6).tolist(), rng.integers(0, 40, 5).tolist()
        scores = torch.tensor(row)[np.newaxis]
        for name, kind in kinds.items():
            if name in options:
                scores = kind(options[name])(torch.tensor([prompt + text]), scores)
        expected = torch.softmax(scores, dim=-1)[0].numpy()
        got = Sampler(**options).probabilities(row, prompt, text)
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-15)


def test_texts_as_transformers_writes_them(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = write_folder(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    prompt = [3, 9, 27, 9]
    expected = theirs.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, 4), max_new_tokens=30,
        do_sample=False, repetition_penalty=1.4, eos_token_id=None, pad_token_id=0,
    )[0, 4:].tolist()  # fmt: skip
    sampler = Sampler(temperature=0, repetition_penalty=1.4)
    ours = load(folder, "llama")
    assert ours.generate([prompt], 30, sampler=sampler) == [expected]
    assert ours.generate([prompt], 30) != [expected]


def test_a_large_penalty_lets_no_token_come_twice(tmp_path: Path) -> None:
    model = load(write_folder(tmp_path), "llama")
    for penalty in ({"frequency_penalty": 1e6}, {"presence_penalty": 1e6}):
        sampler = Sampler(temperature=0.5, seed=1, **penalty)
        for text in model.generate([[1, 2], [3]], 61, sampler=sampler):
            assert sorted(text) == list(range(61))
    banned = Sampler(temperature=5.0, logit_bias={token: -np.inf for token in range(1, 61)})
    assert model.generate([[1, 2]], 5, sampler=banned) == [[0] * 5]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"repetition_penalty": 0.0}, ValueError, "repetition_penalty must be above 0, and finite"),
        ({"repetition_penalty": np.inf}, ValueError, "repetition_penalty must be above 0, and fin"),
        ({"repetition_penalty": "2"}, TypeError, "repetition_penalty must be a real number"),
        ({"presence_penalty": np.nan}, ValueError, "presence_penalty must be finite, not nan"),
        ({"frequency_penalty": np.inf}, ValueError, "frequency_penalty must be finite, not inf"),
        ({"frequency_penalty": None}, TypeError, "frequency_penalty must be a real number"),
        ({"logit_bias": [1]}, TypeError, "logit_bias must map tokens to numbers, not be a list"),
        ({"logit_bias": {-1: 0}}, ValueError, "a token of logit_bias must be 0 or more, not -1"),
        ({"logit_bias": {"1": 0}}, TypeError, "a token of logit_bias must be an integer, not '1'"),
        ({"logit_bias": {1: np.inf}}, ValueError, "logit_bias must be finite or -inf, not inf"),
        ({"logit_bias": {1: "x"}}, TypeError, "logit_bias must be a real number, not 'x'"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Sampler(**options)


def test_bad_calls() -> None:
    rows = LOGITS[np.newaxis]
    sampler = Sampler(presence_penalty=1.0)
    with pytest.raises(ValueError, match="penalties need prompts and texts, and they are not giv"):
        sampler(rows)
    with pytest.raises(ValueError, match="must be of 1 rows, as logits, not 1 and 2"):
        sampler(rows, [[1]], [[1], [2]])
    with pytest.raises(ValueError, match="logit_bias is of token 6, and there are 6"):
        Sampler(logit_bias={6: 1.0})(rows)
    with pytest.raises(ValueError, match="logit_bias forbids all tokens"):
        Sampler(logit_bias={token: -np.inf for token in range(6)})(rows)
    assert Sampler(presence_penalty=1.0)(np.empty((0, 3)), [], []).tolist() == []
