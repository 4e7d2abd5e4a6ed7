"""Beginnings that prompts have in common are read once, with the bits that each would read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from numattn.models import Llama
from numattn.serve import Limits
from numattn.serve.batch import Batch
from numattn.serve.sequence import Sequence
from serving import catalogue_of, metric, post, serving, unused_pages
from tiny_decoders import FAMILIES, load, random_ids, write_folder
from tiny_tokenizers import text_model

LIMITS = Limits(pages=40, page_size=4, rows=5, chunk=8)


class Recorded(Sequence):
    """A text of likeliest tokens that notes the logits of each."""

    def __init__(self, prompt: list[int], count: int) -> None:
        super().__init__(prompt, count, self._likeliest)
        self.logits: list[NDArray[Any]] = []

    def _likeliest(self, logits: NDArray[Any], prompts: Any, texts: Any) -> NDArray[np.int64]:
        self.logits.append(logits[0].copy())
        return logits.argmax(axis=1)


def run(batch: Batch) -> None:
    while batch.waiting + batch.running:
        assert all(each.error is None for each in batch.step())


def written_alone(model: Any, prompt: list[int], count: int, limits: Limits = LIMITS) -> Recorded:
    """Return a text as a batch writes it that keeps nothing and has no other."""
    batch, sequence = Batch(model, replace(limits, prefixes=0)), Recorded(prompt, count)
    batch.add(sequence)
    run(batch)
    assert sequence.reused == 0 and batch.kept_pages == 0
    return sequence


def assert_same(sequence: Recorded, alone: Recorded) -> None:
    assert sequence.tokens == alone.tokens
    for one, other in zip(sequence.logits, alone.logits, strict=True):
        assert one.tobytes() == other.tobytes()


def prompts_alike(rng: np.random.Generator, count: int) -> list[list[int]]:
    """Return prompts that begin with one of two beginnings, or a part of it."""
    systems = [random_ids(rng, 30).tolist() for _ in range(2)]
    return [
        [
            *systems[int(rng.integers(2))][: int(rng.integers(31))],
            *random_ids(rng, int(rng.integers(1, 12))).tolist(),
        ]
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(write_folder(tmp_path_factory.mktemp("llama")), "llama")


@pytest.mark.parametrize(
    ("family", "draft"), [*((family, 0) for family in FAMILIES), ("llama", 3), ("gpt2", 3)]
)
def test_logits_have_the_bits_that_they_have_alone(
    family: str, draft: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Whoever has read a beginning, whatever gives way to others, whoever is cancelled."""
    model, limits = load(write_folder(tmp_path, family), family), replace(LIMITS, draft=draft)
    batch = Batch(model, limits)
    prompts, counts = prompts_alike(rng, 24), rng.integers(1, 20, 24).tolist()
    sequences = [Recorded(prompt, count) for prompt, count in zip(prompts, counts, strict=True)]
    gone: list[Recorded] = []
    for number, sequence in enumerate(sequences):
        batch.add(sequence)
        batch.step()
        if number % 5 == 3:
            gone.append(sequences[number - 1])
            batch.cancel(gone[-1])
    run(batch)
    assert sum(each.reused for each in sequences) > 0
    for sequence, prompt, count in zip(sequences, prompts, counts, strict=True):
        assert sequence.reused % 8 == 0 and sequence.reused < len(prompt)
        if sequence not in gone:
            assert_same(sequence, written_alone(model, prompt, count, limits))
    assert batch.kept_pages > 0 and batch.free_pages + batch.kept_pages == LIMITS.pages
    batch.drop()
    assert (batch.free_pages, batch.kept_pages) == (LIMITS.pages, 0)


def test_whole_chunks_are_reused(model: Any, rng: np.random.Generator) -> None:
    """Of a chunk of 8 tokens and pages of 4; a prompt's last token is always read."""
    batch = Batch(model, LIMITS)
    system = random_ids(rng, 24).tolist()

    def reused(prompt: list[int]) -> int:
        sequence = Recorded(prompt, 2)
        batch.add(sequence)
        run(batch)
        assert_same(sequence, written_alone(model, prompt, 2))
        return sequence.reused

    assert reused(system[:20]) == 0  # keeps 16
    assert batch.kept_pages == 4
    assert reused(system) == 16  # keeps 24, which contain the 16
    assert batch.kept_pages == 6
    assert reused(system) == 16  # of 24 the last is to be read
    assert reused([*system, 1]) == 24
    assert reused([*system[:15], system[15] ^ 1, *system[16:]]) == 8
    assert reused([system[0] ^ 1, *system[1:]]) == 0
    assert batch.kept_pages == 6 + 4 + 6


