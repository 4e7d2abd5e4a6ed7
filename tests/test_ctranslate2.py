"""Folders of CTranslate2's beside what its own library makes of them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from ctranslate2_folders import read_case, write_case
from numattn.models import Bart, Gpt, Llama, Whisper, load
from numattn.models.files.ctranslate2_file import Ctranslate2File

TEXT_TO_TEXT = ("marian", "marian_int8", "bart", "mbart", "m2m")
DECODERS = ("gpt2", "llama", "linear", "qwen2", "qwen3")


@pytest.mark.parametrize("name", TEXT_TO_TEXT)
def test_scores(tmp_path: Path, name: str) -> None:
    """Log-probabilities of texts that are given, and of their ends."""
    case, model = read_case(name), load(write_case(tmp_path, name))
    assert isinstance(model, Bart)
    sources, texts = ended(case["sources"]), case["texts"]
    start = 5 if name == "mbart" else model.generation.start
    given = np.concatenate([np.full((len(texts), 1), start), texts], axis=1)
    logits = model.logits(given, model.encode(sources))
    logs = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    got = np.take_along_axis(logs, ended(texts)[..., np.newaxis], axis=2)[..., 0]
    close(got, case["log_probs"])


@pytest.mark.parametrize("name", TEXT_TO_TEXT)
@pytest.mark.parametrize(("beams", "penalty"), [(1, 1.0), (2, 1.0), (4, 0.6)])
def test_texts(tmp_path: Path, name: str, beams: int, penalty: float) -> None:
    case, model = read_case(name), load(write_case(tmp_path, name))
    prompt = {"prompt": [5]} if name == "mbart" else {}
    found = model.search(
        ended(case["sources"]).tolist(),
        beams=beams,
        length_penalty=penalty,
        max_tokens=12,
        **prompt,
    )
    for row, best in enumerate(found):
        expected = case[f"tokens_{beams}"][row]
        assert best[0].tokens == expected[expected >= 0].tolist()
        if beams > 1:
            assert best[0].score == pytest.approx(case[f"scores_{beams}"][row], abs=2e-5)


def test_a_model_of_opennmt_s(tmp_path: Path) -> None:
    """Of two vocabularies; its texts end with token 28, and begin with 30."""
    case, model = read_case("opennmt"), load(write_case(tmp_path, "opennmt"))
    assert (model.source_vocab_size, model.vocab_size) == (37, 31)
    assert (model.generation.start, model.generation.rules.ends) == (30, (28,))
    assert model.config.embedding_scale == 4 and model.config.norm_first
    sources, texts = ended(case["sources"]), case["texts"]
    given = np.concatenate([np.full((len(texts), 1), 30), texts], axis=1)
    logits = model.logits(given, model.encode(sources))
    logs = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    after = np.concatenate([texts, np.full((len(texts), 1), 28)], axis=1)
    got = np.take_along_axis(logs, after[..., np.newaxis], axis=2)[..., 0]
    close(got, case["log_probs"])
    for row, best in enumerate(model.search(sources.tolist(), max_tokens=12)):
        expected = case["tokens_2"][row]
        assert best[0].tokens == expected[expected >= 0].tolist()
        assert best[0].score == pytest.approx(case["scores_2"][row], abs=2e-5)


def test_what_is_searched_for_is_ctranslate2_s(tmp_path: Path) -> None:
    """Two beams, an end after one token at the earliest."""
    case, model = read_case("marian"), load(write_case(tmp_path, "marian"))
    for row, tokens in enumerate(model.generate(ended(case["sources"]).tolist(), max_tokens=12)):
        expected = case["tokens_2"][row]
        assert tokens == expected[expected >= 0].tolist()
    rules = model.generation.rules
    assert (model.generation.beams, model.generation.max_new_tokens) == (2, 256)
    assert (rules.ends, rules.min_new_tokens) == ((2,), 1)


def test_marian_s_first_token(tmp_path: Path) -> None:
    """It is none of the vocabulary's, and never comes next; sources have it not."""
    model = load(write_case(tmp_path, "marian"))
    assert (model.vocab_size, model.source_vocab_size, model.generation.start) == (41, 40, 40)
    logits = model.step([40], model.encode([[5, 2]]))
    assert np.isneginf(logits[:, 40]).all() and np.isfinite(logits[:, :40]).all()
    with pytest.raises(ValueError, match="40"):
        model.encode([[40, 2]])


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """To 1e-5 of the largest: both sides are float32, and ours differs by 3e-6 of it (BART) between
    instruction sets alone.
    """
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def ended(ids: np.ndarray) -> np.ndarray:
    return np.concatenate([ids, np.full((len(ids), 1), 2)], axis=1)


