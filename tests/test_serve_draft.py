"""Tokens that are guessed in the service: the texts are those without guesses, in fewer steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import refused
from numattn.cli import build_parser
from numattn.cli.serve import limits_of
from numattn.models import NgramDraft, Sampler
from numattn.serve import Limits
from numattn.serve.batch import Batch, Written
from numattn.serve.sequence import Sequence
from serving import catalogue_of, metric, post, serving, unused_pages
from tiny_decoders import load, random_ids, write_folder
from tiny_tokenizers import text_model

LIMITS = Limits(pages=40, page_size=4, rows=5, chunk=6, draft=3)


def repeating(rng: np.random.Generator, count: int) -> list[list[int]]:
    """Return prompts in which some tokens come again, so that there is something to guess."""
    parts = [random_ids(rng, int(size)).tolist() for size in rng.integers(2, 9, count)]
    return [part * int(rng.integers(1, 4)) for part in parts]


def run(batch: Batch) -> list[Written]:
    written = []
    while batch.waiting + batch.running:
        written += batch.step()
    assert batch.free_pages + batch.kept_pages == LIMITS.pages
    return written


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(write_folder(tmp_path_factory.mktemp("llama")), "llama")


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("seeded", [False, True])
def test_texts_are_those_without_guesses(
    family: str, seeded: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Greedy ones, and with a seed those that chance makes of it; rows end at any step."""
    model = load(write_folder(tmp_path, family), family)
    prompts, counts = repeating(rng, 12), rng.integers(1, 25, 12).tolist()

    def sampler(number: int) -> Sampler:
        return Sampler(temperature=0.3, seed=number) if seeded else Sampler(temperature=0)

    batch = Batch(model, LIMITS)
    sequences = [
        Sequence(prompt, count, sampler(number))
        for number, (prompt, count) in enumerate(zip(prompts, counts, strict=True))
    ]
    written = []
    for sequence in sequences:
        batch.add(sequence)
        written += batch.step()
    written += run(batch)
    assert all(each.error is None for each in written)
    for number, (prompt, count, sequence) in enumerate(
        zip(prompts, counts, sequences, strict=True)
    ):
        (alone,) = model.generate([prompt], count, sampler=sampler(number), chunk=6)
        assert sequence.text == alone and sequence.finish == "length"
        own = [each for each in written if each.sequence is sequence]
        assert [token for each in own for token in each.tokens] == alone
        assert [each.first for each in own] == [True] + [False] * (len(own) - 1)
        if not seeded:
            draft = NgramDraft(3)
            assert model.generate([prompt], count, draft=draft, chunk=6) == [alone]
    accepted = sum(each.accepted for each in written)
    guessed = sum(each.guessed for each in written)
    assert 0 < accepted <= guessed
    assert accepted < guessed or family in ("gemma2", "gpt2")  # which repeat one token
    assert sum(len(each.tokens) for each in written) == sum(counts) == len(written) + accepted


def test_a_guess_that_ends_the_text(model: Any) -> None:
    """By a token, by whoever watches, by the limit: what was guessed beyond is no part of it."""
    prompt = [5, 6, 7, 8, 9] * 3

    def following(**options: Any) -> Sequence:
        class Chosen:
            def __call__(self, logits: Any, prompts: Any, texts: Any) -> Any:
                return np.array([[5, 6, 7, 8, 9][len(texts[0]) % 5]])

        sequence = Sequence(prompt, options.pop("count", 30), Chosen(), **options)
        batch = Batch(model, LIMITS)
        batch.add(sequence)
        written = run(batch)
        assert max(len(each.tokens) for each in written) == min(4, sequence.new_tokens - 1)
        return sequence

    by_token = following(ends=frozenset([8]))
    assert (by_token.text, by_token.finish) == ([5, 6, 7, 8], "stop")
    seen: list[int] = []

    def watch(token: int) -> bool:
        seen.append(token)
        return len(seen) == 7

    watched = following(watch=watch)
    assert watched.text == seen == [5, 6, 7, 8, 9, 5, 6] and watched.finish == "stop"
    limited = following(count=8)
    assert limited.text == [5, 6, 7, 8, 9, 5, 6, 7] and limited.finish == "length"


