"""Beam search: by an exhaustive search, and sequence by sequence with transformers' own."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctranslate2_folders import changed_number, read_case, write_case
from numattn.models import Gpt, Llama, beam_search
from numattn.models import load as load_any
from numattn.models.beams import Rules, Search, log_softmax
from tiny_decoders import load, random_ids, write_folder

PROMPT = [3, 9, 27, 9]


@pytest.fixture(scope="module", params=["llama", "gemma2", "gpt2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Gpt | Llama:
    family = str(request.param)
    return load(write_folder(tmp_path_factory.mktemp(family), family), family)


def score_of(model: Gpt | Llama, prompt: list[int], text: list[int], penalty: float) -> float:
    """Return a text's score, all of it read at once."""
    logs = log_softmax(model([prompt + text])[0])
    own = logs[len(prompt) - 1 : -1][np.arange(len(text)), text]
    return float(own.sum() / len(text) ** penalty)


@pytest.mark.parametrize("penalty", [1.0, 0.0, -0.5, 2.0])
def test_scores_are_those_of_the_texts(model: Gpt | Llama, penalty: float) -> None:
    (found,) = model.beam_search([PROMPT], 9, beams=5, num_return=5, length_penalty=penalty)
    assert len({tuple(beam.tokens) for beam in found}) == 5
    for beam in found:
        assert len(beam.tokens) == 9
        assert beam.score == pytest.approx(score_of(model, PROMPT, beam.tokens, penalty), rel=1e-4)
    assert [beam.score for beam in found] == sorted((beam.score for beam in found), reverse=True)


def test_beams_enough_for_all_find_the_best(model: Gpt | Llama) -> None:
    """Of two tokens after 61 beams nothing is left out."""
    (found,) = model.beam_search([PROMPT], 2, beams=61, num_return=3)
    logs = log_softmax(model([PROMPT])[0, -1])
    after = log_softmax(model([[*PROMPT, token] for token in range(61)], only_last=True))
    both = (logs[:, np.newaxis] + after).reshape(-1)
    best = np.argsort(-both)[:3]
    assert [beam.tokens for beam in found] == [[*divmod(int(place), 61)] for place in best]
    np.testing.assert_allclose([beam.score for beam in found], both[best] / 2, rtol=1e-5)


def test_one_beam_is_greedy(model: Gpt | Llama) -> None:
    (greedy,) = model.generate([PROMPT], 20)
    (found,) = model.beam_search([PROMPT], 20, beams=1)
    assert found[0].tokens == greedy
    stop = greedy[7]
    (found,) = model.beam_search([PROMPT], 20, beams=1, stop=stop)
    assert found[0].tokens == greedy[: greedy.index(stop) + 1]


