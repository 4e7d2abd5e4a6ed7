"""Folders of CTranslate2's beside what its own library makes of them, and damaged ones."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctranslate2_folders import after_name, changed_number, read_case, write_case
from numattn.models import Bart, Gpt, Llama, Whisper, load
from numattn.models.files.ctranslate2_file import STORED, Ctranslate2File

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
    np.testing.assert_allclose(got, case["log_probs"], rtol=0, atol=2e-5)


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
    np.testing.assert_allclose(got, case["log_probs"], rtol=0, atol=2e-5)
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


def ended(ids: np.ndarray) -> np.ndarray:
    return np.concatenate([ids, np.full((len(ids), 1), 2)], axis=1)


@pytest.mark.parametrize("name", DECODERS)
def test_decoders(tmp_path: Path, name: str) -> None:
    case, model = read_case(name), load(write_case(tmp_path, name))
    assert type(model) is (Gpt if name == "gpt2" else Llama)
    expected = case["logits"]
    tolerance = {"rtol": 0, "atol": 1e-5 * np.abs(expected).max()}
    np.testing.assert_allclose(model(case["ids"]), expected, **tolerance)
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


# --- what is damaged, or not supported ------------------------------------------------------------


def test_a_file_that_is_cut_short(tmp_path: Path) -> None:
    """At whatever byte; nothing that it claims to hold is made room for."""
    data = read_case("marian")["file_model.bin"].tobytes()
    ends = [*range(0, 60, 7), *range(100, len(data), 1009), len(data) - 1]
    for end in ends:
        folder = write_case(tmp_path, "marian", model=data[:end])
        with pytest.raises(ValueError, match=r"model\.bin.*is missing"):
            load(folder)
    with pytest.raises(ValueError, match="goes on after its aliases, by 3 bytes"):
        load(write_case(tmp_path, "marian", model=data + b"abc"))


@pytest.mark.parametrize(
    ("start", "bytes_", "message"),
    [
        (0, struct.pack("<I", 7), "version 7, which is not read: those read are 4, 5, 6"),
        (0, b"PK\x03\x04", "is not a model of CTranslate2's"),
        (6, b"TransformerSpex", "specification 'TransformerSpex' is not supported"),
        (21, b"x", "no name at byte 4: it does not end in 0"),
        (7, b"\xff", "no name at byte 4"),
        (22, struct.pack("<I", 6), "revision 6 of TransformerSpec is not supported; supported: 7"),
        (26, struct.pack("<I", 2**32 - 1), "is not a model of CTranslate2's"),
    ],
)
def test_a_damaged_head(tmp_path: Path, start: int, bytes_: bytes, message: str) -> None:
    data = bytearray(read_case("marian")["file_model.bin"].tobytes())
    data[start : start + len(bytes_)] = bytes_
    with pytest.raises(ValueError, match=message):
        load(write_case(tmp_path, "marian", model=bytes(data)))


@pytest.mark.parametrize("case", ["opennmt", "llama", "whisper"])
def test_damaged_bits(tmp_path: Path, case: str, rng: np.random.Generator) -> None:
    """Any but those of weights: the same model, another one, or an error that names the file."""
    folder = write_case(tmp_path, case)
    path, variables = folder / "model.bin", Ctranslate2File(folder).variables.values()
    data = path.read_bytes()
    inside = np.zeros(len(data), np.bool_)
    for variable in variables:
        if variable.shape:
            size = np.dtype(STORED[variable.kind]).itemsize * int(np.prod(variable.shape))
            inside[variable.start : variable.start + size] = True
    failures = 0
    for place in rng.choice(np.flatnonzero(~inside), 40).tolist():
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            load(folder)
        except ValueError as error:
            assert str(folder) in str(error)
            failures += 1
    assert failures > 30


@pytest.mark.parametrize(
    ("place", "bytes_", "message"),
    [
        (0, b"\x09", "'decoder/embeddings/weight' has 9 axes"),
        (1, struct.pack("<I", 2**31), "takes 137438953472 bytes, and has 2560"),
        (1, struct.pack("<I", 41), r"of shape \(41, 16\) and float32 takes 2624 bytes"),
        (9, b"\x06", "'decoder/embeddings/weight' is of kind 6, which is unknown"),
        (9, b"\x01", "takes 640 bytes, and has 2560"),
        (10, struct.pack("<I", 2**32 - 1), "takes 2560 bytes, and has 4294967295"),
    ],
)
def test_a_damaged_variable(tmp_path: Path, place: int, bytes_: bytes, message: str) -> None:
    data = bytearray(read_case("marian")["file_model.bin"].tobytes())
    start = after_name(bytes(data), "decoder/embeddings/weight") + place
    data[start : start + len(bytes_)] = bytes_
    with pytest.raises(ValueError, match=message):
        load(write_case(tmp_path, "marian", model=bytes(data)))


@pytest.mark.parametrize(
    ("case", "name", "value", "form", "message"),
    [
        ("marian", "decoder/alibi", 1, "<b", "decoder/alibi 1.0 is not supported; supported: 0"),
        ("marian", "decoder/activation", 5, "<b", "activation of the encoder, 2.0, and of the dec"),
        ("marian", "encoder/num_heads", 3, "<h", "16 numbers do not divide into 3 encoder/num_he"),
        ("marian", "encoder/num_heads", 0, "<h", "do not divide into 0 encoder/num_heads"),
        ("marian", "encoder/pre_norm", 1, "<b", "pre_norm of the encoder, 1.0, and of the decod"),
        ("marian", "encoder/scale_embeddings", 3.5, "<f", "scale_embeddings of the encoder, 3.5"),
        ("llama", "decoder/activation", 5, "<b", "decoder/activation 5 is not supported"),
        ("llama", "decoder/scale_embeddings", 1, "<b", "scale_embeddings 4.0 is not supported"),
        ("llama", "decoder/pre_norm", 0, "<b", "decoder/pre_norm 0.0 is not supported"),
        ("llama", "decoder/layer_1/self_attention/rotary_base", 5, "<f", "must be the same in all"),
        ("linear", "decoder/layer_0/self_attention/rotary_scaling_type", 2, "<b",
         "must be the same in all layers"),
        ("whisper", "decoder/activation", 0, "<b", "decoder/activation 0.0 is not supported; supp"),
    ],
)  # fmt: skip
def test_choices_that_are_not_supported(
    tmp_path: Path, case: str, name: str, value: float, form: str, message: str
) -> None:
    data = read_case(case)["file_model.bin"].tobytes()
    folder = write_case(tmp_path, case, model=changed_number(data, name, value, form))
    with pytest.raises(ValueError, match=message) as caught:
        load(folder)
    assert str(folder / "model.bin") in str(caught.value)


@pytest.mark.parametrize("case", ["marian", "llama", "whisper"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite(tmp_path: Path, case: str, value: float) -> None:
    name = "decoder/num_heads"
    data = changed_number(read_case(case)["file_model.bin"].tobytes(), name, value, "<e")
    start = after_name(data, name)
    assert data[start : start + 2] == b"\0\2"  # no axes, and int16
    damaged = data[: start + 1] + b"\4" + data[start + 2 :]
    folder = write_case(tmp_path, case, model=damaged)
    with pytest.raises(ValueError, match=f"{name} in {folder}/model.bin is {value}, and not fin"):
        load(folder)


@pytest.mark.parametrize(
    ("case", "old", "new", "message"),
    [
        ("marian", b"encoder/layer_1/ffn/linear_0/bias\0", b"encoder/layer_1/ffn/linear_0/bios\0",
         "has no variable encoder/layer_1/ffn/linear_0/bias"),
        ("llama", b"decoder/layer_0/ffn/linear_1/weight_scale\0",
         b"decoder/layer_0/ffn/linear_1/weight_scole\0", "is int8, without a scale for each"),
        ("llama", b"decoder/layer_0/self_attention/num_heads_kv\0",
         b"decoder/layer_0/self_attention/num_heads_kx\0", "must be the same in all layers"),
        ("llama", b"decoder/alignment_heads\0", b"decoder/sliding_window_\0",
         "that the model of its configuration does not use: decoder/sliding_window_"),
        ("gpt2", b"layer_1/", b"layer_3/", "has no variable decoder/layer_1"),
        ("gpt2", b"layer_1/", b"layer_0/", r"has a variable 'decoder/layer_0/\S+' twice"),
    ],
)  # fmt: skip
def test_variables_that_are_missing_or_unused(
    tmp_path: Path, case: str, old: bytes, new: bytes, message: str
) -> None:
    data = read_case(case)["file_model.bin"].tobytes()
    assert old in data
    with pytest.raises(ValueError, match=message):
        load(write_case(tmp_path, case, model=data.replace(old, new)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eos_token": "</x>"}, "eos_token '</x>' is no token of the vocabulary"),
        ({"eos_token": None}, "eos_token None is no token of the vocabulary"),
        ({"add_source_bos": 3}, "add_source_bos must be true or false, not 3"),
        ({"layer_norm_epsilon": "x"}, "layer_norm_epsilon must be a positive number, not 'x'"),
    ],
)
def test_settings(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = write_case(tmp_path, "bart")
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, **changes}))
    with pytest.raises(ValueError, match=message):
        load(folder)
    path.write_text(json.dumps(settings | {"decoder_start_token": None}))
    model = load(folder)
    with pytest.raises(ValueError, match="prompt must be given"):
        model.generate([[5, 2]])
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no config\.json in"):
        load(folder)


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
