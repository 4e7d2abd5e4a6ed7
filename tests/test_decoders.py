"""numattn.models.decoders by themselves: caches, batches, chunks and storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

import numattn as na
from numattn.cache import Cache
from numattn.models import Gpt, Llama
from tiny_decoders import FAMILIES, VOCABULARY, load, random_ids, write_folder
from tolerance import assert_same_bits

GOLDEN = Path(__file__).parent / "data" / "decoders_golden.npz"
# Of ‖logits‖: what two orders of the same float32 sums may differ by in these models. (A layer adds
# and norms; each of 3 layers takes sums of 32 to 40 products, with 6e-8·√40 = 4e-7 in each.)
SAME = 1e-5


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp(family), family)


@pytest.fixture(scope="module")
def model(folder: Path, family: str) -> Gpt | Llama:
    return load(folder, family)


def assert_same(got: NDArray[Any], expected: NDArray[Any]) -> None:
    assert got.shape == expected.shape
    assert np.linalg.norm(got - expected) <= SAME * np.linalg.norm(expected)


def caches(model: Gpt | Llama, batch: int) -> list[Cache]:
    return [model.new_cache(batch), model.new_paged_cache(batch, pages=40, page_size=4)]


def test_logits_agree_with_the_golden_ones(model: Gpt | Llama, family: str) -> None:
    """Computed by transformers in float64; its own float32 logits have the error beside them."""
    with np.load(GOLDEN) as golden:
        ids, expected = golden["ids"], golden[f"{family}_logits"]
        bound = 2 * float(golden[f"{family}_float32_error"])
    whole = model(ids)
    assert np.linalg.norm(whole - expected) <= bound
    for cache in caches(model, ids.shape[0]):
        parts = [model(ids[:, :20], cache=cache)]
        parts += [model(ids[:, [column]], cache=cache) for column in range(20, ids.shape[1])]
        assert np.linalg.norm(np.concatenate(parts, axis=1) - expected) <= bound


def test_caches_of_integers_change_the_logits_a_little(
    model: Gpt | Llama, rng: np.random.Generator
) -> None:
    """Alike in both caches, and nearer than another text's logits by far."""
    ids = random_ids(rng, 2, 24)
    expected = model(ids)
    stored = [
        model.new_cache(2, storage="int8"),
        model.new_paged_cache(2, pages=40, page_size=4, storage="int8"),
    ]
    results = [
        np.concatenate([model(part, cache=cache) for part in (ids[:, :20], ids[:, 20:])], 1)
        for cache in stored
    ]
    assert_same(results[0], results[1])
    error = np.linalg.norm(results[0] - expected) / np.linalg.norm(expected)
    other = np.linalg.norm(model(ids[:, ::-1]) - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < other / 10


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_of_a_padded_batch_are_as_they_are_alone(
    model: Gpt | Llama, side: str, rng: np.random.Generator
) -> None:
    ids, lengths = random_ids(rng, 4, 9), np.array([9, 1, 0, 6])
    mask = np.arange(9) < lengths[:, np.newaxis]
    mask = mask[:, ::-1] if side == "left" else mask
    for cache in [None, *caches(model, 4)]:
        logits = model(ids, attention_mask=mask, cache=cache)
        for row in np.flatnonzero(lengths):
            assert_same(logits[row, mask[row]], model(ids[row : row + 1, mask[row]])[0])
    if side == "right":
        assert_same_bits(model(ids, lengths)[mask], model(ids, attention_mask=mask)[mask])
        last = model(ids, lengths, only_last=True)
        real = np.flatnonzero(lengths)
        assert_same(last[real], model(ids)[real, lengths[real] - 1])


@pytest.mark.parametrize("chunk", [1, 6, 23])
def test_chunks_are_as_the_whole_and_the_same_chunks_the_same_bits(
    model: Gpt | Llama, chunk: int, rng: np.random.Generator
) -> None:
    """Step by step, in chunks, and at once; by any number of threads."""
    ids = random_ids(rng, 2, 23)
    whole = model(ids)

    def read(cache: Cache, num_threads: int | None) -> NDArray[Any]:
        starts = range(0, 23, chunk)
        parts = (ids[:, start : start + chunk] for start in starts)
        return np.concatenate(
            [model(part, cache=cache, num_threads=num_threads) for part in parts], axis=1
        )

    expected = [read(cache, 1) for cache in caches(model, 2)]
    for each in expected:
        assert_same(each, whole)
    for num_threads in (1, 2, 3, None):
        for cache, first in zip(caches(model, 2), expected, strict=True):
            assert_same_bits(read(cache, num_threads), first)


def test_the_cache_of_a_window_stays_small(rng: np.random.Generator, tmp_path: Path) -> None:
    model = load(write_folder(tmp_path, "mistral"), "mistral")
    cache, whole = model.new_cache(1), random_ids(rng, 1, 60)
    steps = [model(whole[:, [column]], cache=cache) for column in range(60)]
    assert cache.windows == (4, 4, 4)
    assert cache.nbytes == 3 * 2 * (2 * 8 * 12) * 4  # layers, k and v, heads · slots · width
    assert_same(np.concatenate(steps, axis=1), model(whole))


@pytest.mark.parametrize("cut", [3, 12])
def test_a_cache_that_was_cut_goes_on_from_there(
    model: Gpt | Llama, cut: int, rng: np.random.Generator
) -> None:
    ids, tail = random_ids(rng, 1, 12), random_ids(rng, 1, 4)
    for cache in caches(model, 1):
        model(ids, cache=cache)
        try:
            cache.truncate(cut)
        except ValueError as error:
            assert "window" in str(error) and cut == 3
            continue
        expected = model(np.concatenate([ids[:, :cut], tail], axis=1))[:, cut:]
        assert_same(model(tail, cache=cache), expected)


def test_beams_go_on_from_their_parents(model: Gpt | Llama, rng: np.random.Generator) -> None:
    ids, tails = random_ids(rng, 2, 9), random_ids(rng, 3, 2)
    parents = [1, 0, 1]
    expected = model(np.concatenate([ids[parents], tails], axis=1))[:, 9:]
    for cache in caches(model, 2):
        model(ids, cache=cache)
        cache.fork(parents)
        assert_same(model(tails, cache=cache), expected)


def test_logits_of_nothing(model: Gpt | Llama) -> None:
    """There are none, and no memory that nobody wrote."""
    assert model(np.zeros((2, 0), int)).shape == (2, 0, VOCABULARY)
    assert model(np.zeros((0, 3), int)).shape == (0, 3, VOCABULARY)
    assert model(np.zeros((0, 0), int), only_last=True).shape == (0, VOCABULARY)
    assert model(np.zeros((0, 3), int), only_last=True).shape == (0, VOCABULARY)
    with pytest.raises(ValueError, match=r"token_ids \(2, 0\) have none"):
        model(np.zeros((2, 0), int), only_last=True)


# --- bfloat16 -------------------------------------------------------------------------------------


def test_weights_in_bfloat16(folder: Path, family: str, rng: np.random.Generator) -> None:
    """Stored in half the memory; logits differ from those of rounded weights by inputs' rounding.

    Each of the 12 products and 3 attentions rounds its inputs by 2^-9 of themselves on average,
    independently of one another: √15·2^-9 = 0.8%, and softmax and norms magnify that somewhat.
    """
    ids = random_ids(rng, 2, 12)
    single, half = load(folder, family), load(folder, family, dtype="bfloat16")
    assert half.dtype == ml_dtypes.bfloat16
    exact, rounded = single(ids), half(ids)
    assert rounded.dtype == np.float32
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.1
    cache = half.new_cache(2)
    assert cache.dtype == ml_dtypes.bfloat16
    parts = [half(ids[:, :5], cache=cache), half(ids[:, 5:], cache=cache)]
    np.testing.assert_allclose(
        np.concatenate(parts, axis=1), rounded, rtol=0, atol=0.05 * np.abs(rounded).max()
    )
    mixed = single.new_cache(2, dtype="bfloat16")
    assert np.linalg.norm(single(ids, cache=mixed) - exact) < 0.1 * np.linalg.norm(exact)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([[0, 61]],), {}, ValueError, r"token_ids must be in 0 … 60, not 0 … 61"),
        (([[-1, 3]],), {}, ValueError, r"token_ids must be in 0 … 60, not -1 … 3"),
        (([1, 2],), {}, ValueError, r"token_ids must be \(B, S\), not \(2,\)"),
        (([[1.0, 2.0]],), {}, TypeError, "token_ids must be integers, not float64"),
        (([[1, 2]], [3]), {}, ValueError, r"lengths must be in 0 … 2, not \[3\]"),
        (([[1, 2]], [1, 1]), {}, ValueError, r"lengths must be \(1,\), not \(2,\)"),
        (([[1, 2, 3]],), {"attention_mask": [[0, 1, 0]]}, ValueError, "together at one end"),
        (([[1, 2]],), {"attention_mask": [[1]]}, ValueError, r"attention_mask \(1, 1\) must fit"),
        (([[1, 2]], [1]), {"attention_mask": [[1, 0]]}, ValueError, "not both"),
        (
            (np.zeros((1, 0), int),),
            {"only_last": True},
            ValueError,
            r"only_last asks for the last token of each row, and token_ids \(1, 0\) have none",
        ),
        (([[1], [2]],), {}, ValueError, "the cache has 1 rows, and token_ids 2"),
    ],
)
def test_bad_input_leaves_the_cache_alone(
    model: Gpt | Llama,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    for cache in caches(model, 1):
        model([[1, 2, 3]], cache=cache)
        with pytest.raises(error, match=message):
            model(*arguments, cache=cache, **options)
        assert cache.lengths == [3]


def test_a_failure_in_the_middle_leaves_the_cache_as_it_was(
    model: Gpt | Llama, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = random_ids(rng, 1, 10)
    expected = model(ids)[:, 6:]
    for cache in caches(model, 1):
        model(ids[:, :6], cache=cache)
        with monkeypatch.context() as patch:
            attend, calls = type(cache).attend, []

            def failing(self: Cache, *args: Any, calls: list = calls, attend: Any = attend,
                        **options: Any) -> Any:  # fmt: skip
                calls.append(None)
                if len(calls) == 2:
                    raise KeyboardInterrupt
                return attend(self, *args, **options)

            patch.setattr(type(cache), "attend", failing)
            with pytest.raises(KeyboardInterrupt):
                model(ids[:, 6:], cache=cache)
        assert cache.lengths == [6] and all(cache.layer_lengths(n) == [6] for n in range(3))
        assert_same(model(ids[:, 6:], cache=cache), expected)


def test_no_page_is_left(model: Gpt | Llama, rng: np.random.Generator) -> None:
    cache = model.new_paged_cache(2, pages=5, page_size=4)
    ids = random_ids(rng, 2, 9)
    model(ids[:, :5], cache=cache)
    with pytest.raises(MemoryError, match="out of pages: 2 more are needed, and 1 of 5 are free"):
        model(ids[:, 5:], cache=cache)
    assert cache.lengths.tolist() == [5, 5] and cache.free_pages == 1
    assert_same(model(ids[:, 5:], [4, 3], cache=cache)[0], model(ids[:1])[0, 5:])


def test_a_cache_that_overflows(model: Gpt | Llama, rng: np.random.Generator) -> None:
    """Each kind, with tokens in it and at once; then there is room for what fits."""
    sizes = {"kv_heads": model.config.num_kv_heads, "head_dim": model.config.head_size}
    for cache in (
        na.KVCache(3, 2, **sizes, max_length=10),
        na.PagedKVCache(3, 2, **sizes, pages=9, max_length=10),
    ):
        ids = random_ids(rng, 2, 11)
        with pytest.raises(
            ValueError, match=r"at most 10 .*\(max_length\), and row 0 would have 11"
        ):
            model(ids, cache=cache)
        assert cache.lengths.tolist() == [0, 0]
        model(ids[:, :8], [7, 8], cache=cache)
        with pytest.raises(
            ValueError, match=r"at most 10 .*\(max_length\), and row 1 would have 11"
        ):
            model(ids[:, 8:], cache=cache)
        assert all(cache.layer_lengths(layer).tolist() == [7, 8] for layer in range(3))
        expected = model(ids[1:, :10])[:, 8:]
        assert_same(model(ids[:, 8:10], cache=cache)[1:], expected)


def test_positions_beyond_a_learned_table(tmp_path: Path, rng: np.random.Generator) -> None:
    model = load(write_folder(tmp_path, "gpt2", {"n_positions": 96}), "gpt2")
    ids = random_ids(rng, 2, 97)
    with pytest.raises(ValueError, match="a row has 97 tokens; the model has positions for 96"):
        model(ids)
    assert model(ids, [96, 2]).shape == (2, 97, VOCABULARY)  # the last column is padding
    cache = model.new_cache(2)
    model(ids[:, :95], [95, 3], cache=cache)
    with pytest.raises(ValueError, match="a row has 97 tokens; the model has positions for 96"):
        model(ids[:, :2], cache=cache)
    assert cache.lengths.tolist() == [95, 3]
    unlimited = na.KVCache(3, 2, model.config.num_kv_heads, model.config.head_size)
    with pytest.raises(ValueError, match="a row has 97 tokens; the model has positions for 96"):
        model(ids, cache=unlimited)
    assert unlimited.lengths.tolist() == [0, 0]


def test_what_is_no_cache(model: Gpt | Llama) -> None:
    with pytest.raises(TypeError, match="cache must be a KVCache or PagedKVCache, not dict"):
        model([[1]], cache={})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cache", "message"),
    [
        (na.KVCache(2, 1, 2, 8), "the cache has layers 2, and the model 3"),
        (na.KVCache(3, 1, 4, 8), "the cache has kv_heads 4, and the model 2"),
        (na.KVCache(3, 1, 2, 16), "the cache has head_dim 16, and the model 8"),
        (na.KVCache(3, 1, 2, 8, value_dim=4), "the cache has value_dim 4, and the model 8"),
        (na.KVCache(3, 1, 2, 8, window=[None, 4, 4]), "layer 1 of the cache keeps a window of 4"),
    ],
)
def test_a_cache_of_another_model(tmp_path: Path, cache: Cache, message: str) -> None:
    model = load(write_folder(tmp_path, "llama"), "llama")
    with pytest.raises(ValueError, match=message):
        model([[1]], cache=cache)