@pytest.mark.parametrize("name", DECODERS)
def test_decoders(tmp_path: Path, name: str) -> None:
    case, model = read_case(name), load(write_case(tmp_path, name))
    assert type(model) is (Gpt if name == "gpt2" else Llama)
    close(model(case["ids"]), case["logits"])
    assert model.text_source.end_tokens == frozenset((2,))
    copy = pickle.loads(pickle.dumps(model, protocol=5))
    np.testing.assert_array_equal(copy(case["ids"]), model(case["ids"]))


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.02), ("int8", 0.001)])
@pytest.mark.parametrize("name", ["marian_int8", "llama"])
def test_stored_weights(tmp_path: Path, name: str, dtype: str, tolerance: float) -> None:
    """Its integers are those of `Linear`: by int8 no weight is rounded once more."""
    pytest.importorskip("ml_dtypes")
    folder = write_case(tmp_path, name)
    model, other = load(folder, dtype=dtype), load(folder)
    if name == "llama":
        ids = read_case(name)["ids"]
        got, expected = model(ids), other(ids)
    else:
        ids = ended(read_case(name)["sources"])
        got, expected = (each.logits(ids, each.encode(ids))[..., :40] for each in (model, other))
    assert 0 < np.linalg.norm(got - expected) < tolerance * np.linalg.norm(expected)


def test_whisper(tmp_path: Path) -> None:
    case, model = read_case("whisper"), load(write_case(tmp_path, "whisper"))
    assert isinstance(model, Whisper)
    prompt, tokens = case["prompt"].tolist(), case["tokens_1"].tolist()
    logits = model.logits([prompt + tokens], model.encode(case["frames"]))[0, len(prompt) - 1 :]
    expected = case["logits"]
    seen = expected > -1e30  # others may not come next
    assert 0.9 < seen.mean() < 1
    tolerance = {"rtol": 0, "atol": 1e-5 * np.abs(expected[seen]).max()}
    np.testing.assert_allclose(logits[: len(expected)][seen], expected[seen], **tolerance)


