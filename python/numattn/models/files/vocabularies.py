"""Tokenizers of folders without a tokenizer.json, from the files that came before it.

    vocab.txt                    WordPiece: BERT, DistilBERT, ELECTRA, MPNet
    vocab.json, merges.txt       byte-level pairs: RoBERTa, BART, GPT-2
    sentencepiece.bpe.model      pieces with scores: XLM-RoBERTa, CamemBERT
    spiece.model                 the same: ALBERT
    tokenizer.model              pieces that are joined pair by pair: Llama, Mistral, Gemma

Which tokenizer it is, tokenizer_class of tokenizer_config.json says, or else model_type of
config.json. What comes out is what transformers makes of the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .folder import regular_file
from .json_file import read_json_object
from .piece_pairs import add_ends, make_joined_pieces
from .sentencepiece_file import MARK, SCORES, read_model
from .settings import Settings, shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BERT = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
ROBERTA = {"cls": "<s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
LLAMA = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}
GEMMA = {"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>"}
# tokenizer_class without "Tokenizer", in lower case → files, and the tokens that have a meaning.
KINDS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    **dict.fromkeys(("bert", "distilbert", "electra"), (("vocab.txt",), BERT)),
    "mpnet": (("vocab.txt",), {**ROBERTA, "unk": "[UNK]"}),
    **dict.fromkeys(("roberta", "bart"), (("vocab.json", "merges.txt"), ROBERTA)),
    "gpt2": (("vocab.json", "merges.txt"), {"unk": "<|endoftext|>"}),
    "xlmroberta": (("sentencepiece.bpe.model",), ROBERTA),
    "camembert": (("sentencepiece.bpe.model",), ROBERTA),
    "albert": (("spiece.model",), {**BERT, "unk": "<unk>", "pad": "<pad>"}),
    **dict.fromkeys(("llama", "mistral", "mixtral", "phi3"), (("tokenizer.model",), LLAMA)),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), (("tokenizer.model",), GEMMA)),
}
CAMEMBERT_UNUSED = ("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED")


def tokenizer_from_vocabulary(folder: Path) -> Tokenizer | None:
    """Return the tokenizer of a folder's vocabulary; None if it has none that is known.

    Raises
    ------
    ImportError
        If the library sentencepiece is needed and not installed.
    ValueError
        If a file is damaged, or there are tokens beside the vocabulary.
    """
    settings = read_settings(folder)
    kind = kind_of(folder, settings)
    if kind is None:
        return None
    files, meanings = KINDS[kind]
    if not all((folder / name).exists() for name in files):
        return None
    paths = [regular_file(folder / name) for name in files]
    special = {name: special_token(settings, name, text) for name, text in meanings.items()}
    names = {name: token["content"] for name, token in special.items()}
    make: Callable[..., Tokenizer] = MAKERS[files[0]]
    try:
        made = make(kind, settings, names, *paths)
    except (ImportError, ValueError):
        raise
    except Exception as error:  # the libraries raise Exception itself, of no narrower class
        raise ValueError(f"{paths[0]} is not a vocabulary: {error}") from None
    add_special(made, kind, special, paths[0])
    if "bos" in names:
        add_ends(made, settings, names)
    refuse_others(made, folder, settings)
    return made


def read_settings(folder: Path) -> Settings:
    """Return tokenizer_config.json, and what special_tokens_map.json says beside it."""
    path, tokens = folder / "tokenizer_config.json", folder / "special_tokens_map.json"
    given = read_json_object(tokens) if tokens.exists() else {}
    return Settings({**given, **(read_json_object(path) if path.exists() else {})}, path)


def kind_of(folder: Path, settings: Settings) -> str | None:
    """Return which of KINDS a folder's tokenizer is; None for another."""
    name = settings.get("tokenizer_class")
    if not isinstance(name, str):
        path = folder / "config.json"
        config = read_json_object(path) if path.exists() else {}
        name = config.get("tokenizer_class") or config.get("model_type")
    name = str(name).lower().replace("-", "").removesuffix("fast").removesuffix("tokenizer")
    return name if name in KINDS else None


def special_token(settings: Settings, name: str, usual: str) -> dict[str, Any]:
    """Return a token that has a meaning: its text, and what stands beside it that it takes in."""
    value = settings.get(f"{name}_token", usual)
    if isinstance(value, str):
        return {"content": value}
    flags = ("lstrip", "rstrip", "single_word", "normalized")
    if not isinstance(value, Mapping) or not isinstance(value.get("content"), str):
        raise ValueError(f"{settings.path}: {name}_token {shown(value)} is no token")
    return {"content": value["content"], **{flag: value[flag] for flag in flags if flag in value}}


