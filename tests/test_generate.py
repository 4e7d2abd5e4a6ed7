"""Text from decoders: greedy, drawn, stopped; prompts and stop tokens as people pass them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numattn as na
from numattn.models import Gpt, Llama, Sampler
from tiny_decoders import FAMILIES, VOCABULARY, load, random_ids, write_folder


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Gpt | Llama:
    family = str(request.param)
    return load(write_folder(tmp_path_factory.mktemp(family), family), family)


def test_generation_is_a_token_after_the_other(
    model: Gpt | Llama, rng: np.random.Generator
) -> None:
    prompts = [random_ids(rng, size).tolist() for size in (7, 1, 4)]
    expected = []
    for prompt in prompts:
        text = list(prompt)
        for _ in range(12):
            text.append(int(model([text])[0, -1].argmax()))
        expected.append(text[len(prompt) :])
    assert model.generate(prompts, 12) == expected
    assert model.generate(prompts, 12, chunk=3) == expected
    for cache in (model.new_cache(3), model.new_paged_cache(3, pages=40, page_size=4)):
        assert model.generate(prompts, 12, cache=cache) == expected
        assert cache.lengths.tolist() == [18, 12, 15]


def test_generation_stops_row_by_row(model: Gpt | Llama, rng: np.random.Generator) -> None:
    prompts = [random_ids(rng, 5).tolist() for _ in range(4)]
    free = model.generate(prompts, 15)
    stop = free[1][2]
    expected = [text[: text.index(stop) + 1] if stop in text else text for text in free]
    assert model.generate(prompts, 15, stop=stop) == expected
    other = next(token for token in range(VOCABULARY) if not any(token in text for text in free))
    ways: list[Any] = [
        [stop, other], (stop,), {stop}, iter([other, stop]), np.int64(stop), np.uint8(stop),
        np.array(stop), np.array([stop]), [np.int32(stop)],
    ]  # fmt: skip
    for way in ways:
        assert model.generate(prompts, 15, stop=way) == expected
    nothing: list[Any] = [None, [], (), np.array([], int)]
    for way in nothing:
        assert model.generate(prompts, 15, stop=way) == free


def test_stop_may_be_a_tensor(model: Gpt | Llama, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    prompts = [random_ids(rng, 5).tolist()]
    (free,) = model.generate(prompts, 8)
    expected = [free[: free.index(free[2]) + 1]]
    for stop in (torch.tensor(free[2]), torch.tensor([free[2]])):
        assert model.generate(torch.tensor(prompts), 8, stop=stop) == expected


def test_prompts_may_be_any_iterable(model: Gpt | Llama, rng: np.random.Generator) -> None:
    prompts = [random_ids(rng, size).tolist() for size in (4, 2, 5)]
    expected = model.generate(prompts, 6)
    assert model.generate((prompt for prompt in prompts), 6) == expected
    assert model.generate(iter([iter(prompt) for prompt in prompts]), 6) == expected
    assert model.generate(map(np.array, prompts), 6) == expected
    assert model.generate(np.array([prompts[0]]), 6) == expected[:1]


def test_memory_for_a_text_is_not_all_taken_at_once(
    model: Gpt | Llama, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text that may have 10^8 tokens mostly ends long before; a cache grows as it must."""
    made: list[Any] = []
    new_cache = type(model).new_cache

    def keeping(*arguments: Any, **options: Any) -> Any:
        made.append(new_cache(*arguments, **options))
        return made[-1]

    prompts = [random_ids(rng, 5).tolist()]
    (free,) = model.generate(prompts, 15)
    monkeypatch.setattr(type(model), "new_cache", keeping)
    for most in (10**8, 2**63 - 1):
        if model.config.max_positions is None:
            expected = free[: free.index(free[3]) + 1]
            assert model.generate(prompts, most, stop=free[3]) == [expected]
            assert made[-1].nbytes < 10**7
        else:
            with pytest.raises(ValueError, match=f"text 0 could have {most + 4} tokens"):
                model.generate(prompts, most)
            assert made[-1].nbytes == 0


