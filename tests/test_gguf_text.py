"""What a GGUF file says of text: the tokenizer it was made of, templates and end tokens."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from tokenizers.processors import TemplateProcessing

from numattn.models import load
from numattn.models.decoders.gguf_text import GgufText

gguf = pytest.importorskip("gguf")
tiny_gguf = pytest.importorskip("tiny_gguf")

CORPUS = [
    "The quick brown fox jumps over the lazy dog, isn't it?  It's 12345 times (and 67) more.",
    "Attention is all you need; the transformer attends to every token.\n\n  Indented text.\n",
    "Où est l'élève? Größe, naïve, coöperate — “quoted”. 注意力 です。 🙂",
] * 8
TEXTS = [
    *CORPUS[:3],
    "", " ", "  leading and trailing  ", "tabs\tand\r\nends\n\n\n", "12 345 6789", "I'LL we'Ve",
    "an <end> in a text<own>and another <end><end>", "\u00e9 and e\u0301", "\u2581mark", "a\x00b",
]  # fmt: skip
# As tokenizer.json of Llama 3 and of Qwen 2 have it.
LLAMA_3_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2_CUT = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"""
    r"""\s*[\r\n]+|\s+(?!\S)|\s+"""
)


def byte_tokenizer(pre: str) -> Tokenizer:
    """Return a tokenizer of bytes as families make it, trained on the corpus."""
    made = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    cut = {"llama-bpe": LLAMA_3_CUT, "qwen2": QWEN_2_CUT}.get(pre)
    parts: list[Any] = [] if cut is None else [pre_tokenizers.Split(Regex(cut), "isolated")]
    parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut is None))
    made.pre_tokenizer = pre_tokenizers.Sequence(parts)
    if pre == "qwen2":
        made.normalizer = normalizers.NFC()
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    ))  # fmt: skip
    made.add_special_tokens([AddedToken("<end>", normalized=False)])
    made.add_tokens([AddedToken("<own>", normalized=False)])
    return made


def add_bytes(made: Tokenizer, pre: str) -> Callable[[Any], None]:
    """Return what adds a tokenizer's vocabulary to a file, as the converter does."""
    state = made.to_str(pretty=False)
    content = json.loads(state)
    tokens = [made.id_to_token(number) for number in range(made.get_vocab_size())]
    types = {"<end>": gguf.TokenType.CONTROL, "<own>": gguf.TokenType.USER_DEFINED}

    def add(writer: Any) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(tokens)
        writer.add_token_types([types.get(token, gguf.TokenType.NORMAL) for token in tokens])
        writer.add_token_merges([" ".join(merge) for merge in content["model"]["merges"]])
        writer.add_eos_token_id(made.token_to_id("<end>"))

    return add


def text_of(folder: Path, tokenizer: Callable[[Any], None]) -> GgufText:
    """Write a file with a tokenizer, and return its text after a way through pickle."""
    path = folder / "model.gguf"
    tiny_gguf.write_gguf(path, "llama", tokenizer=tokenizer)
    return pickle.loads(pickle.dumps(load(path).text_source))


def assert_same_tokens(got: Tokenizer, expected: Tokenizer) -> None:
    for text in TEXTS:
        ids = expected.encode(text).ids
        assert got.encode(text).ids == ids, text
        assert got.decode(ids) == expected.decode(ids), text
        assert got.decode(ids, False) == expected.decode(ids, False), text


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2"])
def test_pairs_of_bytes(tmp_path: Path, pre: str) -> None:
    expected = byte_tokenizer(pre)
    text = text_of(tmp_path, add_bytes(expected, pre))
    assert_same_tokens(text.tokenizer, expected)
    assert text.end_tokens == {expected.token_to_id("<end>")}
    assert text.special_tokens == {"eos_token": "<end>"}
    assert text.templates == {}


