"""Texts of a folder's tokenizer, which is read when it is first asked for.

tokenizer.json, or, in folders of Marian's, source.spm, target.spm and vocab.json: pieces of
sentencepiece, and their numbers. In folders of CTranslate2's tokens have the numbers of their
vocabularies, whatever reads texts.

Where tokenizer_config.json has clean_up_tokenization_spaces, the space before a point goes, as in
transformers; in a tokenizer of pairs (BPE) it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from ..files.folder import regular_file
from ..files.json_file import read_json_object
from ..files.settings import Settings
from ..files.tokens import load_tokenizer

UNDERLINE = "\u2581"  # what stands for a space in pieces
# What becomes what in a text that is to be cleaned up.
CLEAN = {
    **{f" {mark}": mark for mark in ".?!,"},
    " ' ": "'",
    **{f" {ending}": ending for ending in ("n't", "'m", "'s", "'ve", "'re")},
}


class Codec(Protocol):
    """Text → ids, its end token included, and back without special tokens."""

    @property
    def pairs(self) -> bool:
        """Return whether it is a tokenizer of pairs."""

    def encode(self, text: str) -> list[int]: ...
    def decode(self, tokens: list[int]) -> str: ...


@dataclass(frozen=True)
class Vocabularies:
    """The numbers of tokens where a tokenizer's are not the model's own."""

    source: dict[str, int]
    target: dict[str, int]
    start: int | None
    """What texts begin with, if that is said."""
    end: int
    """What texts end with."""
    special: frozenset[int]
    """What stands in texts for no piece."""
    unknown: int
    """What stands in a source for a token that is not there."""
    before: tuple[int, ...]
    """What a source begins with, whatever its tokenizer makes of it."""
    after: tuple[int, ...]
    """What it ends with."""


class TextTokens:
    """The tokenizer of a folder, whose vocabularies may be others than the tokenizer's."""

    def __init__(self, folder: Path, vocabularies: Vocabularies | None = None) -> None:
        self.folder, self.vocabularies = folder, vocabularies
        self._codec: Codec | None = None
        self._clean = False
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "vocabularies": self.vocabularies}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def codec(self) -> Codec:
        """Return what reads and writes texts, or raise what `generate_text` does."""
        with self._lock:
            if self._codec is None:
                codec = self._made()
                self._clean = cleaned_up(self.folder, codec.pairs)
                self._codec = codec
            return self._codec

    def _made(self) -> Codec:
        own = (self.folder / "tokenizer.json").exists()
        if (self.folder / "source.spm").exists() and not own:
            numbers = self.vocabularies or marian_vocabularies(self.folder)
            return Pieces([self.folder / name for name in ("source.spm", "target.spm")], numbers)
        if self.vocabularies is None:
            return JsonTokens(self.folder)
        # Packages of Argos Translate have the model in a folder of its own.
        for place in (self.folder, self.folder.resolve().parent):
            if (place / "sentencepiece.model").exists() and not own:
                return Pieces([place / "sentencepiece.model"] * 2, self.vocabularies)
        return Renumbered(JsonTokens(self.folder), self.vocabularies)

    def encode(self, text: str) -> list[int]:
        """Return a text's ids."""
        return self.codec.encode(text)

    def decode(self, tokens: list[int]) -> str:
        """Return the text of ids."""
        text = self.codec.decode(tokens)
        for old, new in CLEAN.items() if self._clean else ():
            text = text.replace(old, new)
        return text


def cleaned_up(folder: Path, pairs: bool) -> bool:
    """Return whether texts of a folder's tokenizer are to be cleaned up."""
    path = folder / "tokenizer_config.json"
    if not path.exists():
        return False
    settings, name = Settings.from_file(path), "clean_up_tokenization_spaces"
    wanted = settings.flag(name, False)
    anyway = settings.flag(f"{name}_for_bpe_even_though_it_will_corrupt_output", False)
    return wanted and (anyway or not pairs)


