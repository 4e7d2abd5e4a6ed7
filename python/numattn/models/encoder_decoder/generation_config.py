"""How a folder's model is to be searched for texts: generation_config.json, or config.json.

Where there is a generation_config.json, config.json says nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..beams import EarlyStopping
from ..files.settings import Settings, shown
from .token_rules import TokenRules

# Settings that change texts and are not carried out → values with which they do not.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "do_sample": (False,),
    "num_beam_groups": (1,),
    "diversity_penalty": (0.0, 0),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1.0, 1),
    "exponential_decay_length_penalty": (),
    "guidance_scale": (1.0, 1),
    "sequence_bias": (),
    "constraints": (),
    "force_words_ids": (),
    "penalty_alpha": (),
    "dola_layers": (),
    "prompt_lookup_num_tokens": (),
    "watermarking_config": (),
    "stop_strings": (),
    "max_time": (),
    "remove_invalid_values": (False,),
    "token_healing": (False,),
    "num_return_sequences": (1,),
}


@dataclass(frozen=True)
class GenerationConfig:
    """How texts are searched for where a call does not say it."""

    start: int | None
    """The decoder's first token."""
    rules: TokenRules
    beams: int
    length_penalty: float
    early_stopping: EarlyStopping
    max_length: int | None
    """Tokens of a text, the first one included."""
    max_new_tokens: int | None

    @classmethod
    def from_folder(cls, folder: Path, vocab_size: int) -> GenerationConfig:
        """Read a folder's generation_config.json, or its config.json if there is none.

        Raises
        ------
        FileNotFoundError
            If there is neither.
        ValueError
            If a setting is none that is carried out. The message names it.
        """
        path = folder / "generation_config.json"
        settings = Settings.from_file(path if path.exists() else folder / "config.json")
        return cls.of(settings, vocab_size)

    @classmethod
    def of(cls, settings: Settings, vocab_size: int) -> GenerationConfig:
        """Return what settings say of texts; errors are those of `from_folder`."""
        for name, neutral in NEUTRAL.items():
            value = settings.get(name)
            if value is not None and not any(value == each for each in neutral):
                raise ValueError(
                    f"{settings.path}: {name} {shown(value)} is not supported in searching texts"
                )

        def tokens(name: str) -> tuple[int, ...]:
            return token_tuple(settings, name, vocab_size)

        ends = tokens("eos_token_id")
        first = tokens("forced_bos_token_id")
        starts = tokens("decoder_start_token_id") or tokens("bos_token_id")
        bad = tuple(
            word for word in bad_words(settings, vocab_size) if word not in {(end,) for end in ends}
        )
        rules = TokenRules(
            ends=ends,
            repetition_penalty=settings.number("repetition_penalty", 1.0),
            no_repeat_ngram_size=settings.whole("no_repeat_ngram_size", 0, 0),
            bad_words=bad,
            min_length=settings.whole("min_length", 0, 0),
            min_new_tokens=settings.whole("min_new_tokens", 0, 0),
            forced_first=first[0] if first else None,
            forced_last=tokens("forced_eos_token_id"),
            suppressed=tokens("suppress_tokens"),
            suppressed_first=tokens("begin_suppress_tokens"),
            renormalize=settings.flag("renormalize_logits", False),
        )
        return cls(
            start=starts[0] if starts else None,
            rules=rules,
            beams=settings.size("num_beams", 1),
            length_penalty=any_number(settings, "length_penalty", 1.0),
            early_stopping=settings.one_of("early_stopping", (False, True, "never"), False),
            max_length=settings.optional_size("max_length"),
            max_new_tokens=settings.optional_size("max_new_tokens"),
        )

    def most(self, prompt_size: int, positions: int | None, default: int) -> int:
        """Return how many tokens a text may get after a prompt, of so many positions in all."""
        if self.max_new_tokens is not None:
            most = self.max_new_tokens
        elif self.max_length is not None:
            most = self.max_length - prompt_size
        else:
            most = default
        return most if positions is None else min(most, positions - prompt_size)


def token_tuple(settings: Settings, name: str, vocab_size: int) -> tuple[int, ...]:
    """Return the tokens of a setting that is one, several or none."""
    value = settings.get(name, [])
    tokens = value if isinstance(value, list) else [value]
    for token in tokens:
        if type(token) is not int or not 0 <= token < vocab_size:
            raise ValueError(
                f"{settings.path}: {name} must be tokens of 0 … {vocab_size - 1}, "
                f"not {shown(value)}"
            )
    return tuple(tokens)


def bad_words(settings: Settings, vocab_size: int) -> list[tuple[int, ...]]:
    """Return bad_words_ids."""
    words = settings.get("bad_words_ids", [])
    if not isinstance(words, list) or not all(isinstance(word, list) and word for word in words):
        raise ValueError(
            f"{settings.path}: bad_words_ids must be lists of tokens, not {shown(words)}"
        )
    parts = [Settings({"bad_words_ids": word}, settings.path) for word in words]
    return [token_tuple(part, "bad_words_ids", vocab_size) for part in parts]


def any_number(settings: Settings, name: str, default: float) -> float:
    """Return a finite number, which may be negative."""
    value = settings.get(name, default)
    if type(value) not in (int, float) or not abs(value) < 1e6:
        raise ValueError(f"{settings.path}: {name} must be a number, not {shown(value)}")
    return float(value)