def test_a_text_reads_what_the_one_before_it_has_just_read(
    model: Any, rng: np.random.Generator
) -> None:
    """Both came at once; the second reuses what is kept by the time it is its turn."""
    batch = Batch(model, LIMITS)
    system = random_ids(rng, 16).tolist()
    one, other = Recorded([*system, 1, 2], 9), Recorded([*system, 3], 9)
    batch.add(one)
    batch.add(other)
    run(batch)
    assert (one.reused, other.reused) == (0, 16)
    assert_same(other, written_alone(model, other.prompt, 9))


def test_pages_that_are_needed_are_taken_from_the_prompt_used_longest_ago(
    model: Any, rng: np.random.Generator
) -> None:
    batch = Batch(model, replace(LIMITS, pages=10))
    first, second, third = (random_ids(rng, 17).tolist() for _ in range(3))

    def reused(prompt: list[int], count: int = 2) -> int:
        sequence = Recorded(prompt, count)
        batch.add(sequence)
        run(batch)
        return sequence.reused

    assert [reused(each) for each in (first, second)] == [0, 0]
    assert (batch.kept_pages, batch.free_pages) == (8, 2)
    assert reused(first) == 16
    assert reused(third) == 0  # for which the second gives way
    assert reused(first) == 16
    assert batch.kept_pages == 8
    assert reused(second, 24) == 0  # which comes to need all pages: 16 + 24 tokens are read
    assert (batch.kept_pages, batch.free_pages) == (4, 6)
    assert reused(second) == 16


@pytest.mark.parametrize(("pages", "prefixes", "most"), [(28, 9, 4), (28, 0, 2), (27, 9, 3)])
def test_pages_that_are_shared_are_promised_once(
    model: Any, rng: np.random.Generator, pages: int, prefixes: int, most: int
) -> None:
    """Of 11 pages of a text 8 are shared: n texts have 8 + 3·n; one more is admitted with 11."""
    batch = Batch(model, replace(LIMITS, pages=pages, prefixes=prefixes))
    system = random_ids(rng, 32).tolist()
    sequences = [Recorded([*system, number], 12) for number in range(6)]
    for sequence in sequences:
        assert batch.pages_of(sequence) == 11
        batch.add(sequence)
    running = []
    while batch.waiting + batch.running:
        assert all(each.error is None for each in batch.step())
        running.append(batch.running)
    assert max(running) == most
    assert [each.reused for each in sequences] == [0, *[32 if prefixes else 0] * 5]
    for sequence in sequences:
        assert_same(sequence, written_alone(model, sequence.prompt, 12))


@pytest.mark.parametrize("seed", range(8))
def test_a_pool_that_is_full_lacks_no_page(model: Any, seed: int) -> None:
    """Texts that share, are cancelled, guess and end at any time, in a pool of few pages."""
    rng = np.random.default_rng(seed)
    limits = replace(LIMITS, pages=int(rng.integers(11, 24)), draft=int(rng.integers(4)))
    batch = Batch(model, limits)
    systems = [random_ids(rng, 24).tolist() for _ in range(2)]
    sequences: list[Recorded] = []
    for number in range(40):
        head = systems[int(rng.integers(2))][: 8 * int(rng.integers(4))]
        sequences.append(Recorded([*head, *random_ids(rng, 3).tolist()], int(rng.integers(1, 17))))
        batch.add(sequences[-1])
        for _ in range(int(rng.integers(3))):
            assert all(each.error is None for each in batch.step())
        if number % 4 == 0:
            batch.cancel(sequences[int(rng.integers(len(sequences)))])
    run(batch)
    assert batch.free_pages + batch.kept_pages == limits.pages
    batch.drop()
    assert batch.free_pages == limits.pages


