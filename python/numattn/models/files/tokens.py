"""The tokenizer.json of a model's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .folder import regular_file

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """Return what a folder's tokenizer.json holds, as it was saved.

    Raises
    ------
    FileNotFoundError
        If there is no tokenizer.json.
    ImportError
        If the library tokenizers is not installed.
    ValueError
        If tokenizer.json is damaged.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ImportError(
            "reading a model needs tokenizers: pip install 'numattn[models]'"
        ) from None
    path = regular_file(folder / "tokenizer.json")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises Exception itself, of no narrower class
        raise ValueError(f"{path} is not a tokenizer: {error}") from None