def test_prompts_do_not_know_one_another(model: Gpt | Llama, rng: np.random.Generator) -> None:
    prompts = [random_ids(rng, size).tolist() for size in (7, 1, 4)]
    options: dict[str, Any] = {"beams": 3, "num_return": 3, "stop": [5, 11, 40, 41]}
    alone = [model.beam_search([prompt], 12, **options)[0] for prompt in prompts]
    assert model.beam_search(prompts, 12, **options) == alone
    pages = model.new_paged_cache(3, pages=80, page_size=4)
    for way in ({"chunk": 2}, {"cache": pages}, {"cache": model.new_cache(3)}):
        for found, expected in zip(
            beam_search(model, iter(prompts), 12, **options, **way), alone, strict=True
        ):
            assert [beam.tokens for beam in found] == [beam.tokens for beam in expected]
            scores = [[beam.score for beam in each] for each in (found, expected)]
            np.testing.assert_allclose(*scores, rtol=1e-5)
    assert pages.batch == 9
    assert pages.free_pages > 80 - 9 * 5  # the beams of a prompt share its pages


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
@pytest.mark.parametrize("stop", [None, [7], [5, 11, 40, 41, 50, 51, 52]])
@pytest.mark.parametrize(
    "options",
    [{}, {"length_penalty": -1.0}, {"length_penalty": 2.0, "early_stopping": "never"},
     {"early_stopping": True}],
)  # fmt: skip
def test_as_transformers(tmp_path: Path, family: str, stop: Any, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = write_folder(tmp_path, family)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    ours = load(folder, family)
    for beams, prompt in ((4, PROMPT), (3, [1]), (2, [8, 60, 0, 5, 5, 2, 17])):
        given = torch.tensor([prompt])
        expected = theirs.generate(
            given, attention_mask=torch.ones_like(given), max_new_tokens=14, num_beams=beams,
            num_return_sequences=beams, do_sample=False, eos_token_id=stop, pad_token_id=60,
            return_dict_in_generate=True, output_scores=True, **options,
        )  # fmt: skip
        (found,) = ours.beam_search(
            [prompt], 14, beams=beams, num_return=beams, stop=stop, **options
        )
        for beam, row in zip(found, expected.sequences.tolist(), strict=True):
            text = row[len(prompt) :]
            assert text[: len(beam.tokens)] == beam.tokens
            assert set(text[len(beam.tokens) :]) <= {60}
        np.testing.assert_allclose(
            [beam.score for beam in found], expected.sequences_scores.numpy(), rtol=1e-4
        )


def test_a_text_that_outgrows_its_frequencies_is_read_anew(tmp_path: Path) -> None:
    """LongRoPE turns all of a longer text otherwise: the score is that of the whole text."""
    scaling = {"type": "longrope", "short_factor": [1.0] * 2, "long_factor": [4.0] * 2}
    config = {"rope_scaling": scaling, "original_max_position_embeddings": 8}
    model = load(write_folder(tmp_path, "phi3", config), "phi3")
    assert model.switch_length == 8
    (found,) = model.beam_search([PROMPT], 12, beams=1)
    assert [found[0].tokens] == model.generate([PROMPT], 12)
    (found,) = model.beam_search([PROMPT], 5, beams=3, num_return=3)
    for beam in found:  # the last token is not read, so that five new ones are eight
        before = score_of(model, PROMPT, beam.tokens[:4], 0.0)
        assert beam.score * 5 < before


def test_fewer_tokens_than_beams() -> None:
    rules = Rules(3, 1.0, False, 2, np.array([1]))
    search = Search(np.array([0]), rules)
    logits = np.log(np.array([[0.75, 0.25]] * 3, np.float32))
    search.advance(logits)
    assert [text for text in search.texts] and len(search.texts) == len(search.sums) == 3
    assert not search.done and [beam.tokens for beam in search.finished] == [[1]]
    search.advance(logits)
    assert search.done
    texts = {tuple(beam.tokens): beam.score for beam in search.finished}
    expected = {(1,): np.log(0.25), (0, 0): np.log(0.75), (0, 1): np.log(0.75 * 0.25) / 2}
    assert texts.keys() == expected.keys()
    for text in itertools.chain(expected):
        assert texts[text] == pytest.approx(expected[text], rel=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"beams": 0}, ValueError, "num_return must be 1 … beams, and is 1 of 0"),
        ({"num_return": 5}, ValueError, "num_return must be 1 … beams, and is 5 of 4"),
        ({"num_return": 0}, ValueError, "num_return must be 1 … beams, and is 0 of 4"),
        ({"beams": 1.5}, TypeError, "beams must be an integer, not 1.5"),
        ({"length_penalty": np.inf}, ValueError, "length_penalty must be finite, not inf"),
        ({"early_stopping": "always"}, ValueError, 'early_stopping must be False, True or "neve'),
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens must be 1 or more, not 0"),
        ({"chunk": 0}, ValueError, "chunk must be 1 or more, not 0"),
        ({"stop": "x"}, TypeError, "stop must be token ids"),
        ({"prompts": [[1], []]}, ValueError, "prompt 1 is empty"),
        ({"cache": {}}, TypeError, "cache must be a KVCache or PagedKVCache, not dict"),
    ],
)
def test_bad_arguments(
    model: Gpt | Llama, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        model.beam_search(**{"prompts": [[1]], "max_new_tokens": 3, **options})


def test_a_cache_that_does_not_fit(model: Gpt | Llama) -> None:
    with pytest.raises(ValueError, match="the cache has 2 rows, and there are 1 prompts"):
        model.beam_search([[1]], 3, cache=model.new_cache(2))
    cache = model.new_cache(1)
    model([[1]], cache=cache)
    with pytest.raises(ValueError, match="the cache of a beam search must be empty"):
        model.beam_search([[1]], 3, cache=cache)
    assert model.beam_search([], 3) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_without_a_likeliest_token(value: float) -> None:
    rules = Rules(2, 1.0, False, 5, np.array([], dtype=np.int64))
    logs = np.zeros((2, 7))
    logs[1] = value
    with np.errstate(invalid="ignore"):
        logs = log_softmax(logs)
    with pytest.raises(ValueError, match="logits must not be NaN"):
        Search(np.array([0]), rules).advance(logs)


@pytest.mark.parametrize("beams", [1, 2])
def test_a_model_of_texts_whose_weights_are_no_numbers(tmp_path: Path, beams: int) -> None:
    """The first logits are NaN: no text is made up of them."""
    data, name = read_case("m2m")["file_model.bin"].tobytes(), "decoder/embeddings/weight_scale"
    folder = write_case(tmp_path, "m2m", model=changed_number(data, name, np.nan, "<f"))
    with pytest.raises(ValueError, match="logits must not be NaN"):
        load_any(folder).generate([[5, 6, 2]], beams=beams, max_tokens=3)
