"""Guesses that branch: verified in one step, as each path is by itself; one path is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import numattn as na
from numattn.cache import Cache
from numattn.models import Gpt, Llama, NgramDraft, Sampler
from numattn.models.decoders.speculation import Guess, Speculation, chain_of
from numattn.models.sampling import greedy
from tiny_decoders import VOCABULARY, load, random_ids, write_folder

# Families without windows, in which trees are verified.
FAMILIES = ["llama", "llama3", "qwen2", "mixtral", "olmo2", "gpt2", "gpt_neox"]
MOST = 30
Ids = NDArray[np.int64]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Gpt | Llama:
    family = str(request.param)
    return load(write_folder(tmp_path_factory.mktemp(family), family), family)


def caches(model: Gpt | Llama, batch: int) -> dict[str, Cache]:
    return {
        "contiguous": model.new_cache(batch),
        "paged": model.new_paged_cache(batch, pages=60, page_size=3),
        "int8": model.new_cache(batch, storage="int8"),
    }


def random_parents(rng: np.random.Generator, size: int) -> list[int]:
    return [int(rng.integers(-1, place)) for place in range(size)]


def path_to(parents: Sequence[int], node: int) -> list[int]:
    path: list[int] = []
    while node >= 0:
        path.insert(0, node)
        node = parents[node]
    return path


# --- a step of the model --------------------------------------------------------------------------


def test_logits_are_those_of_each_path_alone(model: Gpt | Llama, rng: np.random.Generator) -> None:
    """Rows of several lengths and trees of several sizes; one is a chain, one has no token."""
    prompts = [random_ids(rng, size).tolist() for size in (7, 1, 12, 4, 3)]
    trees = [random_parents(rng, size) for size in (6, 9, 1, 5)] + [[]]
    trees[3] = [-1, 0, 1, 2, 3]
    counts = [len(tree) for tree in trees]
    ids = rng.integers(0, VOCABULARY, (5, 9))
    parents = np.zeros((5, 9), np.int64)
    for row, tree in zip(parents, trees, strict=True):
        row[: len(tree)] = tree
    for kind, cache in caches(model, 5).items():
        model(*padded(prompts), cache=cache)
        logits = model(ids, counts, cache=cache, parents=parents)
        assert cache.lengths.tolist() == [8 - 1 + 6, 1 + 9, 12 + 1, 4 + 5, 3]
        for row, (prompt, tree) in enumerate(zip(prompts, trees, strict=True)):
            for node in range(len(tree)):
                path = path_to(tree, node)
                own = caches(model, 1)[kind]
                model([prompt], cache=own)
                alone = model([ids[row, path].tolist()], cache=own)[0, -1]
                np.testing.assert_allclose(logits[row, node], alone, rtol=0, atol=2e-5)
                # A path that is not the token's own gives something else.
                if tree[node] >= 0 and ids[row, path[0]] != ids[row, node]:
                    other = model([[*prompt, int(ids[row, node])]])[0, -1]
                    assert np.abs(logits[row, node] - other).max() > 2e-4


def padded(lists: Sequence[Sequence[int]]) -> tuple[Ids, list[int]]:
    lengths = [len(each) for each in lists]
    ids = np.zeros((len(lists), max(lengths)), np.int64)
    for row, each in zip(ids, lists, strict=True):
        row[: len(each)] = each
    return ids, lengths


def test_a_chain_of_parents_has_the_bits_of_none(
    model: Gpt | Llama, rng: np.random.Generator
) -> None:
    """As nothing is hidden but what comes later."""
    ids = rng.integers(0, VOCABULARY, (2, 5))
    own, other = model.new_cache(2), model.new_cache(2)
    model([[3, 4], [5, 6]], cache=own)
    model([[3, 4], [5, 6]], cache=other)
    logits = model(ids, cache=own, parents=np.tile(np.arange(-1, 4), (2, 1)))
    assert logits.tobytes() == model(ids, cache=other).tobytes()


def test_a_path_that_is_kept_goes_on_as_if_it_had_been_read(
    model: Gpt | Llama, rng: np.random.Generator
) -> None:
    prompts = [random_ids(rng, size).tolist() for size in (5, 2)]
    tree = [-1, 0, 0, 1, 2, 2, 5]
    ids, paths = rng.integers(0, VOCABULARY, (2, 7)), [[0, 2, 5, 6], [0, 2]]
    after = rng.integers(0, VOCABULARY, (2, 3))
    for kind, cache in caches(model, 2).items():
        model(*padded(prompts), cache=cache)
        model(ids, cache=cache, parents=[tree, tree])
        cache.keep_only([5, 2], paths)
        assert cache.lengths.tolist() == [9, 4]
        logits = model(after, cache=cache)
        for row, (prompt, path) in enumerate(zip(prompts, paths, strict=True)):
            own = caches(model, 1)[kind]
            model([prompt], cache=own)
            model([ids[row, path].tolist()], cache=own)
            alone = model(after[row : row + 1], cache=own)[0]
            np.testing.assert_allclose(
                logits[row], alone, rtol=0, atol=2e-5 if kind != "int8" else 2e-2
            )


def test_what_does_not_branch(tmp_path: Path) -> None:
    model = load(write_folder(tmp_path / "a", "llama"), "llama")
    window = load(write_folder(tmp_path / "b", "mistral"), "mistral")
    assert model.verifies_trees and not window.verifies_trees
    cache = model.new_cache(1)
    model([[1, 2]], cache=cache)
    ids = [[3, 4]]
    for options, error, message in (
        ({"parents": [[0, -1]]}, ValueError, "token 0 of row 0 has the parent 0"),
        ({"parents": [[-2, -1]]}, ValueError, "token 0 of row 0 has the parent -2"),
        ({"parents": [[-1, 1]]}, ValueError, "token 1 of row 0 has the parent 1"),
        ({"parents": [[-1, 0, 1]]}, ValueError, r"parents must have shape \(1, 2\)"),
        ({"parents": [[-1.0, 0.0]]}, TypeError, "parents"),
        ({"parents": [[-1, 0]], "cache": None}, ValueError, "with a cache and without"),
        ({"parents": [[-1, 0]], "attention_mask": [[1, 1]]}, ValueError, "without attention_mask"),
    ):
        given: Any = {"cache": cache, **options}
        with pytest.raises(error, match=message):
            model(ids, **given)
        assert cache.lengths.tolist() == [2]
    with pytest.raises(ValueError, match="parents are for models whose layers have no window"):
        window(ids, cache=window.new_cache(1), parents=[[-1, 0]])


# --- what a cache keeps ---------------------------------------------------------------------------


@pytest.mark.parametrize("storage", [None, "int8"])
@pytest.mark.parametrize("kind", ["contiguous", "paged"])
def test_tokens_that_are_kept(kind: str, storage: Any, rng: np.random.Generator) -> None:
    """Against rows that got those tokens alone; a row that shares its pages has its own then."""
    sizes: Any = {"layers": 2, "kv_heads": 2, "head_dim": 8, "storage": storage}
    if kind == "paged":
        sizes |= {"pages": 60, "page_size": 3}
    made = {"contiguous": na.KVCache, "paged": na.PagedKVCache}[kind]
    tokens = rng.normal(size=(2, 2, 3, 2, 11, 8)).astype(np.float32)  # layer, k or v, row
    starts, places = [4, 0, 11], [[0, 2, 3, 6], [1, 5, 10], []]
    cache, expected = made(batch=3, **sizes), made(batch=3, **sizes)
    counts = [len(each) + start for each, start in zip(places, starts, strict=True)]
    for layer, (k, v) in enumerate(tokens):
        cache.append(layer, k, v)
        wanted = np.zeros_like(k), np.zeros_like(v)
        for row, (start, place) in enumerate(zip(starts, places, strict=True)):
            which = [*range(start), *(start + each for each in place)]
            for target, source in zip(wanted, (k, v), strict=True):
                target[row, :, : len(which)] = source[row][:, which]
        expected.append(layer, *wanted, counts=counts)
    shared = None
    if kind == "paged":
        before = [each.copy() for each in values(cache, 0)]
        shared = cache.gather([(cache, 0), (cache, 1)])
    cache.keep_only(starts, places)
    assert cache.lengths.tolist() == counts
    for layer in range(2):
        for row, (one, other) in enumerate(
            zip(values(cache, layer), values(expected, layer), strict=True)
        ):
            np.testing.assert_array_equal(one, other, err_msg=str((layer, row)))
    if shared is not None:
        for one, other in zip(values(shared, 0), before, strict=False):
            np.testing.assert_array_equal(one, other)


def values(cache: Any, layer: int) -> list[NDArray[Any]]:
    """Return the keys and values of each row, side by side: (Hkv, length, 2 · D)."""
    q = np.zeros((cache.batch, 2, 0, 8), np.float32)
    held = cache.append(layer, q, q)
    if isinstance(cache, na.KVCache):
        arrays = [held.k, held.v]
        if held.k_scale is not None:
            arrays = [
                x * scale[..., None]
                for x, scale in zip(arrays, (held.k_scale, held.v_scale), strict=True)
            ]
        joined = np.concatenate(arrays, axis=3)
        return [joined[row][:, :length] for row, length in enumerate(cache.lengths)]
    rows = []
    for row, length in enumerate(cache.lengths):
        pages = held.block_table[row]
        arrays = [held.k_pages[pages], held.v_pages[pages]]
        if held.k_scale is not None:
            scales = (held.k_scale[pages], held.v_scale[pages])
            arrays = [x * scale[..., None] for x, scale in zip(arrays, scales, strict=True)]
        joined = np.concatenate(arrays, axis=3)
        flat = joined.reshape(-1, *joined.shape[2:])[:length]
        rows.append(flat.swapaxes(0, 1))
    return rows


def test_what_cannot_be_kept() -> None:
    cache = na.KVCache(layers=1, batch=2, kv_heads=1, head_dim=8)
    x = np.arange(80, dtype=np.float32).reshape(2, 1, 5, 8)
    cache.append(0, x, x)
    for starts, places, message in (
        ([1, 1], [[0]], "places must be for each of 2 rows, not 1"),
        ([1, 1], [[0], [4]], r"places\[1\] names token 5, and the row has 5"),
        ([1, 1], [[1, 0], []], r"places\[0\] must be numbers from 0 on in order"),
        ([1, 1], [[1, 1], []], r"places\[0\] must be numbers from 0 on in order"),
        ([1, 1], [[-1], []], r"places\[0\] must be numbers from 0 on in order"),
        ([-1, 1], [[], []], "lengths must be 0 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            cache.keep_only(starts, places)
        assert cache.lengths.tolist() == [5, 5]
    with pytest.raises(TypeError, match=r"places\[0\]"):
        cache.keep_only([1, 1], [[0.5], []])
    window = na.KVCache(layers=1, batch=1, kv_heads=1, head_dim=8, window=9)
    window.append(0, x[:1], x[:1])
    with pytest.raises(ValueError, match="a cache with windows"):
        window.keep_only([1], [[1]])
    assert window.lengths.tolist() == [5]
    window.keep_only([1], [[0, 1]])
    assert window.lengths.tolist() == [3]
    pages = na.PagedKVCache(1, batch=1, kv_heads=1, head_dim=8, pages=2, page_size=4)
    pages.append(0, x[:1], x[:1])
    other = pages.gather([(pages, 0)])
    with pytest.raises(MemoryError, match="out of pages"):
        pages.keep_only([0], [[1]])
    assert pages.lengths.tolist() == other.lengths.tolist() == [5]


# --- texts ----------------------------------------------------------------------------------------


class Branching:
    """Guesses trees in which what comes in fact stands somewhere, or not."""

    def __init__(self, texts: Sequence[Sequence[int]], most: int, seed: int, wrong: float) -> None:
        self._texts, self.most = texts, most
        self._rng, self._wrong = np.random.default_rng(seed), wrong
        self.given: list[Guess] = []

    def begin(self, model: Any, batch: int) -> None: ...

    def propose(
        self, prompts: Any, texts: Sequence[Sequence[int]], counts: Sequence[int], sampler: Sampler
    ) -> list[Guess]:
        guesses = []
        for whole, text, count in zip(self._texts, texts, counts, strict=True):
            true = [*whole[len(text) :]]
            tokens: list[int] = []
            parents: list[int] = []
            right = -1  # the node up to which the text goes on in fact
            depth = 0
            for place in range(count):
                if self._rng.random() < self._wrong or depth >= len(true):
                    tokens.append(int(self._rng.integers(VOCABULARY)))
                    parents.append(int(self._rng.integers(-1, place)))
                else:
                    tokens.append(true[depth])
                    parents.append(right)
                    right, depth = place, depth + 1
            guesses.append(Guess(tokens, None, parents) if tokens else Guess([]))
        self.given += guesses
        return guesses


def test_texts_are_those_without_guesses(model: Gpt | Llama, rng: np.random.Generator) -> None:
    prompts = [random_ids(rng, size).tolist() for size in (7, 1, 12)]
    expected = model.generate(prompts, MOST)
    for seed, wrong in enumerate((0.0, 0.3, 0.6, 1.0)):
        for cache in (None, model.new_cache(3), model.new_paged_cache(3, pages=60, page_size=4)):
            draft = Branching(expected, 6, seed, wrong)
            generation = Speculation(model, prompts, MOST, draft=draft, cache=cache)
            steps = 0
            while generation.active.any():
                generation.step()
                steps += 1
            assert generation.texts == expected
            if cache is not None:
                assert cache.lengths.tolist() == [6 + MOST, MOST, 11 + MOST]
            if wrong == 0:
                assert steps == 1 + -(-(MOST - 1) // 7)
            elif wrong < 1:
                assert 0 < generation.accepted < generation.proposed and steps < MOST


def test_a_text_that_ends_within_a_tree(model: Gpt | Llama, rng: np.random.Generator) -> None:
    prompts = [random_ids(rng, 5).tolist() for _ in range(2)]
    free = model.generate(prompts, MOST)
    stop = free[0][9]
    expected = model.generate(prompts, MOST, stop=stop)
    cache = model.new_cache(2)
    draft = Branching(free, 6, 0, 0.3)
    assert model.generate(prompts, MOST, stop=stop, draft=draft, cache=cache) == expected
    assert cache.lengths.tolist() == [5 + len(text) - 1 for text in expected]
    (one,) = model.generate(prompts[:1], MOST, stop=stop, draft=NgramDraft(6, branches=3))
    assert one == expected[0]


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        ([-1, 0], "a guess of 3 tokens has 2 parents"),
        ([-1, 1, 0], "token 2 of row 0 has the parent 2"),
    ],
)
def test_a_draft_that_is_no_tree(tmp_path: Path, parents: list[int], message: str) -> None:
    """The cache holds what it held before the step."""

    class Bad:
        most = 3

        def begin(self, model: Any, batch: int) -> None: ...

        def propose(self, *arguments: Any) -> list[Guess]:
            return [Guess([1, 2, 3], None, parents)]

    model = load(write_folder(tmp_path), "llama")
    cache = model.new_cache(1)
    with pytest.raises(ValueError, match=message):
        model.generate([[1, 2]], 9, draft=Bad(), cache=cache)
    assert cache.lengths.tolist() == [2]


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
def test_windows_verify_the_first_chain(
    family: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    model = load(write_folder(tmp_path, family), family)
    prompts = [random_ids(rng, size).tolist() for size in (7, 12)]
    expected = model.generate(prompts, MOST)
    draft = Branching(expected, 6, 1, 0.3)
    generation = Speculation(model, prompts, MOST, draft=draft)
    while generation.active.any():
        generation.step()
    assert generation.texts == expected
    assert 0 < generation.proposed < sum(len(guess.tokens) for guess in draft.given)
    assert chain_of(Guess([5, 6, 7, 8], None, [-1, -1, 0, 2])) == Guess([5, 7, 8])


def test_frequencies_that_change_with_length(tmp_path: Path) -> None:
    scaling = {"type": "longrope", "short_factor": [1.0] * 2, "long_factor": [4.0] * 2}
    config = {"rope_scaling": scaling, "original_max_position_embeddings": 12}
    model = load(write_folder(tmp_path, "phi3", config), "phi3")
    prompts = [[1, 2, 3], [5] * 9, [4] * 14]
    expected = model.generate(prompts, 20)
    assert model.generate(prompts, 20, draft=Branching(expected, 5, 2, 0.4)) == expected


def test_draws_are_from_the_same_distribution(tmp_path: Path) -> None:
    """Of the second and third new token together, against exact probabilities: 5 deviations."""
    model = load(write_folder(tmp_path), "llama")
    prompt, first, rows, times = [4, 7, 4, 7, 30], 7, 500, 4
    options: dict[str, Any] = {"temperature": 1.2, "top_k": 4, "logit_bias": {30: 4.0}}
    sampler = Sampler(**options)
    second = sampler.probabilities(model([[*prompt, first]])[0, -1])
    exact = np.zeros((VOCABULARY, VOCABULARY))
    for token in np.flatnonzero(second):
        after = model([[*prompt, first, int(token)]])[0, -1]
        exact[token] = second[token] * sampler.probabilities(after)
    likely = np.flatnonzero(second).tolist()

    class Fixed:
        most = 4

        def begin(self, model: Any, batch: int) -> None: ...

        def propose(self, prompts: Any, texts: Any, counts: Any, sampler: Any) -> list[Guess]:
            tree = Guess([likely[0], likely[1], likely[0], 60], None, [-1, -1, 1, 0])
            return [tree if count >= 4 else Guess([]) for count in counts]

    counts = np.zeros_like(exact)
    accepted = proposed = 0
    for seed in range(times):
        generation = Speculation(
            model, [prompt] * rows, 6, draft=Fixed(), sampler=Sampler(seed=seed, **options)
        )
        generation.step()
        for text in generation.texts:
            text[0] = first
        while generation.active.any():
            generation.step()
        accepted, proposed = accepted + generation.accepted, proposed + generation.proposed
        for text in generation.texts:
            counts[text[1], text[2]] += 1
    assert 0.02 * proposed < accepted < 0.98 * proposed
    assert counts[exact == 0].sum() == 0
    total = rows * times
    deviation = np.sqrt(total * exact * (1 - exact))
    assert (np.abs(counts - total * exact) <= 5 * deviation + 1e-9).all()


@pytest.mark.parametrize(
    ("prompt", "text", "count", "tokens", "parents"),
    [
        # 2 was followed by 3 4 and by 3 5, the last place first.
        ([2, 3, 4, 9, 2, 3, 5, 9], [2], 4, [3, 5, 4], [-1, 0, 0]),
        ([2, 3, 4, 9, 2, 6, 5, 9], [2], 4, [6, 5, 3, 4], [-1, 0, -1, 2]),
        ([2, 3, 4, 9, 2, 6, 5, 9], [2], 1, [6], None),
        ([1, 2, 3, 4], [1, 2], 2, [3, 4], None),
        ([1, 2, 3], [4], 3, [], None),
    ],
)
def test_what_followed_the_same_tokens_in_several_places(
    prompt: list[int], text: list[int], count: int, tokens: list[int], parents: Any
) -> None:
    draft = NgramDraft(longest=1, branches=2)
    (guess,) = draft.propose([np.array(prompt)], [text], [count], greedy())
    assert guess.tokens[: len(tokens)] == tokens and len(guess.tokens) <= count
    if parents is None:
        assert guess.parents is None
    else:
        assert guess.parents is not None and guess.parents[: len(parents)] == parents


def test_texts_with_trees_of_what_followed(model: Gpt | Llama, rng: np.random.Generator) -> None:
    part = random_ids(rng, 4).tolist()
    prompts = [[*part, 3, *part, 8, *part], [5, 6, 5, 7, 5]]
    expected = model.generate(prompts, MOST)
    for tokens, branches in ((6, 2), (3, 3), (8, 4)):
        draft = NgramDraft(tokens, longest=2, branches=branches)
        assert model.generate(prompts, MOST, draft=draft) == expected
    with pytest.raises(ValueError, match="branches must be 1 or more, not 0"):
        NgramDraft(branches=0)