def add_special(
    made: Tokenizer, kind: str, special: Mapping[str, Mapping[str, Any]], path: Path
) -> None:
    """Let texts hold tokens that have a meaning, and put those around a text that belong there."""
    from tokenizers import AddedToken, processors

    for token in special.values():
        if made.token_to_id(token["content"]) is None:
            raise ValueError(f"{path} has no token {token['content']!r}")
    tokens = {name: {"special": True, **token} for name, token in special.items()}
    if kind in ("mpnet", "camembert"):
        tokens["mask"] = {"lstrip": True, **tokens["mask"]}
    more = CAMEMBERT_UNUSED if kind == "camembert" else ()
    added = [AddedToken(**token) for token in tokens.values()]
    made.add_special_tokens([*added, *(AddedToken(text, special=True) for text in more)])
    if "cls" not in special:
        return
    begin, end = (
        (special[name]["content"], made.token_to_id(special[name]["content"]))
        for name in ("cls", "sep")
    )
    if special["cls"]["content"] == ROBERTA["cls"]:
        made.post_processor = processors.TemplateProcessing(
            single=f"{begin[0]} $A {end[0]}",
            pair=f"{begin[0]} $A {end[0]} {end[0]} $B {end[0]}",
            special_tokens=[begin, end],
        )
    else:
        made.post_processor = processors.TemplateProcessing(
            single=f"{begin[0]}:0 $A:0 {end[0]}:0",
            pair=f"{begin[0]}:0 $A:0 {end[0]}:0 $B:1 {end[0]}:1",
            special_tokens=[begin, end],
        )


def refuse_others(made: Tokenizer, folder: Path, settings: Settings) -> None:
    """Raise ValueError for tokens beside the vocabulary: their ids would be of other words."""
    path = folder / "added_tokens.json"
    given = read_json_object(path) if path.exists() else {}
    tokens = {name: (path, number) for name, number in given.items()}
    for number, token in settings.part("added_tokens_decoder").values.items():
        name = token.get("content") if isinstance(token, Mapping) else token
        tokens[str(name)] = (settings.path, int(number) if number.isdecimal() else number)
    for name, (place, number) in tokens.items():
        if made.token_to_id(name) != number:
            raise ValueError(
                f"{place} has a token {shown(name)} beside the vocabulary, which is not supported "
                "without tokenizer.json: AutoTokenizer.from_pretrained(folder)"
                ".save_pretrained(folder) writes that"
            )


def make_wordpiece(kind: str, settings: Settings, names: dict[str, str], path: Path) -> Tokenizer:
    """Return BERT's tokenizer of a vocab.txt: a token in each line."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    made = Tokenizer(models.WordPiece(read_lines(path), unk_token=names["unk"]))
    given = settings.get("strip_accents")
    made.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.flag("tokenize_chinese_chars", True),
        strip_accents=None if given is None else settings.flag("strip_accents", False),
        lowercase=settings.flag("do_lower_case", True),
    )
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(prefix="##")
    return made


def read_lines(path: Path) -> dict[str, int]:
    """Return the number of each line, from 0 on."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except ValueError as error:
        raise ValueError(f"{path} is not a vocabulary: {error}") from None
    if lines[-1] == "":
        del lines[-1]
    return {line.rstrip("\r"): number for number, line in enumerate(lines)}


def make_pairs(
    kind: str, settings: Settings, names: dict[str, str], vocabulary: Path, merges: Path
) -> Tokenizer:
    """Return the tokenizer of a vocab.json and a merges.txt, over bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    try:
        model = models.BPE.from_file(str(vocabulary), str(merges))
    except Exception as error:  # of no narrower class
        raise ValueError(f"{vocabulary} and {merges.name} are no vocabulary: {error}") from None
    made = Tokenizer(model)
    space = settings.flag("add_prefix_space", False)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    made.decoder = decoders.ByteLevel()
    return made


def make_pieces(kind: str, settings: Settings, names: dict[str, str], path: Path) -> Tokenizer:
    """Return the tokenizer of a model of sentencepiece's, of the kind with scores (unigram)."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    pieces, charsmap = read_pieces(path)
    unknown = 3
    if kind == "albert":
        unknown = next((i for i, (piece, _) in enumerate(pieces) if piece == names["unk"]), 0)
    else:
        first = [names["cls"], names["pad"], names["sep"], names["unk"]]
        if kind == "camembert":
            first = ["<s>NOTUSED", names["pad"], "</s>NOTUSED", names["unk"], "<unk>NOTUSED"]
        own = [(text, -100.0 if text == "<unk>NOTUSED" else 0.0) for text in first]
        pieces = [*own, *pieces[1 if kind == "camembert" else 3 :], (names["mask"], 0.0)]
    made = Tokenizer(models.Unigram(pieces, unknown, False))
    parts: list[Any] = []
    if kind == "albert":
        parts += [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
        if not settings.flag("keep_accents", False):
            parts += [normalizers.NFKD(), normalizers.StripAccents()]
        if settings.flag("do_lower_case", True):
            parts.append(normalizers.Lowercase())
    if charsmap:
        parts.append(normalizers.Precompiled(charsmap))
    made.normalizer = normalizers.Sequence(parts)
    scheme = "always" if settings.flag("add_prefix_space", True) else "never"
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme=scheme),
        ]
    )
    made.decoder = decoders.Metaspace(replacement=MARK, prepend_scheme=scheme)
    return made


def read_pieces(path: Path) -> tuple[list[tuple[str, float]], bytes]:
    """Return the pieces of a model of sentencepiece's with their scores, and how it normalises."""
    model = read_model(path, SCORES)
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    return pieces, bytes(model.normalizer_spec.precompiled_charsmap)


MAKERS: dict[str, Callable[..., Any]] = {
    "vocab.txt": make_wordpiece,
    "vocab.json": make_pairs,
    "sentencepiece.bpe.model": make_pieces,
    "spiece.model": make_pieces,
    "tokenizer.model": make_joined_pieces,
}