def test_generation_with_a_seed(model: Gpt | Llama, rng: np.random.Generator) -> None:
    prompts = [random_ids(rng, 5).tolist() for _ in range(2)]

    def write(seed: int) -> list[list[int]]:
        return model.generate(prompts, 20, sampler=Sampler(temperature=2, top_k=20, seed=seed))

    assert write(1) == write(1) != write(2)


def test_generation_of_nothing(model: Gpt | Llama) -> None:
    assert model.generate([], 5) == []
    assert model.generate([[1]], 0) == [[]]


# --- bad input ------------------------------------------------------------------------------------


def test_texts_that_could_outgrow_the_cache(tmp_path: Path) -> None:
    """Said before anything is read, and not when most of the text is written."""
    model = load(write_folder(tmp_path, "gpt2", {"n_positions": 96}), "gpt2")
    prompts = [[1, 2, 3], [1] * 90]
    with pytest.raises(
        ValueError, match="text 1 could have 97 tokens to be read, prompt and new o"
    ):
        model.generate(prompts, 8)
    assert [len(text) for text in model.generate(prompts, 7)] == [7, 7]
    cache = model.new_cache(2)
    model([[5, 6]] * 2, cache=cache)
    with pytest.raises(ValueError, match=r"97 tokens .* the cache holds 96 \(max_length\)"):
        model.generate(prompts, 6, cache=cache)
    assert cache.lengths.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("prompts", "options", "error", "message"),
    [
        ([[1], []], {}, ValueError, "prompt 1 is empty"),
        ([[1], [2, 61]], {}, ValueError, "the tokens of prompt 1 must be in 0 … 60, not 2 … 61"),
        ([[1], ["a"]], {}, TypeError, "prompt 1 must be a sequence of integers"),
        ([1, 2], {}, TypeError, "prompt 0 is a number, 1: .*; put a single one into a list"),
        (np.array([1, 2]), {}, TypeError, "prompt 0 is a number, 1: "),
        ("ab", {}, TypeError, "prompts must be a sequence or another iterable of sequences"),
        ([[1], "a"], {}, TypeError, "prompt 1 must be a sequence of integers, not 'a'"),
        ([[1.5]], {}, TypeError, r"prompt 0 must be a sequence of integers, not \[1.5\]"),
        ([[True]], {}, TypeError, r"prompt 0 must be a sequence of integers, not \[True\]"),
        ([[1]], {"stop": "."}, TypeError, "stop must be token ids, not the text '.'"),
        ([[1]], {"stop": ["."]}, TypeError, r"stop must be a sequence of integers, not \['.'\]"),
        ([[1]], {"stop": 2.5}, TypeError, r"stop must be a sequence of integers, not \[2.5\]"),
        ([[1]], {"stop": True}, TypeError, "stop must be a sequence of integers"),
        ([[1]], {"stop": 61}, ValueError, "the tokens of stop must be in 0 … 60, not 61 … 61"),
        ([[1]], {"stop": [3, -1]}, ValueError, "the tokens of stop must be in 0 … 60, not -1 … 3"),
        ([[1]], {"max_new_tokens": 2**63}, ValueError, "max_new_tokens must fit 64 signed bits"),
        ([[1]], {"max_new_tokens": 1.5}, TypeError, "max_new_tokens must be an integer, not 1.5"),
        ([[1]], {"max_new_tokens": -1}, ValueError, "max_new_tokens must be 0 or more, not -1"),
        ([[1]], {"chunk": 0}, ValueError, "chunk must be 1 or more, not 0"),
        ([[1]], {"cache": na.KVCache(3, 2, 2, 8)}, ValueError, "has 2 rows, and there are 1 prom"),
        ([[1]], {"cache": {}}, TypeError, "cache must be a KVCache or PagedKVCache, not dict"),
    ],
)
def test_bad_prompts(
    tmp_path: Path,
    prompts: Any,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    model = load(write_folder(tmp_path, "llama"), "llama")
    with pytest.raises(error, match=message):
        model.generate(prompts, **{"max_new_tokens": 3, **options})
