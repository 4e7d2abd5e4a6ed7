"""The texts of a Whisper's tokenizer."""

from __future__ import annotations

from typing import Any

from .text_tokens import JsonTokens, TextTokens


class SpeechText(TextTokens):
    """The tokenizer of a folder, which is a tokenizer.json."""

    def plain(self, text: str) -> list[int]:
        """Return a text's ids, without those that the tokenizer adds."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def token(self, name: str) -> int | None:
        """Return the id of a token by its name, or None."""
        found: int | None = self._tokenizer.token_to_id(name)
        return found

    @property
    def _tokenizer(self) -> Any:
        codec = self.codec
        if not isinstance(codec, JsonTokens):
            raise FileNotFoundError(f"no tokenizer.json in {self.folder}")
        return codec.tokenizer
