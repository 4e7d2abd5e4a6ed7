"""Speculative decoding: the same greedy texts, draws from one distribution, caches in order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import numattn as na
from numattn.models import Gpt, Llama, ModelDraft, NgramDraft, Sampler
from numattn.models.decoders.generation import Generation
from numattn.models.decoders.speculation import Guess, Speculation
from numattn.models.sampling import greedy
from tiny_decoders import VOCABULARY, config_of, load, random_ids, tensors_of, write_folder
from tiny_tokenizers import text_model

FAMILIES = ["llama", "mistral", "gemma2", "gpt2"]
MOST = 40


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Gpt | Llama:
    family = str(request.param)
    return load(write_folder(tmp_path_factory.mktemp(family), family), family)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Gpt | Llama:
    """Another model, whose guesses are mostly wrong."""
    tensors: Any = tensors_of(config_of("llama"), seed=1)
    return load(write_folder(tmp_path_factory.mktemp("small"), tensors=tensors), "llama")


class Oracle:
    """Guesses what comes in fact, but for every `wrong`-th token."""

    def __init__(self, texts: Sequence[Sequence[int]], tokens: int, wrong: int) -> None:
        self._texts, self.most, self._wrong = texts, tokens, wrong

    def begin(self, model: Any, batch: int) -> None: ...

    def propose(
        self, prompts: Any, texts: Sequence[Sequence[int]], counts: Sequence[int], sampler: Sampler
    ) -> list[Guess]:
        guesses = []
        for whole, text, count in zip(self._texts, texts, counts, strict=True):
            end = len(text)
            guesses.append(
                Guess(
                    [
                        (token + ((end + place) % self._wrong == 0)) % VOCABULARY
                        for place, token in enumerate(whole[end : end + count])
                    ]
                )
            )
        return guesses


def steps_of(generation: Generation) -> int:
    count = 0
    while generation.active.any():
        generation.step()
        count += 1
    return count


def test_greedy_texts_stay_as_they_are(
    model: Gpt | Llama, small: Gpt | Llama, rng: np.random.Generator
) -> None:
    prompts = [random_ids(rng, size).tolist() for size in (7, 1, 12)]
    expected = model.generate(prompts, MOST)
    for draft in (
        NgramDraft(), NgramDraft(tokens=3, longest=1), ModelDraft(small), ModelDraft(model),
        Oracle(expected, 5, 4), Oracle(expected, 7, 99), Oracle(expected, 1, 2),
    ):  # fmt: skip
        assert model.generate(prompts, MOST, draft=draft) == expected
        assert model.generate(prompts, MOST, draft=draft, chunk=3) == expected
        paged = model.new_paged_cache(3, pages=60, page_size=4)
        for cache in (paged, model.new_cache(3, slack=8)):
            assert model.generate(prompts, MOST, draft=draft, cache=cache) == expected
            assert cache.lengths.tolist() == [7 + MOST - 1, MOST, 12 + MOST - 1]


def test_good_guesses_take_few_steps(model: Gpt | Llama, rng: np.random.Generator) -> None:
    prompts = [random_ids(rng, 5).tolist() for _ in range(2)]
    expected = model.generate(prompts, 37)
    for draft in (Oracle(expected, 5, 99), ModelDraft(model, tokens=5)):
        generation = Speculation(model, prompts, 37, draft=draft)
        assert steps_of(generation) == 1 + 36 // 6
        assert generation.texts == expected
        assert generation.proposed == generation.accepted == 2 * 30
    wrong = Speculation(model, prompts, 37, draft=Oracle(expected, 5, 1))
    assert (steps_of(wrong), wrong.accepted, wrong.texts) == (37, 0, expected)


def test_texts_end_within_a_guess(model: Gpt | Llama, rng: np.random.Generator) -> None:
    """What comes after a stop token is dropped, from the cache too."""
    prompts = [random_ids(rng, 5).tolist() for _ in range(3)]
    free = model.generate(prompts, MOST)
    for stop in {free[0][9], free[1][3], free[2][20]}:
        expected = model.generate(prompts, MOST, stop=stop)
        cache = model.new_cache(3, slack=6)
        draft = Oracle(free, 6, 99)
        assert model.generate(prompts, MOST, stop=stop, draft=draft, cache=cache) == expected
        assert cache.lengths.tolist() == [5 + len(text) - 1 for text in expected]


def test_penalties_see_the_tokens_of_a_guess(
    model: Gpt | Llama, small: Gpt | Llama, rng: np.random.Generator
) -> None:
    prompts = [random_ids(rng, 6).tolist() for _ in range(2)]
    options = {"temperature": 0, "repetition_penalty": 1.5, "frequency_penalty": 0.3}
    expected = model.generate(prompts, MOST, sampler=Sampler(**options))
    assert expected != model.generate(prompts, MOST)
    for draft in (NgramDraft(), ModelDraft(small), ModelDraft(model)):
        generation = Speculation(model, prompts, MOST, draft=draft, sampler=Sampler(**options))
        steps = steps_of(generation)
        assert generation.texts == expected
    assert steps == 1 + (MOST - 1 + 4) // 5  # by itself a model guesses right


def frequencies(texts: Sequence[Sequence[int]], places: slice) -> NDArray[np.float64]:
    """Return how often each pair of tokens stands at two places of texts."""
    counts = np.zeros((VOCABULARY, VOCABULARY))
    for text in texts:
        counts[tuple(text[places])] += 1
    return counts


@pytest.mark.parametrize("kind", ["small", "ngram", "constant", "uniform"])
def test_draws_are_from_the_same_distribution(
    small: Gpt | Llama, tmp_path: Path, kind: str
) -> None:
    """Of the second and third new token together, against exact probabilities: 5 deviations."""
    model = load(write_folder(tmp_path), "llama")
    prompt, rows, times = [4, 7, 4, 7, 30], 500, 4
    options: dict[str, Any] = {"temperature": 1.2, "top_k": 4, "logit_bias": {30: 4.0}}
    # The first token is known, so that guesses begin with the second.
    first = 7
    sampler = Sampler(**options)
    second = sampler.probabilities(model([[*prompt, first]])[0, -1])
    exact = np.zeros((VOCABULARY, VOCABULARY))
    for token in np.flatnonzero(second):
        after = model([[*prompt, first, int(token)]])[0, -1]
        exact[token] = second[token] * sampler.probabilities(after)

    class Fixed:
        most = 2

        def begin(self, model: Any, batch: int) -> None: ...

        def propose(
            self, prompts: Any, texts: Any, counts: Sequence[int], sampler: Sampler
        ) -> list[Guess]:
            likely = np.flatnonzero(second)
            if kind == "constant":
                return [Guess([int(likely[0])] * count) for count in counts]
            q = np.zeros(VOCABULARY)
            q[[*likely, 60]] = 1 / (likely.size + 1)
            places = np.flatnonzero(q)
            drawn = [
                [int(places[int(sampler.uniform(row) * places.size)]) for _ in range(count)]
                for row, count in enumerate(counts)
            ]
            return [Guess(tokens, np.tile(q, (len(tokens), 1))) for tokens in drawn]

    drafts = {"small": ModelDraft(small, 2), "ngram": NgramDraft(2)}
    texts: list[list[int]] = []
    accepted = proposed = 0
    for seed in range(times):
        generation = Speculation(
            model, [prompt] * rows, 4, draft=drafts.get(kind, Fixed()),  # type: ignore[arg-type]
            sampler=Sampler(seed=seed, **options),
        )  # fmt: skip
        generation.step()
        for text in generation.texts:
            text[0] = first
        while generation.active.any():
            generation.step()
        texts += generation.texts
        accepted, proposed = accepted + generation.accepted, proposed + generation.proposed
    assert 0.02 * proposed < accepted < 0.98 * proposed
    counts, total = frequencies(texts, slice(1, 3)), rows * times
    assert counts[exact == 0].sum() == 0
    deviation = np.sqrt(total * exact * (1 - exact))
    assert (np.abs(counts - total * exact) <= 5 * deviation + 1e-9).all()


def test_a_seed_repeats_and_rows_are_their_own(
    model: Gpt | Llama, small: Gpt | Llama, rng: np.random.Generator
) -> None:
    prompts = [random_ids(rng, size).tolist() for size in (5, 8)]

    def write(which: list[int]) -> list[list[int]]:
        sampler = Sampler(temperature=1.5, seed=[20 + number for number in which])
        chosen = [prompts[number] for number in which]
        return model.generate(chosen, 20, sampler=sampler, draft=ModelDraft(small))

    both = write([0, 1])
    assert both == write([0, 1]) == [write([0])[0], write([1])[0]]


def test_a_text_that_outgrows_its_frequencies(tmp_path: Path) -> None:
    """Guesses do not cross the length at which all of a text is turned otherwise."""
    scaling = {"type": "longrope", "short_factor": [1.0] * 2, "long_factor": [4.0] * 2}
    config = {"rope_scaling": scaling, "original_max_position_embeddings": 12}
    model = load(write_folder(tmp_path, "phi3", config), "phi3")
    prompts = [[1, 2, 3], [5] * 9, [4] * 14]
    expected = model.generate(prompts, 20)
    for draft in (Oracle(expected, 5, 3), Oracle(expected, 5, 99), ModelDraft(model)):
        assert model.generate(prompts, 20, draft=draft) == expected


def test_the_positions_of_a_draft_end(small: Gpt | Llama, tmp_path: Path) -> None:
    """A draft of fewer positions guesses nothing beyond them."""
    changes = {"n_positions": 12}
    tensors: Any = tensors_of(config_of("gpt2") | changes)
    short = load(write_folder(tmp_path, "gpt2", changes, tensors), "gpt2")
    expected = small.generate([[1, 2, 3], [7] * 11], 25)
    assert small.generate([[1, 2, 3], [7] * 11], 25, draft=ModelDraft(short)) == expected


def test_texts_and_streams(tmp_path: Path) -> None:
    model = text_model(tmp_path)
    text = model.generate_text("the cat the cat the", 60).text
    stop = text[20:23]
    expected = model.generate_text("the cat the cat the", 60, stop=stop)
    for draft in (NgramDraft(), ModelDraft(model)):
        options: dict[str, Any] = {"stop": stop, "draft": draft}
        assert model.generate_text("the cat the cat the", 60, **options) == expected
        stream = model.stream("the cat the cat the", 60, **options)
        assert "".join(stream) == expected.text and stream.tokens == expected.tokens


@pytest.mark.parametrize(
    ("prompt", "text", "count", "expected"),
    [
        ([1, 2, 3, 4], [1, 2], 2, [3, 4]),
        ([1, 2, 3, 4], [1, 2], 9, [3, 4, 1, 2]),
        ([1, 2, 3, 4], [1, 2], 0, []),
        ([1, 2, 3], [4], 3, []),
        ([5, 1, 2, 9, 6, 1, 2, 8, 5, 1], [2], 1, [9]),  # three alike, before a later two
        ([1, 2, 9, 7, 1, 2, 8, 3, 1], [2], 1, [8]),  # the later of two
        ([7, 7, 7], [7], 3, [7]),
        ([3], [], 2, []),
    ],
)
def test_what_followed_the_same_tokens(
    prompt: list[int], text: list[int], count: int, expected: list[int]
) -> None:
    (guess,) = NgramDraft().propose([np.array(prompt)], [text], [count], greedy())
    assert guess.tokens == expected


def test_bad_drafts(small: Gpt | Llama, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tokens must be 1 or more, not 0"):
        NgramDraft(tokens=0)
    with pytest.raises(ValueError, match="longest must be 1 or more, not 0"):
        NgramDraft(longest=0)
    with pytest.raises(TypeError, match="tokens must be an integer, not 1.5"):
        ModelDraft(small, tokens=1.5)  # type: ignore[arg-type]
    other = text_model(tmp_path)
    with pytest.raises(ValueError, match="the draft's model has 330 tokens, and the model that v"):
        small.generate([[1]], 3, draft=ModelDraft(other))
    with pytest.raises(ValueError, match="a draft must begin before it guesses"):
        ModelDraft(small).propose([np.array([1])], [[1]], [1], greedy())


def test_a_step_that_fails_leaves_the_cache_as_it_was(
    small: Gpt | Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    expected = small.generate([[1, 2, 3]], 9)
    cache = small.new_cache(1)
    generation = Speculation(small, [[1, 2, 3]], 9, draft=Oracle(expected, 3, 99), cache=cache)
    generation.step()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Sampler, "probabilities", fail)
        generation.step()
    assert cache.lengths.tolist() == [3]
    assert steps_of(generation) == 2
    assert generation.texts == expected


def test_a_window_needs_slack(tmp_path: Path) -> None:
    model = load(write_folder(tmp_path, "mistral"), "mistral")
    cache = model.new_cache(1, slack=3)
    assert isinstance(cache, na.KVCache)
    with pytest.raises(ValueError, match="the cache has a window and slack 3: guesses of 8 tokens"):
        model.generate([[1]], 3, draft=NgramDraft(), cache=cache)
    assert model.generate([[1]], 3, draft=NgramDraft(3), cache=cache)
    assert model.generate([], 3, draft=ModelDraft(model)) == []