@pytest.mark.parametrize(
    ("pre", "begins", "ends", "parts"),
    [
        ("llama-bpe", None, None, "<own> $A"),
        ("llama-bpe", False, True, "$A <end>"),
        ("qwen2", None, None, "$A"),
        ("qwen2", True, True, "<own> $A <end>"),
    ],
)
def test_tokens_around_a_text(
    tmp_path: Path, pre: str, begins: bool | None, ends: bool | None, parts: str
) -> None:
    expected = byte_tokenizer(pre)
    own, end = (expected.token_to_id(token) for token in ("<own>", "<end>"))

    def add(writer: Any) -> None:
        add_bytes(expected, pre)(writer)
        writer.add_bos_token_id(own)
        if begins is not None:
            writer.add_add_bos_token(begins)
        if ends is not None:
            writer.add_add_eos_token(ends)

    got = text_of(tmp_path, add).tokenizer
    expected.post_processor = TemplateProcessing(
        single=parts, special_tokens=[("<own>", own), ("<end>", end)]
    )
    assert_same_tokens(got, expected)


def piece_tokenizer(prefix: bool) -> Tokenizer:
    """Return a tokenizer of pieces with bytes for what has none, as Llama's and Gemma's."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "<end>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trained.train_from_iterator(
        CORPUS[:2], trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False)
    )
    model = json.loads(trained.to_str())["model"]
    made = Tokenizer(models.BPE(
        model["vocab"], [tuple(merge) for merge in model["merges"]],
        unk_token="<unk>", fuse_unk=True, byte_fallback=True,
    ))  # fmt: skip
    steps = [normalizers.Prepend("\u2581")] if prefix else []
    made.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "\u2581")])
    back = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)] if prefix else back)
    made.add_special_tokens(
        [AddedToken(token, normalized=False) for token in ("<unk>", "<s>", "<end>")]
    )
    made.add_tokens([AddedToken("<own>", normalized=False)])
    return made


def add_pieces(made: Tokenizer, prefix: bool) -> Callable[[Any], None]:
    """Return what adds such a vocabulary: what is joined first has the best score."""
    model = json.loads(made.to_str())["model"]
    ranks = {"".join(merge): rank for rank, merge in reversed([*enumerate(model["merges"])])}
    tokens = [made.id_to_token(number) for number in range(made.get_vocab_size())]
    kinds = {
        "<unk>": gguf.TokenType.UNKNOWN, "<s>": gguf.TokenType.CONTROL,
        "<end>": gguf.TokenType.CONTROL, "<own>": gguf.TokenType.USER_DEFINED,
    }  # fmt: skip

    def kind(token: str) -> Any:
        byte = token.startswith("<0x")
        return kinds.get(token, gguf.TokenType.BYTE if byte else gguf.TokenType.NORMAL)

    def add(writer: Any) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(tokens)
        writer.add_token_scores([-float(ranks.get(token, 1e6)) for token in tokens])
        writer.add_token_types([kind(token) for token in tokens])
        writer.add_bos_token_id(made.token_to_id("<s>"))
        writer.add_eos_token_id(made.token_to_id("<end>"))
        writer.add_unk_token_id(made.token_to_id("<unk>"))
        if not prefix:
            writer.add_add_space_prefix(False)

    return add


@pytest.mark.parametrize("prefix", [True, False])
def test_pieces(tmp_path: Path, prefix: bool) -> None:
    expected = piece_tokenizer(prefix)
    text = text_of(tmp_path, add_pieces(expected, prefix))
    begin = expected.token_to_id("<s>")
    expected.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    assert_same_tokens(text.tokenizer, expected)
    assert text.special_tokens == {"bos_token": "<s>", "eos_token": "<end>", "unk_token": "<unk>"}


def test_a_model_of_sentencepiece(tmp_path: Path) -> None:
    """The ids of sentencepiece itself, whose pieces and scores a file has."""
    sentencepiece = pytest.importorskip("sentencepiece")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(line.strip() for text in CORPUS for line in text.split("\n")))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(tmp_path / "spm"), vocab_size=400, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        character_coverage=0.98, minloglevel=2,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spm.model"))
    count = processor.get_piece_size()

    def add(writer: Any) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_token_list([processor.id_to_piece(number) for number in range(count)])
        writer.add_token_scores([processor.get_score(number) for number in range(count)])
        kinds = (
            gguf.TokenType.UNKNOWN if processor.is_unknown(number)
            else gguf.TokenType.CONTROL if processor.is_control(number)
            else gguf.TokenType.BYTE if processor.is_byte(number) else gguf.TokenType.NORMAL
            for number in range(count)
        )  # fmt: skip
        writer.add_token_types([*kinds])
        writer.add_bos_token_id(processor.bos_id())

    tokenizer = text_of(tmp_path, add).tokenizer
    for text in TEXTS:
        if text.strip():  # of nothing but a mark, sentencepiece makes nothing
            ids = tokenizer.encode(text).ids
            assert ids == [processor.bos_id(), *processor.encode(text)], text
            assert tokenizer.decode(ids) == processor.decode(ids), text


def test_templates_and_end_tokens(tmp_path: Path) -> None:
    expected = byte_tokenizer("qwen2")

    def add(writer: Any) -> None:
        add_bytes(expected, "qwen2")(writer)
        writer.add_eot_token_id(expected.token_to_id("<own>"))
        writer.add_pad_token_id(expected.token_to_id("<end>"))
        writer.add_chat_template(
            [
                {"name": "default", "template": "{{ a }}"},
                {"name": "tool_use", "template": "{{ b }}"},
            ]
        )

    text = text_of(tmp_path, add)
    assert text.templates == {"default": "{{ a }}", "tool_use": "{{ b }}"}
    assert text.end_tokens == {expected.token_to_id(token) for token in ("<end>", "<own>")}
    assert text.special_tokens == {"eos_token": "<end>", "pad_token": "<end>"}


# --- what is refused, where it is asked for -------------------------------------------------------

PAIRS: dict[str, Any] = {"model": "gpt2", "tokens": ["a", "b", "ab"], "merges": ["a b"]}
PIECES: dict[str, Any] = {"model": "llama", "tokens": ["<unk>", "a"], "scores": [0.0, -1.0]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "tokenizer.ggml.model None is not supported; supported: "),
        ({"model": "bert"}, "tokenizer.ggml.model 'bert' is not supported"),
        ({**PAIRS, "pre": "tekken"}, "tokenizer.ggml.pre 'tekken' is not supported"),
        ({**PAIRS, "merges": ["a c"]}, "tokenizer.ggml.merges has 'a c'"),
        ({**PAIRS, "merges": ["ab"]}, "tokenizer.ggml.merges has 'ab'"),
        ({**PAIRS, "merges": None}, "has no tokenizer.ggml.merges"),
        ({**PAIRS, "tokens": 7}, "has no tokenizer.ggml.tokens"),
        ({**PIECES, "scores": [0.0]}, "scores has 1 of its tokens' scores"),
        ({**PIECES, "bos_token_id": 2}, "bos_token_id 2 is no token"),
        ({**PIECES, "bos_token_id": 1, "add_bos_token": 1}, "add_bos_token must be true or false"),
        ({**PIECES, "token_type": 3}, "its tokenizer is damaged"),
    ],
)
def test_what_is_refused(values: dict[str, Any], message: str) -> None:
    named = {f"tokenizer.ggml.{name}": value for name, value in values.items()}
    with pytest.raises(ValueError, match=f"model.gguf.*{message}"):
        assert GgufText(Path("model.gguf"), named).tokenizer


def test_a_template_that_is_no_text() -> None:
    text = GgufText(Path("model.gguf"), {"tokenizer.chat_template": 3})
    with pytest.raises(ValueError, match="chat template 'default' is no text: 3"):
        assert text.templates


def test_a_model_reads_and_writes_by_it(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    expected, path = byte_tokenizer("qwen2"), tmp_path / "model.gguf"

    def add(writer: Any) -> None:
        add_bytes(expected, "qwen2")(writer)
        writer.add_chat_template("{% for m in messages %}{{ m.content }}<end>{% endfor %}")

    tiny_gguf.write_gguf(path, "llama", config={"vocab_size": 500}, tokenizer=add)
    model = load(path)
    ids = expected.encode("A fox<end>").ids
    assert model.chat_text([{"role": "user", "content": "A fox"}]) == "A fox<end>"
    assert model.tokenize("A fox<end>") == ids
    assert model.detokenize(ids) == "A fox"
    assert model.end_tokens == {expected.token_to_id("<end>")}
