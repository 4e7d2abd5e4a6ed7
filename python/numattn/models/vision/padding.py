"""What texts are filled up with, as a folder's tokenizer_config.json says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..files.settings import Settings, shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Padding(NamedTuple):
    """What a text is filled up with, and where."""

    token: int
    left: bool

    def filled(self, ids: list[int], size: int) -> list[int]:
        """Return a text's ids, filled up to a size."""
        more = [self.token] * (size - len(ids))
        return more + ids if self.left else ids + more


def read_padding(folder: Path, tokenizer: Tokenizer | None, token: int) -> Padding:
    """Return a folder's padding: `token`, on the right, where it does not say another.

    Raises
    ------
    ValueError
        If the tokenizer has not the token that the file names, or the side is none.
    """
    path = folder / "tokenizer_config.json"
    if tokenizer is None or not path.exists():
        return Padding(token, False)
    settings = Settings.from_file(path)
    name = settings.get("pad_token")
    if isinstance(name, dict):  # a token with its properties
        name = name.get("content")
    if name is not None:
        found = tokenizer.token_to_id(name) if isinstance(name, str) else None
        if found is None:
            raise ValueError(f"{path}: pad_token {shown(name)} is no token of tokenizer.json")
        token = found
    left = settings.one_of("padding_side", ("right", "left"), "right") == "left"
    return Padding(token, left)
