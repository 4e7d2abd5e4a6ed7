"""Tokenizers of folders without tokenizer.json."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numattn.models import Bert, load
from numattn.models.files.piece_pairs import merges_of
from numattn.models.files.tokens import load_tokenizer
from tiny_bert import SENTENCES, VOCABULARY, write_folder
from tiny_decoders import write_folder as write_decoder

BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MPNET_SPECIAL = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz.,'", *("##" + x for x in "abcdefghijklmnopqrstuvwxyz")]
CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "Attention weighs the values of all keys; a query is one row of many.",
    "Numbers such as 12, 345 and 6,789 are words too, and so is naïve café.",
    "She sells sea shells by the sea shore, the shells she sells are sea shells.",
] * 5
TEXTS = [
    "The quick brown fox", "naïve CAFÉ, ﬁne ½", "", "  two  spaces ", "[CLS] a [MASK] b",
    "a <mask> b", "数学 attention", "tab\tnew\nline", "“quotes” ``x'' <s> </s>", "sea<unk>🙂",
]  # fmt: skip
KINDS = ["bert", "distilbert", "electra", "mpnet", "roberta", "bart", "gpt2", "xlm-roberta",
         "camembert", "albert"]  # fmt: skip


def write(folder: Path, kind: str, **settings: Any) -> Path:
    """Write the vocabulary of a kind of tokenizer, and config.json."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    if kind in ("roberta", "bart", "gpt2"):
        from tokenizers import ByteLevelBPETokenizer

        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        made = ByteLevelBPETokenizer()
        made.train_from_iterator(
            CORPUS,
            vocab_size=350,
            special_tokens=special if kind != "gpt2" else ["<|endoftext|>"],
            show_progress=False,
        )
        made.save_model(str(folder))
    elif kind in ("xlm-roberta", "camembert", "albert"):
        name = "spiece.model" if kind == "albert" else "sentencepiece.bpe.model"
        (folder / name).write_bytes(pieces(kind))
    else:
        special = MPNET_SPECIAL if kind == "mpnet" else BERT_SPECIAL
        words = ["the", "quick", "sea", "shells", "##ells", "cafe", "café", "naive"]
        path = folder / "vocab.txt"
        path.write_text("\n".join([*special, *LETTERS, *words]) + "\n", encoding="utf-8")
    return folder


def pieces(kind: str, **options: Any) -> bytes:
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    special: dict[str, Any] = {}
    if kind == "albert":
        special = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1,
                   "control_symbols": ["[CLS]", "[SEP]", "[MASK]"]}  # fmt: skip
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=out, minloglevel=2, num_threads=1,
        **{"vocab_size": 70, "model_type": "unigram", **special, **options},
    )  # fmt: skip
    return out.getvalue()


# What a tokenizer.model of pairs is trained to, by what Llama's and Gemma's are.
LLAMA: dict[str, Any] = {
    "model_type": "bpe", "vocab_size": 350, "character_coverage": 1.0, "byte_fallback": True,
    "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
}  # fmt: skip
GEMMA: dict[str, Any] = {
    **LLAMA, "add_dummy_prefix": False, "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3,
    "bos_piece": "<bos>", "eos_piece": "<eos>",
}  # fmt: skip