@pytest.mark.parametrize("steps", range(8))
def test_cancelled_while_it_shares(model: Any, rng: np.random.Generator, steps: int) -> None:
    batch = Batch(model, LIMITS)
    system = random_ids(rng, 24).tolist()
    sequences = [Recorded([*system, number, number], 6) for number in range(3)]
    for sequence in sequences:
        batch.add(sequence)
    for _ in range(steps):
        batch.step()
    for sequence in sequences[::2]:
        batch.cancel(sequence)
    run(batch)
    assert_same(sequences[1], written_alone(model, sequences[1].prompt, 6))
    assert batch.kept_pages == 6 and batch.free_pages == LIMITS.pages - 6


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_nothing_is_kept_of_texts_that_turn_with_their_length(
    tmp_path: Path, rng: np.random.Generator, kind: str
) -> None:
    scaling: dict[str, Any] = {"rope_type": "dynamic", "factor": 2.0}
    config: dict[str, Any] = {"rope_scaling": scaling, "max_position_embeddings": 16}
    family = "llama"
    if kind == "longrope":
        scaling = {"type": kind, "short_factor": [1.0] * 2, "long_factor": [3.0] * 2}
        config = {"rope_scaling": scaling, "original_max_position_embeddings": 16}
        family = "phi3"
    model = load(write_folder(tmp_path, family, config), family)
    assert model.depends_on_length
    batch = Batch(model, LIMITS)
    system = random_ids(rng, 24).tolist()
    for size in (10, 24, 20):
        sequence = Recorded([*system[:size], 1, 2], 5)
        batch.add(sequence)
        run(batch)
        assert_same(sequence, written_alone(model, sequence.prompt, 5))
        assert (sequence.reused, batch.kept_pages) == (0, 0)


# --- over HTTP ------------------------------------------------------------------------------------

SERVED = Limits(pages=64, page_size=8, rows=6, chunk=16)
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    folder = tmp_path_factory.mktemp("text")
    return text_model(folder, tokenizer_config={"chat_template": TEMPLATE})


@pytest.fixture
def service(texts: Llama) -> Iterator[str]:
    with serving(catalogue_of(tiny=texts), SERVED) as address:
        yield address
        assert unused_pages(address) == SERVED.pages


def test_usage_and_metrics(service: str, texts: Llama) -> None:
    def usage(prompt: Any) -> dict[str, Any]:
        content = {"model": "tiny", "prompt": prompt, "temperature": 0, "max_tokens": 4}
        response = post(f"{service}/v1/completions", json=content)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()["usage"]
        return found

    prompt = [*range(40)]
    assert usage(prompt)["prompt_tokens_details"] == {"cached_tokens": 0}
    again = usage(prompt)
    assert again["prompt_tokens_details"] == {"cached_tokens": 32}
    assert (again["prompt_tokens"], again["total_tokens"]) == (40, 44)
    several = usage([prompt, [*prompt[:20], 7], [9] * 20])
    assert several["prompt_tokens_details"] == {"cached_tokens": 32 + 16}
    assert metric(service, "numattn_reused_tokens_total") == 32 + 32 + 16
    assert metric(service, "numattn_prompt_tokens_total") == 40 + 40 + 81
    assert metric(service, "numattn_kept_pages") == 4 + 2


def test_nothing_is_kept_where_the_limit_says_so(texts: Llama) -> None:
    with serving(catalogue_of(tiny=texts), replace(SERVED, prefixes=0)) as address:
        for _ in range(2):
            content = {"model": "tiny", "prompt": [*range(40)], "max_tokens": 4}
            usage = post(f"{address}/v1/completions", json=content).json()["usage"]
            assert usage["prompt_tokens_details"] == {"cached_tokens": 0}
        assert metric(address, "numattn_kept_pages") == 0
        assert metric(address, "numattn_free_pages") == SERVED.pages


def test_a_chat_of_openais_client_goes_on(service: str, texts: Llama) -> None:
    """Each turn reads what is new, and the chunk in which the one before ended."""
    openai = pytest.importorskip("openai")
    messages: list[dict[str, str]] = [{"role": "system", "content": "the cat sat on the mat"}]
    before = 0
    with openai.OpenAI(base_url=f"{service}/v1", api_key="any", max_retries=0) as client:
        for _ in range(3):
            messages.append({"role": "user", "content": "and the dog"})
            wanted: Any = {
                "model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 5,
            }  # fmt: skip
            ids = texts.chat_prompt(messages)
            stream = client.chat.completions.create(
                **wanted, stream=True, stream_options={"include_usage": True}
            )
            last = [*stream][-1]
            assert last.usage.prompt_tokens == len(ids)
            assert last.usage.prompt_tokens_details.cached_tokens == before // 16 * 16
            answer = client.chat.completions.create(**wanted)
            told = answer.choices[0].message.content
            (new,) = texts.generate([ids], 5, chunk=SERVED.chunk)
            assert told == texts.detokenize(new)
            cached = (len(ids) - 1) // 16 * 16
            assert answer.usage.prompt_tokens_details.cached_tokens == cached
            messages.append({"role": "assistant", "content": told})
            before = len(ids)
    assert before > 64
