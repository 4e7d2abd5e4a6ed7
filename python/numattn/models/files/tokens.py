"""The tokenizer.json of a model's folder, or what came before it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        made = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises Exception itself, of no narrower class
        raise ValueError(f"{path} is not a tokenizer: {error}") from None
    check_templates(made, path)
    return made


def check_templates(tokenizer: Tokenizer, path: Path) -> None:
    """Raise ValueError if a template names a special token whose ids it does not give.

    The library finds out when it reads a text, and then raises no Exception but a BaseException,
    which would go past whoever computes for others.
    """
    if tokenizer.post_processor is None:
        return
    for template in templates(json.loads(tokenizer.post_processor.__getstate__())):
        for piece in (*template["single"], *template["pair"]):
            name = piece.get("SpecialToken", {}).get("id")
            if name is not None and name not in template["special_tokens"]:
                raise ValueError(f"{path}: the post-processor's template names {name!r}, of no ids")


def templates(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the templates that a post-processor's state has within it."""
    if state["type"] == "TemplateProcessing":
        yield state
    for part in state.get("processors", []):
        yield from templates(part)
