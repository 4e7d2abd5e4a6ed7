"""Texts of encoder–decoders: tokenizer.json, pieces of sentencepiece, and the command."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from command_line import refused
from ctranslate2_folders import write_case
from numattn.cli import main
from numattn.models import load
from numattn.models.encoder_decoder.text_tokens import TextTokens
from test_sound import write_wav
from tiny_encoder_decoders import (
    CONFIGS,
    VOCABULARY,
    WHISPER,
    settings_of,
    speech_like,
    write_folder,
    write_whisper,
)

TEXTS = ["the cat sat on the mat", "a dog saw the cat and ran", "the dog sat", "cats and dogs"]


def write_tokenizer(folder: Path, size: int, end: int) -> None:
    """Write a tokenizer of words "w0" …, with the end token after a text."""
    words = {f"w{number}": number for number in range(size) if number != end} | {"</s>": end}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", end)])
    tokenizer.save(str(folder / "tokenizer.json"))


def test_texts_are_those_of_ids(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "t5", "t5", generation=settings_of(CONFIGS["t5"]))
    model = load(folder)
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json"):
        model.generate_text(["w5 w6"])
    write_tokenizer(folder, VOCABULARY, 1)
    tokens = model.generate([[5, 6, 1]], beams=2)[0]
    expected = " ".join(f"w{token}" for token in tokens if token != 1)
    assert model.generate_text(["w5 w6"], beams=2) == [expected]
    assert model.translate(iter(["w5 w6"]), beams=2) == [expected]
    with pytest.raises(TypeError, match="put a single one into a list"):
        model.generate_text("w5")


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("clean", [False, True])
def test_spaces_before_points(tmp_path: Path, pairs: bool, clean: bool) -> None:
    words = {word: number for number, word in enumerate(["u", "it", "does", "n't", "go", ".", "'"])}
    kind = models.BPE(words, []) if pairs else models.WordLevel(words, unk_token="u")
    Tokenizer(kind).save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "TokenizersBackend", "clean_up_tokenization_spaces": clean}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ids = [1, 2, 3, 4, 6, 1, 5]
    cleaned = clean and not pairs
    expected = "it doesn't go'it." if cleaned else "it does n't go ' it ."
    assert TextTokens(tmp_path).decode(ids) == expected
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert theirs.decode(ids, skip_special_tokens=True) == expected


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pieces of sentencepiece, learned from a few texts."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("marian")
    write_folder(folder, "marian", generation=settings_of(CONFIGS["marian"]))
    for name, texts in (("source", TEXTS), ("target", [text.upper() for text in TEXTS])):
        data = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts * 5), model_writer=data, vocab_size=30,
            hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
        (folder / f"{name}.spm").write_bytes(data.getvalue())
    read = [
        sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{name}.spm"))
        for name in ("source", "target")
    ]
    pieces = ["a0", "<unk>", "</s>", ">>pt<<"]
    for each in read:
        pieces += [each.id_to_piece(number) for number in range(3, each.get_piece_size())]
    names = [*dict.fromkeys(pieces)][: VOCABULARY - 1]
    vocabulary = {piece: number for number, piece in enumerate(names)}
    vocabulary["<pad>"] = VOCABULARY - 1
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    return folder


def test_pieces(marian: Path) -> None:
    tokens = TextTokens(marian)
    vocabulary = json.loads((marian / "vocab.json").read_text(encoding="utf-8"))
    ids = tokens.encode(">>pt<<the cat ξ")
    assert ids[0] == vocabulary[">>pt<<"] and ids[-1] == vocabulary["</s>"]
    assert vocabulary["<unk>"] in ids
    pieces = {number: piece for piece, number in vocabulary.items()}
    said = "".join(pieces[number] for number in ids[1:-1]).replace("<unk>", "ξ")
    assert said.replace("▁", " ").strip() == "the cat ξ"
    upper = [vocabulary[piece] for piece in ("▁", "C", "A", "T") if piece in vocabulary]
    assert tokens.decode([*upper, vocabulary["</s>"]]) == "CAT"
    model = load(marian)
    (text,) = model.translate(["the cat sat"])
    assert text == tokens.decode(model.generate([tokens.encode("the cat sat")])[0])


def test_pieces_are_transformers_own(marian: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.MarianTokenizer(
        str(marian / "source.spm"), str(marian / "target.spm"), str(marian / "vocab.json")
    )
    tokens = TextTokens(marian)
    rng = np.random.default_rng(0)
    for text in [*TEXTS, ">>pt<<the cat", "  two  spaces ", "", "ξ dog"]:
        assert tokens.encode(text) == theirs(text).input_ids
    for _ in range(10):
        ids = rng.integers(0, VOCABULARY, 12).tolist()
        ids = [number for number in ids if number in theirs.decoder]
        assert tokens.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_pieces_of_a_folder_of_ctranslate2_s(marian: Path, tmp_path: Path) -> None:
    """Its vocabulary is a list, and what it makes of texts is what CTranslate2 does."""
    folder = write_case(tmp_path / "converted", "marian")
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes((marian / name).read_bytes())
    known = json.loads((marian / "vocab.json").read_text(encoding="utf-8"))
    words = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        ">>pt<<",
        *(word for word in known if word[0] not in "<>"),
    ]
    words = words[:40]
    assert len(words) == 40
    (folder / "shared_vocabulary.json").write_text(json.dumps(words))
    model, texts = load(folder), ["the cat", ">>pt<<a dog ξ", "sat"]
    ids = [model._tokens.encode(text) for text in texts]
    assert ids[1][0] == 4 and ids[1][-1] == 2 and 3 in ids[1]
    written = [model._tokens.decode(tokens) for tokens in model.generate(ids)]
    assert model.translate(texts) == written
    ctranslate2 = pytest.importorskip("ctranslate2")
    theirs = ctranslate2.Translator(str(folder), compute_type="float32")
    found = theirs.translate_batch(
        [[words[number] for number in row] for row in ids], max_decoding_length=31
    )
    numbers = [[words.index(token) for token in each.hypotheses[0]] for each in found]
    assert written == [model._tokens.decode(tokens) for tokens in numbers]


def test_a_package_of_argos_translate_s(marian: Path, tmp_path: Path) -> None:
    """Its pieces are of one model for both languages, which stands beside the model's folder."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = write_case(tmp_path / "model", "opennmt")
    path = tmp_path / "sentencepiece.model"
    path.write_bytes((marian / "source.spm").read_bytes())
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    pieces = [processor.id_to_piece(number) for number in range(3, processor.get_piece_size())]
    source = [*["<unk>", "<s>", "</s>", *pieces][:36], "x"]
    target = ["<unk>", "<s>", "</s>", *reversed(pieces)][:31]
    source += [f"y{number}" for number in range(37 - len(source))]
    target += [f"y{number}" for number in range(31 - len(target))]
    for name, words in (("source", source), ("target", target)):
        (folder / f"{name}_vocabulary.json").write_text(json.dumps(words))
    model, text = load(folder), "the cat ξ"
    expected = [source.index(piece) if piece in source else 0
                for piece in processor.encode(text, out_type=str)]  # fmt: skip
    assert model._tokens.encode(text) == [*expected, 2]  # which add_source_eos asks for
    (ids,) = model.generate([[*expected, 2]])
    written = processor.decode_pieces([target[number] for number in ids if number not in (0, 2)])
    assert model.translate([text]) == [written.replace("▁", " ").strip()]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"sentencepiece\.model is not a model of sentencepiece's"):
        load(folder).translate([text])