def write_pairs(folder: Path, kind: str, settings: dict[str, Any], **options: Any) -> Path:
    """Write a tokenizer.model of Llama's or Gemma's kind, and what stands beside it."""
    folder.mkdir(exist_ok=True)
    trained = {**(LLAMA if kind == "llama" else GEMMA), **options}
    (folder / "tokenizer.model").write_bytes(pieces(kind, **trained))
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    if settings:
        settings = {"tokenizer_class": f"{kind.title()}Tokenizer", **settings}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def random_texts(count: int) -> list[str]:
    """Return texts of letters, spaces, and characters that the pieces lack."""
    rng = np.random.default_rng(0)
    letters = [*"abcdefghij klmnop  qrst uvwxyz.,é数\n\t🙂"]
    texts = ["".join(rng.choice(letters, rng.integers(1, 30))) for _ in range(count)]
    words = " ".join(CORPUS).split()
    return texts + [" ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(count // 2)]


@pytest.mark.parametrize(
    ("kind", "settings", "options"),
    [
        ("llama", {"add_bos_token": True}, {}),
        ("llama", {"add_bos_token": False, "add_eos_token": True, "legacy": True}, {}),
        ("llama", {"add_bos_token": True, "add_prefix_space": False}, {}),
        ("llama", {"add_bos_token": True}, {"user_defined_symbols": ["sea", "qu"]}),
        ("gemma", {"add_bos_token": True}, {}),
        ("gemma", {"add_bos_token": True}, {"control_symbols": ["<start_of_turn>"]}),
    ],
)  # fmt: skip
def test_pieces_that_are_joined_are_those_of_transformers(
    tmp_path: Path, kind: str, settings: dict[str, Any], options: dict[str, Any]
) -> None:
    transformers = pytest.importorskip("transformers")
    folder = write_pairs(tmp_path, kind, settings, **options)
    made = load_tokenizer(folder)
    theirs = getattr(transformers, f"{kind.title()}Tokenizer").from_pretrained(folder)
    texts = [*TEXTS, *random_texts(200), "<start_of_turn>user", "a<s>b </s> c", "<bos>sea"]
    for text in texts:
        if kind == "gemma" and "<mask>" in text:  # which transformers adds to the vocabulary
            continue
        ids = theirs(text).input_ids
        assert made.encode(text).ids == ids, text
        assert made.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {}),
        ("llama", {"add_dummy_prefix": False}),
        ("llama", {"byte_fallback": False, "vocab_size": 120}),
        ("llama", {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True}),
        ("gemma", {}),
        ("gemma", {"byte_fallback": False, "vocab_size": 120}),
    ],
)
def test_pieces_that_are_joined_are_those_of_sentencepiece(
    tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    """But that a text with a space in front gets none more, as in transformers."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = write_pairs(tmp_path, kind, {}, **options)
    made = load_tokenizer(folder)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    texts, begin = [*TEXTS, *random_texts(200)], processor.bos_id()
    compared = 0
    for text in texts:
        if "<" in text or (text[:1] == " " and "remove_extra_whitespaces" not in options):
            continue
        ids = processor.encode(text)
        assert made.encode(text).ids == [begin, *ids], text
        if options.get("byte_fallback", True):
            assert made.decode(ids) == processor.decode(ids)
        compared += 1
    assert compared > 200


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pair", [False, True])
def test_the_ids_are_those_of_transformers(tmp_path: Path, kind: str, pair: bool) -> None:
    transformers = pytest.importorskip("transformers")
    ours = load_tokenizer(write(tmp_path, kind))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        given = (text, TEXTS[0]) if pair else (text,)
        expected, found = theirs(*given), ours.encode(*given)
        assert found.ids == expected["input_ids"]
        if "token_type_ids" in expected:
            assert found.type_ids == expected["token_type_ids"]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("bert", {"do_lower_case": False}),
        ("bert", {"strip_accents": False, "tokenize_chinese_chars": False}),
        ("distilbert", {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": True}),
        ("bert", {"mask_token": {"__type": "AddedToken", "content": "[MASK]", "lstrip": True}}),
        ("roberta", {"add_prefix_space": True}),
        ("roberta", {"mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True}}),
        ("albert", {"keep_accents": True, "do_lower_case": False}),
    ],
)
def test_settings_of_the_tokenizer(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    ours = load_tokenizer(write(tmp_path, kind, **settings))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert ours.encode(text).ids == theirs(text)["input_ids"]


def test_tokens_of_special_tokens_map(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    write(tmp_path, "bert")
    path = tmp_path / "special_tokens_map.json"
    path.write_text('{"mask_token": "shells", "cls_token": "sea"}', encoding="utf-8")
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)
    for text in (*TEXTS, "SHELLS shells"):
        assert ours.encode(text).ids == theirs(text)["input_ids"]
    assert ours.encode("a").tokens == ["sea", "a", "[SEP]"]


def test_word_pieces(tmp_path: Path) -> None:
    made = load_tokenizer(write(tmp_path, "bert"))
    assert made.encode("The Café's shells").tokens == [
        "[CLS]", "the", "cafe", "'", "s", "shells", "[SEP]"
    ]  # fmt: skip
    pair = made.encode("sea", "the")
    assert pair.tokens == ["[CLS]", "sea", "[SEP]", "the", "[SEP]"]
    assert pair.type_ids == [0, 0, 0, 1, 1]


def test_bytes_in_pairs(tmp_path: Path) -> None:
    made = load_tokenizer(write(tmp_path, "roberta"))
    found = made.encode("the dog", "sea")
    assert made.decode(found.ids, skip_special_tokens=False) == "<s>the dog</s></s>sea</s>"
    assert set(found.type_ids) == {0}


@pytest.mark.parametrize(("kind", "unknown"), [("xlm-roberta", 3), ("camembert", 3), ("albert", 1)])
def test_pieces_with_scores(tmp_path: Path, kind: str, unknown: int) -> None:
    made = load_tokenizer(write(tmp_path, kind))
    found = made.encode("the sea ☃")
    assert made.decode(found.ids).startswith("the sea")
    begin, end = ("[CLS]", "[SEP]") if kind == "albert" else ("<s>", "</s>")
    assert (found.tokens[0], found.tokens[-1]) == (begin, end)
    assert unknown in found.ids


def test_a_folder_with_a_vocabulary(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    expected = Bert.from_folder(folder).tokenize(SENTENCES)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json in"):
        Bert.from_folder(folder).tokenize(SENTENCES)
    words = [*VOCABULARY[:-1], "[MASK]"]  # which such a file has
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    found = load(folder).tokenize(SENTENCES)
    assert [ids.tolist() for ids in found.ids] == [ids.tolist() for ids in expected.ids]


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("bert", lambda f: (f / "vocab.txt").write_text("a\nb"), r"vocab\.txt has no token '\["),
        ("bert", lambda f: (f / "vocab.txt").write_bytes(b"\xff\xfe"), "is not a vocabulary"),
        ("roberta", lambda f: (f / "vocab.json").write_text("[]"), "are no vocabulary"),
        ("albert", lambda f: (f / "spiece.model").write_bytes(b"\x0a\xff"), "is not a model"),
        ("albert", lambda f: (f / "spiece.model").write_bytes(b""), "without pieces|another kind"),
        ("albert", lambda f: (f / "spiece.model").write_bytes(pieces("xlm", model_type="bpe")),
         "of another kind than unigram"),
        ("bert", lambda f: (f / "added_tokens.json").write_text('{"new": 66}'),
         r"added_tokens\.json has a token 'new' beside the vocabulary"),
        ("bert", lambda f: (f / "tokenizer_config.json").write_text(
            '{"added_tokens_decoder": {"99": {"content": "[X]"}}}'), "token '\\[X\\]' beside"),
        ("bert", lambda f: (f / "tokenizer_config.json").write_text('{"sep_token": 3}'),
         "sep_token 3 is no token"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, kind: str, change: Any, message: str) -> None:
    write(tmp_path, kind)
    change(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_type": "unigram", "byte_fallback": False, "vocab_size": 70},
         "of another kind than bpe"),
        ({"eos_piece": "<end>"}, r"tokenizer\.model has no token '</s>'"),
    ],
)  # fmt: skip
def test_a_tokenizer_model_that_is_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_tokenizer(write_pairs(tmp_path, "llama", {}, **options))


def test_a_tokenizer_model_that_is_cut_short(tmp_path: Path) -> None:
    """At whatever byte before the settings of its training, which stand after its pieces."""
    path = write_pairs(tmp_path, "llama", {}) / "tokenizer.model"
    data = path.read_bytes()
    for end in [*range(0, len(data) * 3 // 4, 97), 1, 2]:
        path.write_bytes(data[:end])
        with pytest.raises(ValueError, match=r"tokenizer\.model is (not a model|a model)"):
            load_tokenizer(tmp_path)
    path.write_bytes(b"IQ== 0\nIg== 1\n")  # of tiktoken, as Meta's own folders of Llama 3 have it
    with pytest.raises(ValueError, match=r"tokenizer\.model is (not a model|a model)"):
        load_tokenizer(tmp_path)


def test_a_folder_of_llama_s_with_a_tokenizer_model(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = write_decoder(tmp_path, "llama")
    small = {"vocab_size": 61, "byte_fallback": False, "character_coverage": 0.98}
    write_pairs(tmp_path / "pieces", "llama", {}, **small)
    (tmp_path / "pieces" / "tokenizer.model").rename(folder / "tokenizer.model")
    model, text = load(folder), "the quick sea"
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    assert model.tokenize(text) == [1, *processor.encode(text)]
    written = model.generate_text(text, 5)
    assert written.tokens == model.generate([model.tokenize(text)], 5)[0]


def test_added_tokens_of_the_vocabulary(tmp_path: Path) -> None:
    tokens = {str(i): {"content": text} for i, text in enumerate(BERT_SPECIAL)}
    assert load_tokenizer(write(tmp_path, "bert", added_tokens_decoder=tokens)).encode("sea").ids


def test_a_piece_of_many_characters_is_not_cut_everywhere() -> None:
    """As in a damaged file, whose cuts would be copies of half of it each."""
    cuts = []

    class Piece(str):
        def __getitem__(self, place: Any) -> str:
            cuts.append(place)
            return str.__getitem__(self, place)

    pieces = ["a", "b", "ab", Piece("a" * 3000)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    assert merges_of(vocabulary, [0, 0, -1, -2]) == [("a", "b")]
    assert len(cuts) < 10
    vocabulary |= {Piece("a" * 2999): 4}
    assert merges_of(vocabulary, [0, 0, -1, -2, -3])[-1] == ("a" * 2999, "a")


def test_without_sentencepiece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    write(tmp_path, "albert")
    monkeypatch.setitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", None)
    with pytest.raises(ImportError, match=r"spiece\.model needs .*'numattn\[sentencepiece\]'"):
        load_tokenizer(tmp_path)
