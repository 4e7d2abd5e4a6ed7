"""Texts written together: each as if it were alone, admitted by pages, and gone when cancelled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numattn.models import Sampler
from numattn.serve import Limits
from numattn.serve.batch import Batch, Written
from numattn.serve.sequence import Sequence
from tiny_decoders import FAMILIES, load, random_ids, write_folder

LIMITS = Limits(pages=40, page_size=4, rows=5, chunk=6)


def greedy(prompt: list[int], count: int, **options: Any) -> Sequence:
    return Sequence(prompt, count, Sampler(temperature=0), **options)


def some_prompts(rng: np.random.Generator, count: int = 12) -> list[list[int]]:
    return [random_ids(rng, int(size)).tolist() for size in rng.integers(1, 30, count)]


def run(batch: Batch) -> list[Written]:
    written = []
    while batch.waiting + batch.running:
        written += batch.step()
        assert batch.running <= LIMITS.rows
    return written


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(write_folder(tmp_path_factory.mktemp("llama")), "llama")


@pytest.mark.parametrize("family", FAMILIES)
def test_each_text_is_what_generate_writes(
    family: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Texts come and go at any step; all pages are free at the end, or kept."""
    model = load(write_folder(tmp_path, family), family)
    batch = Batch(model, LIMITS)
    prompts, counts = some_prompts(rng), rng.integers(1, 20, 12).tolist()
    sequences = [greedy(prompt, count) for prompt, count in zip(prompts, counts, strict=True)]
    for sequence in sequences:
        batch.add(sequence)
        batch.step()
    written = run(batch)
    assert all(each.error is None for each in written)
    for sequence, prompt, count in zip(sequences, prompts, counts, strict=True):
        expected = model.generate([prompt], count, chunk=LIMITS.chunk)[0]
        assert sequence.tokens == prompt + expected
        assert sequence.finish == "length" and sequence.new_tokens == count
    assert batch.free_pages + batch.kept_pages == LIMITS.pages


