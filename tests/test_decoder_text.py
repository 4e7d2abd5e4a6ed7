"""The tokenizer inside a decoder: text → ids → text, in whole characters, and what ends a text."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, processors

from numattn.models import Llama
from numattn.models.decoders.detokenizer import Detokenizer
from tiny_decoders import load, write_folder
from tiny_tokenizers import KINDS, SIZE, bytes_tokenizer, text_model, write_text_folder

TEXTS = [
    "the cat sat",
    "  two  spaces ",
    "naïve café — 日本語 🙂👍🏽 the",
    "\n\ttabs\r\n",
    "🙂🙂🙂🙂🙂🙂🙂🙂",
    "a",
    "",
]


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    return text_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.parametrize("text", TEXTS)
def test_there_and_back(model: Llama, text: str) -> None:
    ids = model.tokenize(text)
    assert ids == model.tokenizer.encode(text).ids
    assert model.detokenize(ids) == model.detokenize(np.array(ids, dtype=np.int32)) == text
    kept = model.detokenize(ids, keep_special=True)
    assert kept == (f"<s>{' ' * bool(text)}{text}" if ids[:1] == [1] else text)


def test_what_comes_before_a_text(tmp_path: Path) -> None:
    """The post-processor says it, and where there is none, add_bos_token."""
    pieces = text_model(tmp_path / "a", "pieces", tokenizer_config={"add_bos_token": False})
    assert pieces.tokenize("the")[0] == 1 != pieces.tokenize("the", add_special_tokens=False)[0]
    for number, (config, first) in enumerate(
        [
            ({}, None),
            ({"bos_token": "<|bos|>"}, None),
            ({"add_bos_token": True, "bos_token": "<|bos|>"}, 0),
            ({"add_bos_token": True, "bos_token": {"content": "<|end|>"}}, 1),
        ]
    ):
        model = text_model(tmp_path / str(number), tokenizer_config=config)
        plain = model.tokenize("the", add_special_tokens=False)
        assert model.tokenize("the") == ([] if first is None else [first]) + plain
    broken = text_model(tmp_path / "b", tokenizer_config={"add_bos_token": True, "bos_token": "no"})
    with pytest.raises(ValueError, match="add_bos_token is true, and bos_token 'no' is no token"):
        broken.tokenize("the")


def test_neither_the_length_nor_the_padding_of_the_file_counts(tmp_path: Path) -> None:
    folder = write_text_folder(tmp_path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(folder / "tokenizer.json"))
    model = Llama.from_folder(folder)
    assert model.tokenize("cat mat dog") == bytes_tokenizer().encode("cat mat dog").ids


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("cut", [0, 1, 2, 3, 7, 20])
def test_pieces_are_the_text_and_whole(model: Llama, text: str, cut: int) -> None:
    ids = model.tokenize(text)
    before, after = ids[:cut], ids[cut:]
    detokenizer = model.detokenizer(before)
    pieces = [detokenizer.add(token) for token in after]
    known = next(
        model.detokenize(before[:end])
        for end in range(len(before), -1, -1)
        if not model.detokenize(before[:end]).endswith("\ufffd")
    )
    assert known + "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert detokenizer.finish() == ""
    assert any(pieces) or known == text


def test_long_texts_come_piece_by_piece(model: Llama) -> None:
    """Nothing waits for the end of a text, and the window of tokens decoded again stays small."""
    text = "the cat 🙂 sat é日 " * 40
    detokenizer = model.detokenizer()
    whole, held = "", 0
    for token in model.tokenize(text):
        piece = detokenizer.add(token)
        whole += piece
        held = 0 if piece else held + 1
        assert held <= 4
    assert whole == text


def test_pieces_of_random_tokens(model: Llama, rng: np.random.Generator) -> None:
    """After any beginning what comes is the end of the whole, if that is made of characters."""
    tried = 0
    for _ in range(300):
        ids: list[int] = []
        for _ in range(rng.integers(1, 6)):
            if rng.random() < 0.7:
                text = "".join(rng.choice([*"the cat 日é🙂\n"], rng.integers(1, 6)))
                ids += model.tokenize(text, add_special_tokens=False)
            else:
                ids += rng.integers(0, SIZE, 2).tolist()
        whole, cut = model.detokenize(ids), int(rng.integers(0, len(ids)))
        if "\ufffd" not in whole:
            detokenizer = model.detokenizer(ids[:cut])
            got = "".join(map(detokenizer.add, ids[cut:])) + detokenizer.finish()
            assert whole.endswith(got) if cut else whole == got
            tried += 1
    assert tried > 50


def test_what_is_no_character_is_not_held_for_ever(model: Llama) -> None:
    """Bytes that begin no character: some U+FFFD for them, and what follows is whole again."""
    wrong = model.tokenizer.token_to_id("<0xFF>") or model.tokenizer.token_to_id("ÿ")
    good = model.tokenize("é the", add_special_tokens=False)
    detokenizer = model.detokenizer()
    pieces = [detokenizer.add(token) for token in [wrong] * 9 + good]
    assert "".join(pieces[:9]).strip("\ufffd") == ""
    assert len("".join(pieces[:9])) >= 4
    assert "".join(pieces).endswith("é the")
    detokenizer = model.detokenizer()
    assert (detokenizer.add(wrong), detokenizer.finish()) == ("", "\ufffd")
    assert detokenizer.finish() == ""
    assert model.detokenizer([*good, wrong]).finish() == ""  # which is not what follows


def test_special_tokens_among_others(model: Llama) -> None:
    special = 1
    the, cat = model.tokenize("the cat", add_special_tokens=False)[:1], model.tokenize(" cat")
    tokens = [*the, special, *cat]
    for keep in (False, True):
        detokenizer = model.detokenizer(keep_special=keep)
        pieces = [detokenizer.add(token) for token in tokens]
        assert "".join(pieces) == model.detokenize(tokens, keep_special=keep)
    assert Detokenizer(model.tokenizer, [special]).add(the[0]) == model.detokenize(the)


def test_a_token_that_the_tokenizer_has_not(model: Llama) -> None:
    """Models have more rows than tokens, to fill up a size."""
    assert model.tokenizer.get_vocab_size() < SIZE
    assert model.detokenizer().add(SIZE - 1) == model.detokenize([SIZE - 1]) == ""


@pytest.mark.parametrize(
    ("generation", "config", "tokenizer", "expected"),
    [
        (None, {}, None, set()),
        (None, {"eos_token_id": 7}, None, {7}),
        (None, {"eos_token_id": [7, 0]}, None, {7, 0}),
        ({"eos_token_id": [5, 6]}, {"eos_token_id": 7}, None, {5, 6}),
        ({"eos_token_id": None}, {"eos_token_id": 7}, None, {7}),
        ({}, {}, {"eos_token": "<|end|>"}, {1}),
        (None, {}, {"eos_token": {"content": "<|im_end|>"}}, {3}),
        (None, {"eos_token_id": 7}, {"eos_token": "<|end|>"}, {7}),
    ],
)
def test_end_tokens(
    tmp_path: Path, generation: Any, config: Any, tokenizer: Any, expected: set[int]
) -> None:
    model = text_model(
        tmp_path, config=config, generation_config=generation, tokenizer_config=tokenizer
    )
    assert model.end_tokens == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("x", "eos_token_id must be a token's id or a list of them, not 'x'"),
        ([1, None], r"eos_token_id must be a token's id or a list of them, not \[1, None\]"),
        (-1, "eos_token_id must be a token's id or a list of them, not -1"),
        (True, "eos_token_id must be a token's id or a list of them, not True"),
        ([3, SIZE], rf"eos_token_id must be in 0 … {SIZE - 1}, not \[3, {SIZE}\]"),
    ],
)
def test_end_tokens_that_are_none(tmp_path: Path, value: Any, message: str) -> None:
    model = text_model(tmp_path, generation_config={"eos_token_id": value})
    with pytest.raises(ValueError, match=message):
        model.end_tokens  # noqa: B018


def test_ids_alone_need_no_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_text_folder(tmp_path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    (folder / "tokenizer_config.json").write_text("no JSON", encoding="utf-8")
    model = Llama.from_folder(folder)
    assert len(model.generate([[1, 2]], 3)[0]) == 3
    with pytest.raises(ImportError, match="needs tokenizers: pip install 'numattn.models.'"):
        model.tokenize("a")
    copy = pickle.loads(pickle.dumps(model))
    with pytest.raises(ImportError, match="needs tokenizers"):
        copy.tokenize("a")


def test_folders_without_a_tokenizer(tmp_path: Path) -> None:
    model = load(write_folder(tmp_path), "llama")
    with pytest.raises(FileNotFoundError, match="no tokenizer.json in "):
        model.tokenize("a")
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="tokenizer.json is not a tokenizer"):
        model.tokenize("a")
    model.text_source = None
    with pytest.raises(ValueError, match="the model has no tokenizer: it was not loaded from a fo"):
        model.tokenize("a")


@pytest.mark.parametrize("side", ["single", "pair"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_template_without_the_ids_of_its_tokens(tmp_path: Path, side: str, nested: bool) -> None:
    whole = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    whole.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1")
    state = json.loads(whole.to_str())
    piece = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
    state["post_processor"][side].insert(0, piece)
    if nested:
        template = state["post_processor"]
        state["post_processor"] = {"type": "Sequence", "processors": [template]}
    write_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer.json: .* template names '\[CLS\]'"):
        load(tmp_path, "llama").tokenize("a")


def test_code_of_the_folder_is_refused(tmp_path: Path) -> None:
    own = {"auto_map": {"AutoTokenizer": ["tokenization.LlamaTokenizer", None]}}
    assert text_model(tmp_path / "a", tokenizer_config=own | {"auto_map": None}).tokenize("a")
    foreign = {"auto_map": {"AutoTokenizer": ["tokenization.MyTokenizer", None]}}
    model = text_model(tmp_path / "b", tokenizer_config=foreign)
    with pytest.raises(ValueError, match="names code of the folder's own, which is not run"):
        model.tokenize("a")


def test_a_pickled_model_needs_no_folder(tmp_path: Path) -> None:
    config = {"chat_template": "{{ messages[0].content }}", "eos_token": "<|end|>"}
    model = text_model(tmp_path, tokenizer_config=config)
    data = pickle.dumps(model)
    for path in tmp_path.iterdir():
        path.unlink()
    copy = pickle.loads(data)
    ids = copy.tokenize("the cat")
    assert copy.detokenize(ids) == "the cat"
    assert copy.end_tokens == {1}
    assert copy.chat_prompt([{"role": "user", "content": "the cat"}]) == ids


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (b"a", TypeError, "texts must be strings, not bytes"),
        (None, TypeError, "texts must be strings, not NoneType"),
        (["a"], TypeError, "texts must be strings, not list"),
        ("\ud800", ValueError, "is not Unicode: surrogates not allowed"),
    ],
)
def test_what_is_no_text(model: Llama, text: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        model.tokenize(text)


def test_what_are_no_tokens(model: Llama) -> None:
    with pytest.raises(TypeError, match="tokens must be a sequence of integers, not 'a'"):
        model.detokenize("a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"must be in 0 … {SIZE - 1}, not {SIZE} … {SIZE}"):
        model.detokenize([SIZE])
    with pytest.raises(TypeError, match="before must be a sequence of integers"):
        model.detokenizer([1.5])  # type: ignore[list-item]


def test_special_tokens_of_older_folders(tmp_path: Path) -> None:
    model = text_model(tmp_path, tokenizer_config={"eos_token": None, "bos_token": "<|bos|>"})
    names = {"eos_token": {"content": "<|end|>"}, "bos_token": "x", "unk_token": "<unk>"}
    path = tmp_path / "special_tokens_map.json"
    path.write_text(json.dumps(names), encoding="utf-8")
    assert model.text_source is not None
    expected = {"eos_token": "<|end|>", "bos_token": "<|bos|>", "unk_token": "<unk>"}
    assert model.text_source.special_tokens == expected
    path.write_text(json.dumps({"eos_token": 3}), encoding="utf-8")
    with pytest.raises(ValueError, match="special_tokens_map.json: eos_token must be a text, not"):
        Llama.from_folder(tmp_path).end_tokens  # noqa: B018


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("add_bos", [None, False, True])
def test_as_transformers(tmp_path: Path, kind: str, add_bos: bool | None) -> None:
    """The same ids and texts as of its tokenizer for such a folder."""
    transformers = pytest.importorskip("transformers")
    bos = {"bytes": "<|bos|>", "pieces": "<s>"}[kind]
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos}
    if add_bos is not None and kind == "pieces":  # which has a post-processor
        config |= {"add_bos_token": add_bos}
    model = text_model(tmp_path, kind, tokenizer_config=config)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        ids = model.tokenize(text)
        assert ids == theirs(text)["input_ids"]
        assert model.detokenize(ids) == theirs.decode(ids, skip_special_tokens=True)
        kept = model.detokenize(ids, keep_special=True)
        assert kept == theirs.decode(ids)
        plain = model.tokenize(text, add_special_tokens=False)
        assert plain == theirs(text, add_special_tokens=False)["input_ids"]
