"""The tokenizer.json of a model's folder, or what came before it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .folder import regular_file
from .vocabularies import tokenizer_from_vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """Return what a folder's tokenizer.json holds, as it was saved, or else its vocabulary.

    Raises
    ------
    FileNotFoundError
        If there is no tokenizer.json, nor a vocabulary that is known (vocabularies.py).
    ImportError
        If the library tokenizers is not installed, or sentencepiece where it is needed.
    ValueError
        If a file is damaged.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ImportError(
            "reading a model needs tokenizers: pip install 'numattn[models]'"
        ) from None
    path = folder / "tokenizer.json"
    if not path.exists():
        made = tokenizer_from_vocabulary(folder)
        if made is not None:
            return made
    regular_file(path)
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises Exception itself, of no narrower class
        raise ValueError(f"{path} is not a tokenizer: {error}") from None