def test_guesses_take_no_page_beyond_the_promised(model: Any) -> None:
    """The pool is as large as one text may become, and full when it ends."""
    prompt = [5, 6, 7] * 4
    batch = Batch(model, replace(LIMITS, pages=5, prefixes=0))
    sequence = Sequence(prompt, 9, Sampler(temperature=0))
    batch.add(sequence)
    assert batch.pages_of(sequence) == 5
    while batch.waiting + batch.running:
        assert all(each.error is None for each in batch.step())
    assert sequence.text == model.generate([prompt], 9, chunk=6)[0]


@pytest.mark.parametrize("steps", range(1, 6))
def test_cancelled_with_guesses(model: Any, rng: np.random.Generator, steps: int) -> None:
    prompts = repeating(rng, 6)
    batch = Batch(model, LIMITS)
    sequences = [Sequence(prompt, 12, Sampler(temperature=0)) for prompt in prompts]
    for sequence in sequences:
        batch.add(sequence)
    for _ in range(steps):
        batch.step()
    for sequence in sequences[::2]:
        batch.cancel(sequence)
    run(batch)
    for sequence, prompt in zip(sequences[1::2], prompts[1::2], strict=True):
        assert sequence.text == model.generate([prompt], 12, chunk=6)[0]


def test_a_text_that_is_turned_otherwise_when_it_grows(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """No guess is read across the length at which all is read anew."""
    scaling = {"type": "longrope", "short_factor": [1.0] * 2, "long_factor": [3.0] * 2}
    config = {"rope_scaling": scaling, "original_max_position_embeddings": 20}
    model = load(write_folder(tmp_path, "phi3", config), "phi3")
    batch = Batch(model, LIMITS)
    prompts = [[3, 4, 5] * 2, [7, 8] * 6, random_ids(rng, 10).tolist() * 2, [9, 8, 9] * 7]
    sequences = [Sequence(prompt, 18, Sampler(temperature=0)) for prompt in prompts]
    for sequence in sequences:
        batch.add(sequence)
    written = run(batch)
    assert sum(each.accepted for each in written) > 0
    for sequence, prompt in zip(sequences, prompts, strict=True):
        assert sequence.text == model.generate([prompt], 18, chunk=6)[0]


def test_options_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = build_parser().parse_args(["serve", "--draft", "3", "--prefixes", "0"])
    limits = limits_of(arguments)
    assert (limits.draft, limits.prefixes) == (3, 0)
    assert limits_of(build_parser().parse_args(["serve"])) == Limits()
    assert Limits().draft == 0 and Limits().prefixes > 0
    for option in ("--draft", "--prefixes"):
        assert option in refused(capsys, "serve", option, -1)
        assert option in refused(capsys, "serve", option, "a/folder")


def test_over_http(tmp_path: Path) -> None:
    """Whole and in a stream, beside one another, with counters of what was guessed."""
    limits = Limits(pages=64, page_size=8, rows=6, chunk=16, draft=4)
    model = text_model(tmp_path)
    prompt = [*range(40, 50)] * 3
    (new,) = model.generate([prompt], 60, chunk=16)
    detokenizer = model.detokenizer(prompt)
    text = "".join(map(detokenizer.add, new)) + detokenizer.finish()
    content = {"model": "tiny", "prompt": [prompt, prompt], "temperature": 0, "max_tokens": 60}
    with serving(catalogue_of(tiny=model), limits) as address:
        answer = post(f"{address}/v1/completions", json=content).json()
        assert [each["text"] for each in answer["choices"]] == [text, text]
        assert answer["usage"]["completion_tokens"] == 120
        stream = post(f"{address}/v1/completions", json={**content, "stream": True}).text
        assert stream.endswith("data: [DONE]\n\n")
        guessed = metric(address, "numattn_guessed_tokens_total")
        accepted = metric(address, "numattn_accepted_tokens_total")
        assert 0 < accepted <= guessed
        assert metric(address, "numattn_new_tokens_total") == 240
        assert metric(address, "numattn_prompt_tokens_total") == 4 * len(prompt)
        assert unused_pages(address) == limits.pages
