"""The vocabularies of a folder of CTranslate2's, and the tokens in them that have a meaning."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..files.ctranslate2_file import Ctranslate2File
from ..files.settings import Settings, shown
from .text_tokens import Vocabularies


def read_vocabularies(file: Ctranslate2File, source_size: int, target_size: int) -> Vocabularies:
    """Return the numbers of tokens of sources, and of texts, which may be the same.

    Raises
    ------
    FileNotFoundError
        If there is no vocabulary.
    ValueError
        If one has another size, or lacks a token that the config.json names.
    """
    source, target = (
        numbered(file.vocabulary(("shared_vocabulary", f"{kind}_vocabulary"), size))
        for kind, size in (("source", source_size), ("target", target_size))
    )
    config = file.config
    end, unknown = (token_of(config, f"{name}_token", target) for name in ("eos", "unk"))
    started = config.get("decoder_start_token") is not None
    return Vocabularies(
        source,
        target,
        start=token_of(config, "decoder_start_token", target) if started else None,
        end=end,
        special=frozenset((end, unknown)),
        unknown=token_of(config, "unk_token", source),
        before=around(config, "bos", source, False),
        after=around(config, "eos", source, has_marian_pieces(file.folder)),
    )


def numbered(tokens: Iterable[str]) -> dict[str, int]:
    """Return the number of each token; of one that is there twice, the first."""
    result: dict[str, int] = {}
    for number, token in enumerate(tokens):
        result.setdefault(token, number)
    return result


def token_of(config: Settings, name: str, vocabulary: dict[str, int]) -> int:
    """Return the number of a token that a setting names, or raise ValueError."""
    token = config.get(name)
    if not isinstance(token, str) or token not in vocabulary:
        raise ValueError(f"{config.path}: {name} {shown(token)} is no token of the vocabulary")
    return vocabulary[token]


def has_marian_pieces(folder: Path) -> bool:
    """Return whether texts are read by source.spm, whose pieces have no end token after them."""
    return (folder / "source.spm").exists() and not (folder / "tokenizer.json").exists()


def around(config: Settings, name: str, source: dict[str, int], usual: bool) -> tuple[int, ...]:
    """Return the token before or after a source: if CTranslate2 itself adds it, or as usual."""
    added = config.flag(f"add_source_{name}", False) or usual
    return (token_of(config, f"{name}_token", source),) if added else ()
