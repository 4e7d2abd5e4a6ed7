"""The choices of a Marian model, from the text that its file carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Setting → the one value that is carried out.
CHOICES = {
    "type": "transformer",
    "transformer-decoder-autoreg": "rnn",
    "dec-cell": "ssru",
    "transformer-ffn-activation": "relu",
    "transformer-ffn-depth": "2",
    "transformer-preprocess": '""',
    "transformer-postprocess": "dan",
    "transformer-postprocess-top": '""',
    "transformer-train-position-embeddings": "false",
    "transformer-no-projection": "false",
    "tied-embeddings-all": "true",
}


@dataclass(frozen=True)
class Seq2SeqConfig:
    """Sizes of an encoder–decoder."""

    vocab_size: int
    hidden_size: int
    num_heads: int
    ffn_size: int
    encoder_layers: int
    decoder_layers: int

    @property
    def head_size(self) -> int:
        """Return D, hidden_size / num_heads."""
        return self.hidden_size // self.num_heads

    @classmethod
    def from_text(cls, text: str, where: str) -> Seq2SeqConfig:
        """Read the settings; `where` names their file in messages.

        Raises
        ------
        ValueError
            If a size is missing, or a setting asks for something that is not supported.
        """
        settings = read_settings(text)
        for name, wanted in CHOICES.items():
            if settings.get(name) != wanted:
                raise ValueError(
                    f"{where}: {name} {settings.get(name)!r} is not supported; "
                    f"supported: {wanted!r}"
                )
        config = cls(
            vocab_size=size(settings, "dim-vocabs", where),
            hidden_size=size(settings, "dim-emb", where),
            num_heads=size(settings, "transformer-heads", where),
            ffn_size=size(settings, "transformer-dim-ffn", where),
            encoder_layers=size(settings, "enc-depth", where),
            decoder_layers=size(settings, "dec-depth", where),
        )
        if config.hidden_size % (2 * config.num_heads):
            raise ValueError(
                f"{where}: dim-emb {config.hidden_size} does not divide into "
                f"{config.num_heads} heads of even size"
            )
        return config


def read_settings(text: str) -> dict[str, str]:
    """Return "name: value" lines as they stand; of a list, its last entry.

    >>> read_settings("dim-emb: 256\\ndim-vocabs:\\n  - 32000\\n  - 32000\\n")
    {'dim-emb': '256', 'dim-vocabs': '32000'}
    """
    settings: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        entry = line.strip()
        if entry.startswith("- "):
            settings[name] = entry.removeprefix("- ").strip()
        elif ":" in entry:
            name, _, value = entry.partition(":")
            settings[name] = value.strip()
    return settings


def size(settings: Mapping[str, str], name: str, where: str) -> int:
    """Return a positive whole number of the settings."""
    value = settings.get(name, "")
    # No size of a model has ten digits, and Python would not read thousands of them.
    if not (value.isascii() and value.isdigit() and len(value) < 10 and int(value) > 0):
        raise ValueError(f"{where}: {name} must be a positive whole number, not {value!r}")
    return int(value)
