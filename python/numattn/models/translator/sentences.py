"""Text → its sentences and what stands between them, so that nothing of it is lost."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Sentences:
    """The sentences of a text.

    The text is gaps[0] + sentences[0] + gaps[1] + … + sentences[n − 1] + gaps[n]; the gaps are
    white space or empty.
    """

    sentences: list[str]
    gaps: list[str]

    @classmethod
    def of(cls, text: str, language: str) -> Sentences:
        """Split a text of a language, named by its ISO 639 code. The end of a line ends a sentence.

        Raises
        ------
        ImportError
            If the library sentencex is not installed.
        """
        try:
            from sentencex import segment
        except ImportError:
            raise ImportError(
                "translating text needs sentencex: pip install 'numattn[models]'"
            ) from None
        sentences, gaps = [], [""]
        for line in text.splitlines(keepends=True):
            pieces = segment(language, line)
            if "".join(pieces) != line:  # whatever the library does, no word may be lost
                pieces = [line]
            for piece in pieces:
                sentence = piece.strip()
                before, _, after = piece.partition(sentence) if sentence else (piece, "", "")
                gaps[-1] += before
                if sentence:
                    sentences.append(sentence)
                    gaps.append(after)
        return cls(sentences, gaps)

    def replaced(self, sentences: list[str]) -> str:
        """Return the text with other sentences in the place of these."""
        parts = [self.gaps[0]]
        for sentence, gap in zip(sentences, self.gaps[1:], strict=True):
            parts += (sentence, gap)
        return "".join(parts)


def language_of(name: str) -> str:
    """Return the language that a model of that name translates from; English if none is named.

    >>> language_of("model.ptenx.bin"), language_of("model.pten.intgemm.alphas.bin")
    ('en', 'pt')
    """
    found = re.match(r"model\.([a-z]{2})[a-z]{2}\.", name)
    return "en" if found is None else found.group(1)
