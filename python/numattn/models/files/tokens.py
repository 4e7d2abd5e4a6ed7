"""Texts → token ids: a folder's tokenizer.json, without padding, and truncated as it asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .checkpoint import read_json_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """Return what a folder's tokenizer.json holds, as it was saved.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError
        As for `read_tokenizer`.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ImportError(
            "reading a model needs tokenizers: pip install 'numattn[models]'"
        ) from None
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {folder}")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises Exception itself, of no narrower class
        raise ValueError(f"{path} is not a tokenizer: {error}") from None


def read_tokenizer(folder: Path, max_positions: int) -> Tokenizer:
    """Return the tokenizer of a folder.

    A tokenizer.json often carries padding and truncation of whoever saved it. Padding is switched
    off, and truncation set to max_seq_length of sentence_bert_config.json (or, without that, to
    `max_positions`), since these are what the model was made for.

    Raises
    ------
    FileNotFoundError
        If there is no tokenizer.json.
    ImportError
        If the library tokenizers is not installed.
    ValueError
        If tokenizer.json or sentence_bert_config.json is damaged.
    """
    tokenizer = load_tokenizer(folder)
    from tokenizers import normalizers  # there is the library, since it has loaded

    max_tokens = max_positions
    path = folder / "sentence_bert_config.json"
    if path.is_file():
        settings = read_json_object(path)
        wanted = settings.get("max_seq_length")
        if wanted is not None:
            if type(wanted) is not int or wanted < 1:
                raise ValueError(f"{path}: max_seq_length must be a positive whole number")
            max_tokens = min(max_tokens, wanted)
        if settings.get("do_lower_case", False):
            after = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
            tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *after])
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def check_text(text: str) -> None:
    """Raise TypeError for what is no string, and ValueError for one that is not Unicode text.

    A string may hold half of a surrogate pair, as an argument of the command line does whose bytes
    are not UTF-8; the tokenizer would refuse it without saying why.
    """
    if not isinstance(text, str):
        raise TypeError(f"texts must be strings, not {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"the text {text!r} is not Unicode: {error.reason}") from None