class JsonTokens:
    """A tokenizer.json."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = load_tokenizer(folder)
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    @property
    def pairs(self) -> bool:
        """Return whether it is a tokenizer of pairs."""
        return type(self.tokenizer.model).__name__ == "BPE"

    def encode(self, text: str) -> list[int]:
        """Return a text's ids."""
        return list(self.tokenizer.encode(text).ids)

    def decode(self, tokens: list[int]) -> str:
        """Return the text of ids."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))


class Renumbered:
    """A tokenizer.json whose tokens have other numbers in the model."""

    def __init__(self, codec: JsonTokens, vocabularies: Vocabularies) -> None:
        self.tokenizer, self.pairs = codec.tokenizer, codec.pairs
        self.vocabularies = vocabularies
        self.tokens = {number: token for token, number in vocabularies.target.items()}

    def encode(self, text: str) -> list[int]:
        """Return a text's ids."""
        numbers = self.vocabularies
        tokens = self.tokenizer.encode(text).tokens
        ids = [numbers.source.get(token, numbers.unknown) for token in tokens]
        return [*numbers.before, *ids, *numbers.after]

    def decode(self, tokens: list[int]) -> str:
        """Return the text of ids."""
        ids = [self.tokenizer.token_to_id(self.tokens.get(token, "")) for token in tokens]
        known = [number for number in ids if number is not None]
        return str(self.tokenizer.decode(known, skip_special_tokens=True))


class Pieces:
    """Models of sentencepiece's of sources and of texts, whose pieces have other numbers."""

    pairs = False  # to transformers, whatever the pieces are

    def __init__(self, models: Sequence[Path], numbers: Vocabularies) -> None:
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError:
            raise ImportError(
                f"reading {models[0].name} needs sentencepiece: "
                "pip install 'numattn[sentencepiece]'"
            ) from None
        self.numbers = numbers
        self.pieces = {number: piece for piece, number in numbers.target.items()}
        self.source, self.target = (SentencePieceProcessor() for _ in models)
        for processor, path in zip((self.source, self.target), models, strict=True):
            try:
                processor.load(str(regular_file(path)))
            except (OSError, RuntimeError) as error:
                raise ValueError(f"{path} is not a model of sentencepiece's: {error}") from None

    def encode(self, text: str) -> list[int]:
        """Return a text's ids; a language before it, ">>fr<<", is a token."""
        pieces, numbers = [], self.numbers
        end = text.find("<<")
        if text.startswith(">>") and end > 0:
            pieces.append(text[: end + 2])
            text = text[end + 2 :]
        pieces += self.source.encode(text, out_type=str)
        ids = [numbers.source.get(piece, numbers.unknown) for piece in pieces]
        return [*numbers.before, *ids, *numbers.after]

    def decode(self, tokens: list[int]) -> str:
        """Return the text of ids."""
        special = self.numbers.special
        kept = [self.pieces.get(token, "<unk>") for token in tokens if token not in special]
        return str(self.target.decode_pieces(kept)).replace(UNDERLINE, " ").strip()


def marian_vocabularies(folder: Path) -> Vocabularies:
    """Return what vocab.json says, and of texts target_vocab.json, if the settings want it.

    Raises
    ------
    FileNotFoundError
        If one is missing.
    ValueError
        If one is damaged, or lacks a token.
    """
    path = folder / "tokenizer_config.json"
    settings = Settings.from_file(path) if path.exists() else Settings({}, path)
    source = target = read_numbers(folder / "vocab.json")
    if settings.flag("separate_vocabs", (folder / "target_vocab.json").exists()):
        target = read_numbers(folder / "target_vocab.json")
    special = frozenset(target[token] for token in ("<unk>", "</s>", "<pad>") if token in target)
    return Vocabularies(
        source, target, None, target["</s>"], special, source["<unk>"], (), (source["</s>"],)
    )


def read_numbers(path: Path) -> dict[str, int]:
    """Return the numbers of pieces in a JSON file, those of an unknown one and of an end too."""
    ids = read_json_object(path)
    for token in ("<unk>", "</s>"):
        if type(ids.get(token)) is not int:
            raise ValueError(f"{path} has no token {token}")
    return ids
