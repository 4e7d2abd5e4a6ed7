"""Texts that are kept: what prompts have in common is read once, and pages are given back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numattn as na
from numattn.models import Gpt, Llama, NgramDraft, Sampler
from numattn.models.decoders.prefix_cache import PrefixCache
from tiny_decoders import load, random_ids, write_folder
from tiny_tokenizers import text_model

FAMILIES = ["llama", "mistral", "gemma2", "gpt2"]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Gpt | Llama:
    family = str(request.param)
    return load(write_folder(tmp_path_factory.mktemp(family), family), family)


def test_texts_are_the_same_and_less_is_read(model: Gpt | Llama, rng: np.random.Generator) -> None:
    system = random_ids(rng, 21).tolist()
    prompts = [[*system, *random_ids(rng, size).tolist()] for size in (5, 1, 9, 3)]
    expected = [model.generate([prompt], 10)[0] for prompt in prompts]
    prefixes = model.new_prefix_cache(pages=60, page_size=4)
    assert [model.generate([p], 10, prefixes=prefixes)[0] for p in prompts] == expected
    assert prefixes.reused == 3 * 21
    assert prefixes.read == 21 + sum(len(prompt) - 21 for prompt in prompts)
    # Each again is all there but its last token; and all at once.
    read = prefixes.read
    assert model.generate(prompts, 10, prefixes=prefixes) == expected
    assert prefixes.read == read + 4
    assert len(prefixes) == 4


def test_a_chat_goes_on(model: Gpt | Llama, rng: np.random.Generator) -> None:
    """The answer is kept, too: of the next turn only what is new is read."""
    prefixes = model.new_prefix_cache(pages=60, page_size=4)
    text = random_ids(rng, 9).tolist()
    for turn in range(4):
        before = prefixes.read
        (answer,) = model.generate([text], 5, prefixes=prefixes)
        assert model.generate([text], 5) == [answer]
        # The last token of an answer has not been read.
        assert prefixes.read - before == (9 if turn == 0 else 4)
        text += [*answer, *random_ids(rng, 3).tolist()]
    assert len(prefixes) == 1  # each turn contains the one before


def test_pages_are_shared_and_given_back(model: Gpt | Llama, rng: np.random.Generator) -> None:
    prefixes = model.new_prefix_cache(pages=40, page_size=4)
    system = random_ids(rng, 16).tolist()
    for _ in range(3):
        model.generate([[*system, *random_ids(rng, 2).tolist()]], 3, prefixes=prefixes)
    assert prefixes.free_pages == 40 - 4 - 3 * 1
    prefixes.clear()
    assert (prefixes.free_pages, len(prefixes)) == (40, 0)


def test_the_text_used_longest_ago_gives_way(model: Gpt | Llama, rng: np.random.Generator) -> None:
    prefixes = model.new_prefix_cache(pages=12, page_size=4)
    prompts = [random_ids(rng, 12).tolist() for _ in range(4)]
    expected = [model.generate([prompt], 5)[0] for prompt in prompts]
    for _ in range(2):
        for prompt, text in zip(prompts, expected, strict=True):
            assert model.generate([prompt], 5, prefixes=prefixes) == [text]
            assert len(prefixes) <= 3
    assert prefixes.reused == 0  # each had gone when it came again
    model.generate([prompts[2]], 5, prefixes=prefixes)
    assert prefixes.reused == 11
    few = model.new_prefix_cache(pages=60, page_size=4, texts=2)
    for prompt in prompts:
        model.generate([prompt], 5, prefixes=few)
    assert len(few) == 2


def test_too_few_pages(model: Gpt | Llama, rng: np.random.Generator) -> None:
    """All that is kept gives way first; and afterwards all pages are free, or kept again."""
    prefixes = model.new_prefix_cache(pages=5, page_size=4)
    prompt = random_ids(rng, 8).tolist()
    model.generate([prompt], 3, prefixes=prefixes)
    with pytest.raises(MemoryError, match="out of pages"):
        model.generate([random_ids(rng, 30).tolist()], 3, prefixes=prefixes)
    assert (prefixes.free_pages, len(prefixes)) == (5, 0)
    with pytest.raises(MemoryError, match="out of pages"):
        model.generate([prompt], 80, prefixes=prefixes)
    (text,) = model.generate([prompt], 6, prefixes=prefixes)
    assert model.generate([prompt], 6) == [text]


def test_with_guesses_samplers_and_chunks(model: Gpt | Llama, rng: np.random.Generator) -> None:
    prompts = [[*range(1, 15), *random_ids(rng, 4).tolist()] for _ in range(2)]
    ways: list[dict[str, Any]] = [
        {"draft": NgramDraft(3)}, {"chunk": 2},
        {"sampler": Sampler(temperature=0, repetition_penalty=1.4)},
    ]  # fmt: skip
    for way in ways:
        expected = model.generate(prompts, 12, **way)
        prefixes = model.new_prefix_cache(pages=60, page_size=4)
        for _ in range(2):
            assert model.generate(prompts, 12, prefixes=prefixes, **way) == expected
        assert prefixes.reused > 0
    stop = expected[0][4]
    expected = model.generate(prompts, 12, stop=stop)
    assert model.generate(prompts, 12, stop=stop, prefixes=prefixes) == expected


def test_integers_are_kept_as_well(model: Gpt | Llama, rng: np.random.Generator) -> None:
    prompt = random_ids(rng, 20).tolist()
    cache = model.new_paged_cache(1, pages=20, page_size=4, storage="int8")
    expected = model.generate([prompt], 8, cache=cache)
    prefixes = model.new_prefix_cache(pages=20, page_size=4, storage="int8")
    for _ in range(2):
        assert model.generate([prompt], 8, prefixes=prefixes) == expected
    assert prefixes.reused == 19


def test_texts_and_streams(tmp_path: Path) -> None:
    model = text_model(tmp_path)
    expected = model.generate_text("the cat sat", 20)
    prefixes = model.new_prefix_cache(pages=40, page_size=4)
    assert model.generate_text("the cat sat", 20, prefixes=prefixes) == expected
    assert "".join(model.stream("the cat sat", 20, prefixes=prefixes)) == expected.text
    assert prefixes.reused == expected.prompt_tokens - 1
    stream = model.stream("the cat sat on the mat and", 20, prefixes=prefixes)
    next(stream)
    kept = len(prefixes)
    stream.close()
    assert len(prefixes) == kept + 1 and list(stream) == []
    stream = model.stream("a dog", 20, prefixes=prefixes)
    next(stream)
    free = prefixes.free_pages
    del stream
    assert len(prefixes) == kept + 2 and prefixes.free_pages == free
    for bad in ({"stop": ""}, {"ends": "x"}):
        free = prefixes.free_pages
        with pytest.raises((TypeError, ValueError)):
            model.stream("another text", 20, prefixes=prefixes, **bad)
        assert prefixes.free_pages == free


def test_nothing_is_kept_of_texts_that_turn_with_their_length(tmp_path: Path) -> None:
    scaling = {"type": "longrope", "short_factor": [1.0] * 2, "long_factor": [4.0] * 2}
    config = {"rope_scaling": scaling, "original_max_position_embeddings": 8}
    model = load(write_folder(tmp_path, "phi3", config), "phi3")
    prefixes = model.new_prefix_cache(pages=40, page_size=4)
    expected = model.generate([[1, 2, 3, 4, 5]], 12)
    for _ in range(2):
        assert model.generate([[1, 2, 3, 4, 5]], 12, prefixes=prefixes) == expected
    assert (prefixes.reused, len(prefixes), prefixes.free_pages) == (0, 0, 40)


def test_bad_arguments(model: Gpt | Llama) -> None:
    with pytest.raises(ValueError, match="texts must be 1 or more, not 0"):
        model.new_prefix_cache(pages=4, texts=0)
    pool = model.new_paged_cache(1, pages=4)
    model([[1]], cache=pool)
    with pytest.raises(ValueError, match="the pool of a prefix cache must be empty"):
        PrefixCache(pool)
    with pytest.raises(ValueError, match="whole must be 1 or more, not 0"):
        PrefixCache(model.new_paged_cache(1, pages=4), whole=0)
    prefixes = model.new_prefix_cache(pages=4)
    with pytest.raises(ValueError, match="give a cache or prefixes, not both"):
        model.generate([[1]], 3, cache=model.new_cache(1), prefixes=prefixes)
    assert model.generate([], 3, prefixes=prefixes) == []
    assert model.generate([[1]], 0, prefixes=prefixes) == [[]]


def test_gathered_rows() -> None:
    cache = na.PagedKVCache(1, batch=2, kv_heads=1, head_dim=1, pages=6, page_size=2)

    def held(of: na.PagedKVCache, row: int) -> list[float]:
        pages = of.append(0, *np.zeros((2, of.batch, 1, 0, 1), np.float32))
        keys = np.asarray(pages.k_pages)[pages.block_table[row]].reshape(-1)
        return keys[: int(of.lengths[row])].tolist()

    tokens = np.array([[1, 2, 3], [4, 5, 6]], np.float32).reshape(2, 1, 3, 1)
    cache.append(0, tokens, tokens)
    other = cache.gather([(cache, 1), (cache, 0), (cache, 1)])
    assert cache.free_pages == other.free_pages == 2
    other.truncate([2, 3, 3])
    new = np.array([7, 8, 9], np.float32).reshape(3, 1, 1, 1)
    with pytest.raises(MemoryError, match="out of pages: 3 more are needed, and 2"):
        other.append(0, new, new)
    other.truncate([2, 3, 0])
    other.append(0, new, new, counts=[1, 1, 0])
    assert [held(other, row) for row in range(3)] == [[4, 5, 7], [1, 2, 3, 8], []]
    assert [held(cache, row) for row in range(2)] == [[1, 2, 3], [4, 5, 6]]
    third = other.gather([(cache, 0), (other, 0)])
    cache.truncate(0)
    assert [held(third, row) for row in range(2)] == [[1, 2, 3], [4, 5, 7]]
    other.truncate(0)
    third.truncate(0)
    assert third.free_pages == 6
    stranger = na.PagedKVCache(1, batch=1, kv_heads=1, head_dim=1, pages=6, page_size=2)
    for rows, message in (
        ([], "rows must name one or more"),
        ([(stranger, 0)], "rows must be of caches of one pool"),
        ([(None, 0)], "rows must be of caches of one pool"),
        ([(cache, 2)], "there is no row 2 in a cache of 2"),
        ([(cache, -1)], "there is no row -1 in a cache of 2"),
    ):
        bad: Any = rows
        with pytest.raises(ValueError, match=message):
            cache.gather(bad)