def test_a_text_that_is_turned_otherwise_when_it_grows(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """LongRoPE: what has been read is read anew."""
    pairs = 2  # of 8 channels half turn
    scaling = {
        "type": "longrope", "short_factor": [1.0] * pairs, "long_factor": [3.0] * pairs,
    }  # fmt: skip
    config = {"rope_scaling": scaling, "original_max_position_embeddings": 20}
    model = load(write_folder(tmp_path, "phi3", config), "phi3")
    assert model.switch_length == 20
    batch = Batch(model, LIMITS)
    prompts = [random_ids(rng, size).tolist() for size in (5, 12, 20, 21, 30)]
    sequences = [greedy(prompt, 18) for prompt in prompts]
    for sequence in sequences:
        batch.add(sequence)
    run(batch)
    for sequence, prompt in zip(sequences, prompts, strict=True):
        assert sequence.tokens == prompt + model.generate([prompt], 18, chunk=6)[0]
    assert batch.free_pages + batch.kept_pages == LIMITS.pages


def test_samplers_are_each_texts_own(model: Any, rng: np.random.Generator) -> None:
    prompts = some_prompts(rng, 6)
    batch = Batch(model, LIMITS)
    sequences = [Sequence(prompt, 10, Sampler(seed=seed)) for seed, prompt in enumerate(prompts)]
    for sequence in sequences:
        batch.add(sequence)
    run(batch)
    for seed, (sequence, prompt) in enumerate(zip(sequences, prompts, strict=True)):
        alone = model.generate([prompt], 10, sampler=Sampler(seed=seed), chunk=LIMITS.chunk)
        assert sequence.tokens == prompt + alone[0]


def test_ends(model: Any, rng: np.random.Generator) -> None:
    """By a token, which stays, or as whoever watches says."""
    prompt = random_ids(rng, 9).tolist()
    expected = model.generate([prompt], 12)[0]
    place = expected.index(expected[5])
    by_token = greedy(prompt, 12, ends=frozenset([expected[5]]))
    seen: list[int] = []

    def watch(token: int) -> bool:
        seen.append(token)
        return len(seen) == 3

    watched = greedy(prompt, 12, watch=watch)
    batch = Batch(model, LIMITS)
    batch.add(by_token)
    batch.add(watched)
    run(batch)
    assert (by_token.finish, watched.finish) == ("stop", "stop")
    assert by_token.tokens[9:] == expected[: place + 1]
    assert watched.tokens[9:] == seen == expected[:3]
    assert batch.free_pages + batch.kept_pages == LIMITS.pages


def test_admission_by_pages_and_rows(model: Any) -> None:
    """In the order in which they came: a small text does not pass a large one."""
    batch = Batch(model, LIMITS)
    large, larger, small = greedy([1] * 60, 41), greedy([2] * 60, 41), greedy([3], 4)
    for sequence in (large, larger, small):
        batch.add(sequence)
    assert batch.pages_of(large) == 25
    batch.step()
    assert (batch.running, batch.waiting) == (1, 2)
    batch.cancel(large)
    batch.step()
    assert (batch.running, batch.waiting) == (2, 0)
    for number in range(5):
        batch.add(greedy([number], 4))
    batch.step()
    assert (batch.running, batch.waiting) == (5, 2)
    run(batch)
    assert batch.free_pages + batch.kept_pages == LIMITS.pages and small.finish == "length"


def test_what_never_fits(model: Any) -> None:
    batch = Batch(model, LIMITS)
    batch.add(greedy([1] * 100, 61))  # whose last token is not read
    with pytest.raises(ValueError, match="takes 41 pages of 4 tokens, and there are 40"):
        batch.add(greedy([1] * 100, 62))


@pytest.mark.parametrize("steps", range(0, 9))
def test_cancelled_wherever_it_stands(model: Any, rng: np.random.Generator, steps: int) -> None:
    """Its pages are free at once, and the others go on as if it had never been."""
    prompts = some_prompts(rng, 7)
    batch = Batch(model, replace(LIMITS, prefixes=0))
    sequences = [greedy(prompt, 8) for prompt in prompts]
    for sequence in sequences:
        batch.add(sequence)
    for _ in range(steps):
        batch.step()
    gone = sequences[::2]
    for sequence in gone:
        batch.cancel(sequence)
        batch.cancel(sequence)
    lengths = [each.read for each in sequences[1::2] if each.read and each.finish is None]
    assert batch.free_pages == LIMITS.pages - sum(-(-length // 4) for length in lengths)
    run(batch)
    for sequence, prompt in zip(sequences[1::2], prompts[1::2], strict=True):
        assert sequence.tokens == prompt + model.generate([prompt], 8, chunk=LIMITS.chunk)[0]
    assert batch.free_pages + batch.kept_pages == LIMITS.pages


def test_all_dropped(model: Any, rng: np.random.Generator) -> None:
    batch = Batch(model, LIMITS)
    sequences = [greedy(prompt, 8) for prompt in some_prompts(rng, 9)]
    for sequence in sequences:
        batch.add(sequence)
    for _ in range(4):
        batch.step()
    left = [sequence for sequence in sequences if sequence.finish is None]
    assert {*map(id, batch.drop())} == {*map(id, left)}
    assert (batch.waiting, batch.running, batch.free_pages) == (0, 0, LIMITS.pages)


@pytest.mark.parametrize("count", [1, 4])
def test_a_sampler_that_fails_is_its_own_texts_fault(
    model: Any, rng: np.random.Generator, count: int
) -> None:
    calls = 0

    def failing(logits: Any, prompts: Any, texts: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            raise ValueError("this one")
        return np.array([7])

    prompt = random_ids(rng, 9).tolist()
    batch = Batch(model, LIMITS)
    bad, good = Sequence(prompt, 8, failing), greedy(prompt, 8)
    batch.add(bad)
    batch.add(good)
    errors = [each for each in run(batch) if each.error is not None]
    assert [each.sequence for each in errors] == [bad]
    assert good.tokens == prompt + model.generate([prompt], 8, chunk=LIMITS.chunk)[0]
    assert batch.free_pages + batch.kept_pages == LIMITS.pages


@pytest.mark.parametrize(
    ("fails_at", "expected"), [({1}, 0), ({1, 2}, 1), ({1, 2, 3}, 2), ({3}, 2)]
)
def test_a_model_that_fails_leaves_no_page_taken(
    model: Any, rng: np.random.Generator, fails_at: set[int], expected: int
) -> None:
    """Prompts that were read together are read alone then; a step that fails ends its texts."""

    class Failing:
        switch_length, depends_on_length = None, False
        new_paged_cache = model.new_paged_cache
        calls = 0

        def __call__(self, *arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls in fails_at:
                raise MemoryError("none is left")
            return model(*arguments, **options)

    batch: Any = Batch(Failing(), LIMITS)  # type: ignore[arg-type]
    sequences = [greedy(random_ids(rng, size).tolist(), 8) for size in (5, 6)]
    for sequence in sequences:
        batch.add(sequence)
    errors = [each for each in run(batch) if each.error is not None]
    assert len(errors) == expected
    assert all(isinstance(each.error, MemoryError) for each in errors)
    for sequence in sequences:
        if all(each.sequence is not sequence for each in errors):
            (new,) = model.generate([sequence.prompt], 8, chunk=LIMITS.chunk)
            assert sequence.text == new
    assert batch.free_pages == LIMITS.pages


def test_short_prompts_are_read_together(model: Any, rng: np.random.Generator) -> None:
    """In one call, a chunk's worth of tokens or little more; each as it is read alone."""

    class Counting:
        switch_length, depends_on_length = None, False
        new_paged_cache = model.new_paged_cache

        def __init__(self) -> None:
            self.read: list[list[int]] = []

        def __call__(self, ids: Any, counts: Any = None, **options: Any) -> Any:
            if "text_lengths" in options:  # of prompts
                self.read.append(counts.tolist())
            return model(ids, counts, **options)

    counting = Counting()
    batch: Any = Batch(counting, replace(LIMITS, chunk=10))  # type: ignore[arg-type]
    prompts = [random_ids(rng, size).tolist() for size in (4, 3, 14, 9, 2)]
    sequences = [greedy(prompt, 5) for prompt in prompts]
    for sequence in sequences:
        batch.add(sequence)
    run(batch)
    assert counting.read == [[4, 3, 10], [4, 9], [2]]
    for sequence, prompt in zip(sequences, prompts, strict=True):
        assert sequence.tokens == prompt + model.generate([prompt], 5, chunk=10)[0]