def test_a_vocabulary_that_is_refused(marian: Path, tmp_path: Path) -> None:
    for name in ("source.spm", "target.spm"):
        (tmp_path / name).write_bytes((marian / name).read_bytes())
    (tmp_path / "vocab.json").write_text('{"<unk>": 0}')
    with pytest.raises(ValueError, match="has no token </s>"):
        TextTokens(tmp_path).encode("a")
    (tmp_path / "vocab.json").write_text('{"<unk>": 0, "</s>": 1}')
    assert TextTokens(tmp_path).encode("a")[-1] == 1
    (tmp_path / "target_vocab.json").write_text("{}")
    with pytest.raises(ValueError, match=r"target_vocab\.json has no token <unk>"):
        TextTokens(tmp_path).encode("a")
    (tmp_path / "target_vocab.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text('{"separate_vocabs": true}')
    with pytest.raises(FileNotFoundError, match=r"no target_vocab\.json in"):
        TextTokens(tmp_path).encode("a")


def test_pieces_of_two_vocabularies(marian: Path, tmp_path: Path) -> None:
    for name in ("source.spm", "target.spm", "vocab.json"):
        (tmp_path / name).write_bytes((marian / name).read_bytes())
    one = json.loads((marian / "vocab.json").read_text(encoding="utf-8"))
    words = ["</s>", "<unk>", *(word for word in reversed(one) if word[0] != "<"), "<pad>"]
    two = {word: number for number, word in enumerate(words)}
    (tmp_path / "target_vocab.json").write_text(json.dumps(two))
    tokens, other = TextTokens(tmp_path), TextTokens(marian)
    assert tokens.encode("the cat ξ") == other.encode("the cat ξ")
    upper = [piece for piece in ("▁", "C", "A", "T") if piece in one]
    assert tokens.decode([*(two[piece] for piece in upper), 0, two["<pad>"], 1]) == "CAT"
    transformers = pytest.importorskip("transformers")
    theirs = transformers.MarianTokenizer(
        *(str(tmp_path / name) for name in ("source.spm", "target.spm", "vocab.json")),
        target_vocab_file=str(tmp_path / "target_vocab.json"),
        separate_vocabs=True,
    )
    for text in [*TEXTS, "", "ξ dog"]:
        assert tokens.encode(text) == theirs(text).input_ids
    ids = [two[piece] for piece in upper]
    assert tokens.decode(ids) == theirs.decode(ids)


@pytest.fixture
def whisper(tmp_path: Path) -> Path:
    folder = write_whisper(tmp_path / "whisper")
    write_tokenizer(folder, WHISPER["vocab_size"], WHISPER["eos_token_id"])
    return folder


def test_the_command_with_a_folder_of_ctranslate2_s(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = write_case(tmp_path / "converted", "whisper")
    write_tokenizer(folder, 150, 40)
    path = write_wav(tmp_path / "a.wav", speech_like(0.9)[:, np.newaxis], 2, 1, 16000)
    assert main(["transcribe", str(path), "--model", str(folder), "--beams", "1"]) == 0
    (printed,) = capsys.readouterr().out.splitlines()
    model = load(folder)
    assert printed == model.transcribe(path, beams=1).text != ""


def test_the_command(whisper: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sound = speech_like(3.0)
    path = write_wav(tmp_path / "a.wav", sound[:, np.newaxis], 2, 1, 16000)
    expected = load(whisper).transcribe(path, language="de")
    options: list[Any] = ["--model", whisper, "--language", "de"]
    assert main([str(each) for each in ["transcribe", path, path, *options]]) == 0
    assert capsys.readouterr().out == f"{expected.text}\n" * 2
    assert main([str(each) for each in ["transcribe", path, "--timestamps", *options]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(expected.segments) > 1
    start, end, text = lines[0].split("\t")
    first = expected.segments[0]
    assert (start, end, text) == (f"{first.start:.2f}", f"{first.end:.2f}", first.text.strip())


def test_the_command_s_errors(
    whisper: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = write_wav(tmp_path / "a.wav", speech_like(0.5)[:, np.newaxis], 2, 1, 500)
    assert "500 samples a second" in refused(capsys, "transcribe", path, "--model", whisper)
    assert "--model" in refused(capsys, "transcribe", path)
    missing = tmp_path / "b.wav"
    assert "no b.wav" in refused(capsys, "transcribe", missing, "--model", whisper)
