"""numattn.models.encoder: agreement with torch and transformers, and what each promise holds."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from numattn.models import Bert, installed_folder
from tiny_bert import CONFIG, tensors_of, write_folder

# What the project promises for embeddings; they have length 1, and hidden states about length
# sqrt(E), with components of the order 1.
AGREEMENT = 1e-5
GOLDEN = Path(__file__).parent / "data" / "minilm_golden.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[np.generic]]:
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def minilm() -> Bert:
    return Bert.from_folder(installed_folder())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bert:
    return Bert.from_folder(write_folder(tmp_path_factory.mktemp("tiny")))


def random_ids(rng: np.random.Generator, *shape: int) -> NDArray[np.int64]:
    return rng.integers(0, CONFIG["vocab_size"], shape)


# --- agreement with torch and transformers --------------------------------------------------------


def test_embeddings_agree_with_the_golden_ones(isa: str, golden: dict) -> None:
    texts = [str(text) for text in golden["texts"]]
    model = Bert.from_folder(installed_folder())
    with pytest.warns(UserWarning, match="1 of 11 texts have more than 256 tokens"):
        vectors = model.encode(texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, golden["embeddings"], rtol=0, atol=AGREEMENT)


def test_hidden_states_agree_with_the_golden_ones(minilm: Bert, golden: dict) -> None:
    hidden = minilm(golden["token_ids"][np.newaxis])
    np.testing.assert_allclose(hidden[0], golden["hidden"], rtol=0, atol=AGREEMENT)


def test_attention_maps_agree_with_the_golden_ones(minilm: Bert, golden: dict) -> None:
    maps = minilm.attention_weights(golden["token_ids"])
    np.testing.assert_allclose(maps, golden["attention"], rtol=0, atol=AGREEMENT)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu"])
@pytest.mark.parametrize("inner", [48, 160])
def test_bert_agrees_with_transformers(
    activation: str, inner: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = {"hidden_act": activation, "intermediate_size": inner}
    folder = write_folder(tmp_path, config, tensors_of({**CONFIG, **config}))
    theirs = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    ids, types = random_ids(rng, 3, 11), rng.integers(0, 2, (3, 11))
    mask = np.arange(11) < np.array([[11], [4], [1]])
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor(ids),
            token_type_ids=torch.tensor(types),
            attention_mask=torch.tensor(mask.astype(np.int64)),
        ).last_hidden_state.numpy()
    hidden = Bert.from_folder(folder)(ids, attention_mask=mask, token_type_ids=types)
    np.testing.assert_allclose(hidden[mask], expected[mask], rtol=0, atol=AGREEMENT)


def test_roberta_agrees_with_transformers(tmp_path: Path, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = {"model_type": "roberta", "pad_token_id": 1, "type_vocab_size": 1}
    tensors = tensors_of({**CONFIG, **config})
    named = {f"roberta.{name}": value for name, value in tensors.items()}
    folder = write_folder(tmp_path, config, named)
    theirs = transformers.RobertaModel.from_pretrained(folder, add_pooling_layer=False).eval()
    ids = rng.integers(2, CONFIG["vocab_size"], (2, 9))
    ids[1, 5:] = 1
    with torch.no_grad():
        mask = torch.tensor((ids != 1).astype(np.int64))
        expected = theirs(torch.tensor(ids), attention_mask=mask).last_hidden_state.numpy()
    model = Bert.from_folder(folder)
    assert model.max_tokens == CONFIG["max_position_embeddings"] - 2
    hidden = model(ids, [9, 5])
    np.testing.assert_allclose(hidden[ids != 1], expected[ids != 1], rtol=0, atol=AGREEMENT)


# --- the encoder ----------------------------------------------------------------------------------


def test_padding_does_not_reach_the_real_tokens(tiny: Bert, rng: np.random.Generator) -> None:
    ids, lengths = random_ids(rng, 4, 10), np.array([10, 7, 1, 0])
    other = np.where(np.arange(10) < lengths[:, np.newaxis], ids, random_ids(rng, 4, 10))
    real = np.arange(10) < lengths[:, np.newaxis]
    np.testing.assert_array_equal(tiny(ids, lengths)[real], tiny(other, lengths)[real])


def test_a_batch_is_its_rows(tiny: Bert, rng: np.random.Generator) -> None:
    ids, lengths = random_ids(rng, 5, 9), [9, 3, 6, 1, 9]
    hidden = tiny(ids, lengths)
    for row, length in enumerate(lengths):
        alone = tiny(ids[row : row + 1, :length])[0]
        np.testing.assert_array_equal(hidden[row, :length], alone)


def test_padding_is_zero(tiny: Bert, rng: np.random.Generator) -> None:
    ids, lengths = random_ids(rng, 4, 10), np.array([10, 7, 1, 0])
    hidden = tiny(ids, lengths)
    real = np.arange(10) < lengths[:, np.newaxis]
    assert not hidden[~real].any() and hidden[real].all()
    assert not tiny(ids, [0, 0, 0, 0]).any()


def test_a_mask_is_lengths(tiny: Bert, rng: np.random.Generator) -> None:
    ids, lengths = random_ids(rng, 3, 6), np.array([6, 2, 4])
    mask = np.arange(6) < lengths[:, np.newaxis]
    expected = tiny(ids, lengths)
    for form in (mask, mask.astype(np.int64), mask.astype(np.float32).tolist()):
        np.testing.assert_array_equal(tiny(ids, attention_mask=form), expected)


def test_the_result_is_the_callers_own(tiny: Bert, rng: np.random.Generator) -> None:
    ids = random_ids(rng, 2, 5)
    first = tiny(ids)
    kept = first.copy()
    tiny(random_ids(rng, 2, 5))
    np.testing.assert_array_equal(first, kept)
    assert first.base is None or first.base.nbytes <= first.nbytes + 64  # alone in its memory
    assert first.flags.c_contiguous


def test_nothing_in_nothing_out(tiny: Bert) -> None:
    assert tiny(np.zeros((0, 5), np.int64)).shape == (0, 5, 32)
    assert tiny(np.zeros((3, 0), np.int64)).shape == (3, 0, 32)
    assert tiny.encode([]).shape == (0, 32)


def test_many_threads_at_once(tiny: Bert, rng: np.random.Generator) -> None:
    batches = [random_ids(rng, 3, length) for length in (3, 7, 12, 20)]
    expected = [tiny(ids) for ids in batches]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            if not np.array_equal(tiny(batches[number]), expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([[0, 22]],), {}, ValueError, r"token_ids must be in 0 … 21, not 0 … 22"),
        (([[-1, 3]],), {}, ValueError, r"token_ids must be in 0 … 21, not -1 … 3"),
        (([1, 2],), {}, ValueError, r"token_ids must be \(B, S\), not \(2,\)"),
        (([[1.0, 2.0]],), {}, TypeError, "token_ids must be integers, not float64"),
        (([[1] * 25],), {}, ValueError, "has 25 tokens a row; the model has positions for 24"),
        (([[1, 2]], [3]), {}, ValueError, r"lengths must be in 0 … 2, not \[3\]"),
        (([[1, 2]], [-1]), {}, ValueError, r"lengths must be in 0 … 2, not \[-1\]"),
        (([[1, 2]], [1, 1]), {}, ValueError, r"lengths must be \(1,\), not \(2,\)"),
        (([[1, 2]], [1.5]), {}, TypeError, "lengths must be integers, not float64"),
        (([[1, 2]],), {"attention_mask": [[0, 1]]}, ValueError, "pad on the right"),
        (([[1, 2]],), {"attention_mask": [[1]]}, ValueError, r"attention_mask \(1, 1\) must fit"),
        (([[1, 2]], [1]), {"attention_mask": [[1, 0]]}, ValueError, "not both"),
        (([[1, 2]],), {"token_type_ids": [[0, 2]]}, ValueError, "token_type_ids must be in 0 … 1"),
        (([[1, 2]],), {"token_type_ids": [[0]]}, ValueError, r"token_type_ids \(1, 1\) must fit"),
    ],
)
def test_bad_input(
    tiny: Bert, arguments: tuple, options: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tiny(*arguments, **options)


def test_attention_weights_are_probabilities_of_the_asked_for(
    tiny: Bert, rng: np.random.Generator
) -> None:
    ids = random_ids(rng, 9)
    maps = tiny.attention_weights(ids)
    assert maps.shape == (2, 4, 9, 9)
    assert maps.dtype == np.float32
    # A sum of 9 float32 numbers that add up to 1 is off by at most 9 halves of a last place.
    np.testing.assert_allclose(maps.sum(axis=-1), 1, rtol=0, atol=9 * 2.0**-24)
    np.testing.assert_array_equal(tiny.attention_weights(ids, 1), maps[1])
    np.testing.assert_array_equal(tiny.attention_weights(ids, 0, 3), maps[0, 3])
    np.testing.assert_array_equal(tiny.attention_weights(ids, head=2), maps[:, 2])
    np.testing.assert_array_equal(tiny.attention_weights(ids, 1, 2, [4, 0]), maps[1, 2, [4, 0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1, 2]],), r"token_ids must be \(S,\) with S of 1 or more, not \(1, 2\)"),
        (([],), "with S of 1 or more"),
        (([1, 2], 2), "layer must be in 0 … 1, not 2"),
        (([1, 2], -1), "layer must be in 0 … 1, not -1"),
        (([1, 2], 0, 4), "head must be in 0 … 3, not 4"),
        (([1, 2], 0, 0, [2]), r"rows must be \(R,\) of 0 … 1, not \[2\]"),
        (([1, 99],), "token_ids must be in 0 … 21"),
    ],
)
def test_attention_weights_of_bad_input(tiny: Bert, arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny.attention_weights(*arguments)
