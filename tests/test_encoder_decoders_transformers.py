"""numattn.models.encoder_decoder beside transformers with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numattn.models import load
from tiny_encoder_decoders import (
    CONFIGS,
    FAMILIES,
    SEPARATE,
    TEXTS,
    VOCABULARY,
    settings_of,
    write_folder,
)

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LENGTHS = np.array([11, 4, 7])


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("model") / request.param, request.param)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()


def test_logits(folder: Path, theirs: Any, rng: np.random.Generator) -> None:
    ids = rng.integers(0, VOCABULARY, (3, 11))
    decoder_ids = rng.integers(0, VOCABULARY, (3, 20))
    mask = np.arange(11) < LENGTHS[:, np.newaxis]
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            decoder_input_ids=torch.tensor(decoder_ids),
        ).logits.numpy()
    model = load(folder)
    state = model.encode(ids, LENGTHS)
    got = model.logits(decoder_ids, state)
    tolerance = {"rtol": 0, "atol": 1e-5 * np.abs(expected).max()}
    np.testing.assert_allclose(got, expected, **tolerance)
    state = model.encode(ids, LENGTHS)
    first = model.step(decoder_ids[:, :7], state)
    np.testing.assert_allclose(first, expected[:, 6], **tolerance)
    for place in range(7, 20):
        got = model.step(decoder_ids[:, place], state)
        np.testing.assert_allclose(got, expected[:, place], **tolerance)


def test_a_folder_that_transformers_writes(
    folder: Path, theirs: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    theirs.save_pretrained(tmp_path)
    ids = rng.integers(3, VOCABULARY, (1, 9))
    ours, again = load(folder), load(tmp_path)
    expected = ours.logits(ids, ours.encode(ids))
    np.testing.assert_array_equal(again.logits(ids, again.encode(ids)), expected)


def test_a_file_of_pytorch_s(
    folder: Path, theirs: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    """It has shared tables under each of their names."""
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    ids = rng.integers(3, VOCABULARY, (1, 9))
    ours, again = load(folder), load(tmp_path)
    expected = ours.logits(ids, ours.encode(ids))
    np.testing.assert_array_equal(again.logits(ids, again.encode(ids)), expected)
    assert again._tables[0] is again._tables[1]


def test_a_vocabulary_of_texts_of_its_own(tmp_path: Path, rng: np.random.Generator) -> None:
    """Logits, greedy texts and beams; and a folder that transformers writes."""
    settings = settings_of({**CONFIGS["marian"], **SEPARATE})
    folder = write_folder(tmp_path / "two", "marian", SEPARATE, settings)
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    theirs.save_pretrained(tmp_path / "saved")
    ids = rng.integers(3, VOCABULARY, (3, 11))
    decoder_ids = rng.integers(0, TEXTS, (3, 20))
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor(ids), decoder_input_ids=torch.tensor(decoder_ids)
        ).logits.numpy()
    for place in (folder, tmp_path / "saved"):
        model = load(place)
        got = model.logits(decoder_ids, model.encode(ids))
        tolerance = {"rtol": 0, "atol": 1e-5 * np.abs(expected).max()}
        np.testing.assert_allclose(got, expected, **tolerance)
    for beams in (1, 3):
        with torch.no_grad():
            texts = theirs.generate(torch.tensor(ids), num_beams=beams, max_length=20).tolist()
        for found, text in zip(model.generate(ids.tolist(), beams=beams), texts, strict=True):
            assert found == text[1 : 1 + len(found)]


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 1},
        {"num_beams": 4},
        {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True},
        {"num_beams": 3, "length_penalty": -0.5, "early_stopping": "never"},
        {"num_beams": 3, "length_penalty": 0.7, "early_stopping": "never"},
        {"num_beams": 3, "no_repeat_ngram_size": 2, "min_length": 6},
        {"num_beams": 1, "repetition_penalty": 1.7, "min_new_tokens": 5},
        {"num_beams": 2, "bad_words_ids": [[4], [5, 6], [7, 8, 9]], "suppress_tokens": [11, 12]},
        {"num_beams": 2, "forced_bos_token_id": 8, "begin_suppress_tokens": [13, 14]},
        {"num_beams": 4, "renormalize_logits": True, "bad_words_ids": [[4], [7], [9], [11]]},
        {"num_beams": 1, "eos_token_id": [2, 1, 20, 21, 22]},
        {"num_beams": 2, "eos_token_id": [2, 1, 20, 21, 22]},
    ],
    ids=str,
)
def test_texts(
    folder: Path, theirs: Any, tmp_path: Path, options: dict[str, Any], rng: np.random.Generator
) -> None:
    config = CONFIGS[folder.name]
    settings = {**settings_of(config), **options}
    own = write_folder(tmp_path / "own", folder.name, generation=settings)
    ids = rng.integers(3, VOCABULARY, (3, 11))
    mask = np.arange(11) < LENGTHS[:, np.newaxis]
    theirs.generation_config = transformers.GenerationConfig(**settings)
    with torch.no_grad():
        found = theirs.generate(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            return_dict_in_generate=True,
            output_scores=True,
        )
    sources = [row[:length] for row, length in zip(ids, LENGTHS, strict=True)]
    got = load(own).search(sources)
    for text, expected in zip(got, found.sequences.tolist(), strict=True):
        tokens = text[0].tokens
        assert tokens == expected[1 : 1 + len(tokens)]
        if after := set(expected[1 + len(tokens) :]):
            ends = np.atleast_1d(settings["eos_token_id"]).tolist()
            assert tokens[-1] in ends
            assert after <= {settings["pad_token_id"], ends[0]}
    if options["num_beams"] > 1:
        scores = [text[0].score for text in got]
        np.testing.assert_allclose(scores, found.sequences_scores.numpy(), rtol=1e-5, atol=1e-5)