@pytest.mark.parametrize("beams", [1, 5])
def test_what_whisper_hears(tmp_path: Path, beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = read_case("whisper")
    model = Whisper.from_folder(write_case(tmp_path, "whisper"))
    assert model.speech.languages == {} and model.speech.no_timestamps == 45
    monkeypatch.setattr(type(model.log_mel), "__call__", lambda *_: case["frames"][0])
    monkeypatch.setattr(type(model._tokens), "decode", lambda _, tokens: str(tokens))
    found = model.transcribe(np.zeros(16000, np.float32), beams=beams, max_tokens=12)
    assert found.segments[0].tokens == case[f"tokens_{beams}"].tolist()


def test_a_whisper_of_several_languages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by its number of tokens; languages by lang_ids, or else by what stands there."""
    monkeypatch.setattr("numattn.models.encoder_decoder.ctranslate2_whisper.MULTILINGUAL", 150)
    folder = write_case(tmp_path, "whisper")
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    for ids in ([42], None, []):
        path.write_text(json.dumps(settings | {"lang_ids": ids}))
        speech = load(folder).speech
        assert speech.languages == {"en": 42}
        assert speech.tasks == {"transcribe": 44, "translate": 43}
    path.write_text(json.dumps(settings | {"lang_ids": [7]}))
    with pytest.raises(ValueError, match=r"config\.json: token 7, 't7', is of no language"):
        load(folder)


def test_a_class_of_another_specification(tmp_path: Path) -> None:
    folder = write_case(tmp_path, "marian")
    assert isinstance(Bart.from_folder(folder), Bart)
    with pytest.raises(ValueError, match="is of TransformerSpec, and not of WhisperSpec"):
        Whisper.from_folder(folder)


def test_vocabularies_of_lines(tmp_path: Path) -> None:
    folder = write_case(tmp_path, "marian")
    tokens = json.loads((folder / "shared_vocabulary.json").read_text())
    (folder / "shared_vocabulary.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no shared_vocabulary\.json in"):
        load(folder)
    for kind in ("source", "target"):
        (folder / f"{kind}_vocabulary.txt").write_text("\n".join(tokens) + "\n")
    assert load(folder).generation.rules.ends == (2,)
    (folder / "target_vocabulary.txt").write_text("\n".join(tokens[:-1]))
    with pytest.raises(ValueError, match=r"target_vocabulary\.txt has 39 tokens, and the model 40"):
        load(folder)
    (folder / "target_vocabulary.txt").write_bytes(b"\xff\n" * 40)
    with pytest.raises(ValueError, match=r"target_vocabulary\.txt is not UTF-8"):
        load(folder)


def test_texts_of_a_tokenizer_json(tmp_path: Path) -> None:
    """Its tokens are looked up in the model's vocabularies, whatever numbers it has for them."""
    tokenizers = pytest.importorskip("tokenizers")
    folder = write_case(tmp_path, "bart")
    words = {f"t{number}": 100 - number for number in range(4, 41)} | {"</s>": 0, "<unk>": 1}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 0)]
    )
    made.add_special_tokens(["</s>", "<unk>"])
    made.save(str(folder / "tokenizer.json"))
    model = load(folder)
    for each in (model, pickle.loads(pickle.dumps(model))):
        tokens = each.generate([[7, 8, 39, 2]], max_tokens=9)[0]
        expected = " ".join(f"t{token}" for token in tokens if token != 2)
        assert each.generate_text(["t7 t8 t39"], max_tokens=9) == [expected]
        assert each._tokens.encode("t7 none t9") == [7, 3, 9, 2]


def test_texts_of_a_decoder(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    folder = write_case(tmp_path, "llama")
    words = json.loads((folder / "vocabulary.json").read_text())
    numbers = {word: number for number, word in enumerate(words)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(numbers, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.save(str(folder / "tokenizer.json"))
    model = load(folder)
    assert model.tokenize("t7 t9") == [7, 9]
    assert model.text_source.special_tokens["eos_token"] == "</s>"
    numbers["t7"], numbers["t8"] = 8, 7
    other = tokenizers.Tokenizer(tokenizers.models.WordLevel(numbers, unk_token="<unk>"))
    other.save(str(folder / "tokenizer.json"))
    with pytest.raises(ValueError, match="'t7' as token 8, and the model's vocabulary as token 7"):
        load(folder).tokenize("t7")


def test_what_stands_around_a_source(tmp_path: Path) -> None:
    folder = write_case(tmp_path, "bart")
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"add_source_bos": True, "add_source_eos": True}))
    vocabularies = load(folder)._tokens.vocabularies
    assert (vocabularies.before, vocabularies.after) == ((0,), (2,))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tensors_are_read_row_by_row(tmp_path: Path, dtype: str) -> None:
    """A part has the bits that it has in the whole."""
    pytest.importorskip("ml_dtypes")
    file = Ctranslate2File(write_case(tmp_path, "marian_int8"))
    name = "encoder/layer_0/self_attention/linear_0/weight"
    whole = np.empty(file.shape(name), dtype)
    file.read(name, whole)
    part = np.empty((16, 16), dtype)
    file.read(name, part, 16)
    np.testing.assert_array_equal(part, whole[16:32])
