"""numattn.models.encoder_decoder beside stored results of transformers, and its rules."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

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

GOLDEN = Path(__file__).parent / "data" / "encoder_decoders_golden.npz"
LENGTHS = np.array([9, 5])


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[Any]]:
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


def folder_of(path: Path, family: str) -> Path:
    return write_folder(path / family, family, generation=settings_of(CONFIGS[family]))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits(family: str, golden: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    model = load(folder_of(tmp_path, family))
    state = model.encode(golden[f"{family}_ids"], LENGTHS)
    expected = golden[f"{family}_logits"]
    got = model.logits(golden[f"{family}_decoder_ids"], state)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("family", FAMILIES)
def test_texts(family: str, golden: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    model = load(folder_of(tmp_path, family))
    ids = golden[f"{family}_ids"]
    sources = [row[:length] for row, length in zip(ids, LENGTHS, strict=True)]
    for row, text in enumerate(model.generate(sources)):
        assert text == golden[f"{family}_greedy"][row, 1 : 1 + len(text)].tolist()
        assert len(text) == 19 or text[-1] == CONFIGS[family]["eos_token_id"]
    found = model.search(sources, beams=3, length_penalty=0.7, early_stopping="never")
    for row, texts in enumerate(found):
        best = texts[0]
        assert best.tokens == golden[f"{family}_beams"][row, 1 : 1 + len(best.tokens)].tolist()
        assert best.score == pytest.approx(golden[f"{family}_scores"][row], rel=1e-5, abs=1e-5)
        assert [text.score for text in texts] == sorted((t.score for t in texts), reverse=True)
    # What stands beside a source changes nothing of its text.
    assert model.generate(sources[1:], beams=3) == model.generate(sources, beams=3)[1:]


def test_a_vocabulary_of_texts_of_its_own(tmp_path: Path) -> None:
    model = load(write_folder(tmp_path / "two", "marian", SEPARATE, settings_of(SEPARATE)))
    assert (model.source_vocab_size, model.vocab_size) == (VOCABULARY, TEXTS)
    logits = model.logits([[TEXTS - 1, 5]], model.encode([[VOCABULARY - 1, 7, 2]]))
    assert logits.shape == (1, 2, TEXTS)
    copy = pickle.loads(pickle.dumps(model, protocol=5))
    again = copy.logits([[TEXTS - 1, 5]], copy.encode([[VOCABULARY - 1, 7, 2]]))
    np.testing.assert_array_equal(again, logits)
    with pytest.raises(ValueError, match=f"{TEXTS}"):
        model.logits([[TEXTS]], model.encode([[7, 2]]))
    # With equal tables it is the model with one.
    same = {**SEPARATE, "decoder_vocab_size": VOCABULARY}
    folder = write_folder(tmp_path / "equal", "marian", same, settings_of(CONFIGS["marian"]))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.decoder.embed_tokens.weight"] = tensors["model.encoder.embed_tokens.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    del tensors["model.decoder.embed_tokens.weight"]
    tensors["model.shared.weight"] = tensors.pop("model.encoder.embed_tokens.weight")
    one = folder_of(tmp_path, "marian")
    save_file(tensors, one / "model.safetensors", metadata={"format": "pt"})
    ours, other = load(folder), load(one)
    expected = other.logits([[66, 5]], other.encode([[8, 7, 2]]))
    np.testing.assert_array_equal(ours.logits([[66, 5]], ours.encode([[8, 7, 2]])), expected)


@pytest.mark.parametrize("family", ["t5", "mbart"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.05), ("int8", 0.05)])
def test_stored_weights(
    family: str, dtype: str, tolerance: float, golden: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    pytest.importorskip("ml_dtypes")
    model = load(folder_of(tmp_path, family), dtype=dtype)
    ids, decoder_ids = golden[f"{family}_ids"], golden[f"{family}_decoder_ids"]
    expected = golden[f"{family}_logits"]
    got = model.logits(decoder_ids, model.encode(ids, LENGTHS))
    assert 0 < np.linalg.norm(got - expected) < tolerance * np.linalg.norm(expected)
    copy = pickle.loads(pickle.dumps(model, protocol=5))
    again = copy.logits(decoder_ids, copy.encode(ids, LENGTHS))
    np.testing.assert_array_equal(again, got)
    assert copy._tables[0] is copy._tables[1]  # one table, as before


def test_a_fork_of_texts_of_the_same_source(tmp_path: Path) -> None:
    model = load(folder_of(tmp_path, "t5"))
    ids = np.array([[5, 6, 7, 1], [8, 9, 1, 0]])
    one = model.encode(ids, [4, 3])
    model.step([[0, 11], [0, 12]], one)
    one.fork([0, 0, 1, 1])
    got = model.step([13, 14, 13, 14], one)
    for row, (source, second) in enumerate([(0, 11), (0, 11), (1, 12), (1, 12)]):
        alone = model.encode(ids[source : source + 1], [4 - source])
        expected = model.step([[0, second, (13, 14)[row % 2]]], alone)
        np.testing.assert_allclose(got[row], expected[0], rtol=0, atol=1e-4)
    assert one.position == 3


def test_a_prompt(tmp_path: Path) -> None:
    model = load(folder_of(tmp_path, "bart"))
    whole = model.generate([[5, 6, 2]], max_tokens=6)[0]
    assert model.generate([[5, 6, 2]], prompt=[2, *whole[:2]], max_tokens=4)[0] == whole[2:]


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("bart", {"activation_function": "tanh"}, "activation_function 'tanh' is not supported"),
        ("bart", {"encoder_attention_heads": 5}, "d_model 32 does not divide into"),
        ("bart", {"decoder_layers": 4}, "decoder_layers"),
        ("bart", {"is_encoder_decoder": False}, "is_encoder_decoder False is not supported"),
        ("marian", {"share_encoder_decoder_embeddings": False}, "encoder.embed_tokens.weight"),
        ("marian", {"decoder_vocab_size": 12}, "decoder_vocab_size 12 is not supported"),
        ("t5", {"feed_forward_proj": "double-gelu"}, "feed_forward_proj 'double-gelu'"),
        ("t5", {"d_kv": 11}, "shape"),
        ("t5", {"is_gated_act": True}, "is_gated_act True is not supported"),
        ("t5", {"dense_act_fn": "silu"}, "dense_act_fn 'silu' is not supported"),
        ("t5", {"num_layers": 2}, "num_layers"),
    ],
)
def test_a_config_that_is_refused(
    family: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, family)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ValueError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_sample": True}, "do_sample True is not supported"),
        ({"num_beam_groups": 2}, "num_beam_groups 2"),
        ({"guidance_scale": 2.0}, "guidance_scale"),
        ({"early_stopping": "soon"}, "early_stopping 'soon'"),
        ({"eos_token_id": VOCABULARY}, "eos_token_id must be tokens of 0 … 66"),
        ({"bad_words_ids": [3]}, "bad_words_ids must be lists"),
        ({"length_penalty": "long"}, "length_penalty must be a number"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size"),
    ],
)
def test_a_generation_config_that_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "bart", "bart", generation=changes)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_calls_that_are_refused(tmp_path: Path) -> None:
    model = load(folder_of(tmp_path, "bart"))
    for arguments, message in [
        ({"beams": 0}, "beams must be 1 or more, not 0"),
        ({"max_tokens": 0}, "max_tokens must be 1 or more, not 0"),
        ({"max_tokens": 48}, "max_tokens must be at most 47"),
        ({"early_stopping": "soon"}, "early_stopping must be True, False or 'never'"),
        ({"prompt": []}, "prompt must have a token"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.generate([[5, 2]], **arguments)
    with pytest.raises(ValueError, match="source 1 has no token"):
        model.generate([[5, 2], []])
    with pytest.raises(ValueError, match="token_ids have 49 tokens a row"):
        model.encode(np.ones((1, 49), np.int64))
    state = model.encode([[5, 2]])
    with pytest.raises(ValueError, match=r"token_ids must be \(1, S\)"):
        model.step([1, 2], state)
    with pytest.raises(ValueError, match="texts would have 49 tokens"):
        model.step(np.ones((1, 49), np.int64), state)
    assert state.position == 0
    assert model.generate([]) == []


def test_without_a_first_token(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "bart", "bart", generation={"eos_token_id": 2})
    model = load(folder)
    with pytest.raises(ValueError, match="no decoder_start_token_id"):
        model.generate([[5, 2]])
    assert len(model.generate([[5, 2]], prompt=[4], max_tokens=3)[0]) <= 3
