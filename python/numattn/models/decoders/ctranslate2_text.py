"""What a decoder's folder of CTranslate2's says of text."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from ..files.ctranslate2_file import Ctranslate2File
from ..files.settings import shown
from .text_folder import TextFolder

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Ctranslate2Text(TextFolder):
    """A folder's text: tokenizer.json, and what config.json says instead of those beside it.

    Parameters
    ----------
    file : Ctranslate2File
        The folder.
    size : int
        How many tokens the model has.
    """

    def __init__(self, file: Ctranslate2File, size: int) -> None:
        super().__init__(file.folder)
        self._vocabulary = file.vocabulary(("vocabulary",), size)
        self._config = file.config

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer; ValueError if its tokens have other numbers than the model's."""
        tokenizer: Tokenizer = super().tokenizer
        known = tokenizer.get_vocab()
        for number, token in enumerate(self._vocabulary):
            if known.get(token, number) != number:
                raise ValueError(
                    f"{self.folder / 'tokenizer.json'} has {shown(token)} as token {known[token]}, "
                    f"and the model's vocabulary as token {number}"
                )
        return tokenizer

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """Return what special tokens are written as, by their names."""
        names = ("bos_token", "eos_token", "unk_token")
        said = {name: self._config.get(name) for name in names}
        return {
            **{name: token for name, token in said.items() if isinstance(token, str) and token},
            **super().special_tokens,
        }

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """Return the tokens that end a text: those of generation_config.json, or eos_token."""
        if (self.folder / "generation_config.json").exists():
            return super().end_tokens
        token = self.special_tokens.get("eos_token")
        return frozenset((self._vocabulary.index(token),) if token in self._vocabulary else ())
