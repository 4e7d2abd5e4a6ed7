"""Texts of a folder's tokenizer, which is read when it is first asked for.

tokenizer.json, or, in folders of Marian's, source.spm, target.spm and vocab.json: pieces of
sentencepiece, and their numbers. Where tokenizer_config.json has clean_up_tokenization_spaces, the
space before a point goes, as in transformers; in a tokenizer of pairs (BPE) it does not.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any, Protocol

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


class TextTokens:
    """The tokenizer of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._codec: Codec | None = None
        self._clean = False
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]

    @property
    def codec(self) -> Codec:
        """Return what reads and writes texts, or raise what `generate_text` does."""
        with self._lock:
            if self._codec is None:
                own = (self.folder / "tokenizer.json").exists()
                marian = (self.folder / "source.spm").exists() and not own
                codec: Codec = Pieces(self.folder) if marian else JsonTokens(self.folder)
                self._clean = cleaned_up(self.folder, codec.pairs)
                self._codec = codec
            return self._codec

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


class Pieces:
    """source.spm, target.spm and vocab.json of a Marian model."""

    pairs = False  # to transformers, whatever the pieces are

    def __init__(self, folder: Path) -> None:
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError:
            raise ImportError(
                "reading source.spm needs sentencepiece: pip install 'numattn[sentencepiece]'"
            ) from None
        if (folder / "target_vocab.json").exists():
            raise ValueError(f"{folder}: a target_vocab.json beside vocab.json is not supported")
        vocabulary = read_json_object(folder / "vocab.json")
        for special in ("<unk>", "</s>"):
            if type(vocabulary.get(special)) is not int:
                raise ValueError(f"{folder / 'vocab.json'} has no token {special}")
        self.ids: dict[str, int] = vocabulary
        self.pieces = {number: piece for piece, number in vocabulary.items()}
        self.special = {
            number for piece, number in vocabulary.items() if piece in ("<unk>", "</s>", "<pad>")
        }
        self.source, self.target = (
            SentencePieceProcessor(model_file=str(folder / name))
            for name in ("source.spm", "target.spm")
        )

    def encode(self, text: str) -> list[int]:
        """Return a text's ids; a language before it, ">>fr<<", is a token."""
        pieces = []
        end = text.find("<<")
        if text.startswith(">>") and end > 0:
            pieces.append(text[: end + 2])
            text = text[end + 2 :]
        pieces += self.source.encode(text, out_type=str)
        unknown = self.ids["<unk>"]
        return [self.ids.get(piece, unknown) for piece in pieces] + [self.ids["</s>"]]

    def decode(self, tokens: list[int]) -> str:
        """Return the text of ids."""
        kept = [self.pieces.get(token, "<unk>") for token in tokens if token not in self.special]
        return str(self.target.decode_pieces(kept)).replace(UNDERLINE, " ").strip()
