"""What the files of a Whisper's folder say of sizes, of sound, and of the tokens before a text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..files.activations import ACTIVATIONS, Activation
from ..files.model_config import read_model_config
from ..files.settings import Settings, shown
from .attempts import Draws, Thresholds
from .bart import read_heads
from .forms import fairseq_form
from .generation_config import token_tuple
from .layers import LayerForm
from .log_mel import LogMel

STRIDE = 2  # frames of the spectrogram for each place of the encoder


@dataclass(frozen=True)
class WhisperConfig:
    """Sizes and choices of a Whisper."""

    vocab_size: int
    hidden_size: int
    encoder_layers: int
    decoder_layers: int
    heads: tuple[int, int]
    """Of the encoder's layers, and of the decoder's."""
    ffn_sizes: tuple[int, int]
    activation: Activation
    bands: int
    source_positions: int
    max_positions: int
    median_width: int
    """Places of the source that the median is of, by which words get their times."""

    @property
    def num_heads(self) -> int:
        """Return how many heads the decoder's layers have."""
        return self.heads[1]

    @property
    def head_size(self) -> int:
        """Return how many numbers a head of the decoder has."""
        return self.hidden_size // self.heads[1]

    @property
    def frames(self) -> int:
        """Return how many frames of a spectrogram a window has."""
        return STRIDE * self.source_positions

    @classmethod
    def from_file(cls, path: Path) -> WhisperConfig:
        """Read a config.json.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not JSON, lacks a size, or asks for something that is not supported.
        """
        settings, _ = read_model_config(path, {"whisper": "Whisper"})
        settings.one_of("is_encoder_decoder", (True,), True)
        settings.one_of("scale_embedding", (False,), False)
        settings.one_of("tie_word_embeddings", (True,), True)
        width = settings.size("d_model")
        return cls(
            vocab_size=settings.size("vocab_size"),
            hidden_size=width,
            encoder_layers=settings.size("encoder_layers"),
            decoder_layers=settings.size("decoder_layers"),
            heads=read_heads(settings, width),
            ffn_sizes=(settings.size("encoder_ffn_dim"), settings.size("decoder_ffn_dim")),
            activation=ACTIVATIONS[settings.one_of("activation_function", ACTIVATIONS, "gelu")],
            bands=settings.size("num_mel_bins", 80),
            source_positions=settings.size("max_source_positions", 1500),
            max_positions=settings.size("max_target_positions", 448),
            median_width=read_median_width(settings),
        )

    def layer(self, stack: int) -> LayerForm:
        """Return the form of the encoder's layers, or of the decoder's."""
        return fairseq_form(
            self.hidden_size, self.heads[stack], self.ffn_sizes[stack], self.activation,
            norm_first=True, keys_biased=False,
        )  # fmt: skip


def read_median_width(settings: Settings) -> int:
    """Return median_filter_width, or raise."""
    width = settings.size("median_filter_width", 7)
    if width % 2 == 0:
        raise ValueError(f"{settings.path}: median_filter_width must be odd, not {width}")
    return width


def read_log_mel(folder: Path, config: WhisperConfig) -> LogMel:
    """Return how sound becomes frames, by preprocessor_config.json or processor_config.json.

    Raises
    ------
    ValueError
        If a setting is not supported, or does not fit the model.
    """
    path, settings = folder / "preprocessor_config.json", Settings({}, folder)
    if path.exists():
        settings = Settings.from_file(path)
    elif (folder / "processor_config.json").exists():
        settings = Settings.from_file(folder / "processor_config.json").part("feature_extractor")
    settings.one_of("feature_size", (config.bands,), config.bands)
    settings.one_of("dither", (0.0, 0), 0.0)
    settings.one_of("padding_value", (0.0, 0), 0.0)
    settings.one_of("padding_side", ("right",), "right")
    settings.one_of("do_normalize", (False,), False)
    rate, hop = settings.size("sampling_rate", 16000), settings.size("hop_length", 160)
    seconds = settings.size("chunk_length", 30)
    if seconds * rate // hop != config.frames:
        raise ValueError(
            f"{settings.path}: chunk_length {seconds} makes {seconds * rate // hop} frames of a "
            f"window, and the model has {config.frames}, twice max_source_positions"
        )
    return LogMel(config.bands, rate, settings.size("n_fft", 400), hop)


@dataclass(frozen=True)
class SpeechTokens:
    """The tokens that say what a text is to be."""

    start: int
    end: int
    languages: dict[str, int]
    """Code ("en") → token; empty in a model of one language."""
    tasks: dict[str, int]
    forced: tuple[int, ...]
    """What comes after the first token in a model of one language."""
    no_timestamps: int | None
    latest_start: int | None
    language: str | None
    """What is spoken where a call does not say it; None is found out."""
    task: str
    thresholds: Thresholds
    draws: Draws
    previous: int | None
    """The token that says that what was said before follows."""
    conditioned: bool
    """Whether what was said goes before the next window where a call does not say it."""
    alignment: tuple[tuple[int, int], ...]
    """Layers and heads of the decoder that look at what they write; empty where it is not said."""

    @classmethod
    def from_folder(cls, folder: Path, config: WhisperConfig) -> SpeechTokens:
        """Read generation_config.json, or config.json.

        Raises
        ------
        ValueError
            If a token is missing or none, or something is asked for that is not supported.
        """
        path = folder / "generation_config.json"
        settings = Settings.from_file(path if path.exists() else folder / "config.json")
        vocab_size = config.vocab_size

        def one(name: str) -> int | None:
            tokens = token_tuple(settings, name, vocab_size)
            return tokens[0] if tokens else None

        def table(name: str) -> dict[str, int]:
            part = settings.part(name)
            return {
                key.removeprefix("<|").removesuffix("|>"): token_tuple(part, key, vocab_size)[0]
                for key in part.values
            }

        start, end = one("decoder_start_token_id"), one("eos_token_id")
        if start is None or end is None:
            raise ValueError(f"{settings.path} has no decoder_start_token_id or no eos_token_id")
        several = settings.flag("is_multilingual", bool(settings.get("lang_to_id")))
        languages, tasks = table("lang_to_id"), table("task_to_id")
        if several and not (languages and tasks):
            raise ValueError(f"{settings.path}: is_multilingual needs lang_to_id and task_to_id")
        previous = one("prev_sot_token_id")
        suppressed = token_tuple(settings, "suppress_tokens", vocab_size)
        if previous is None and len(suppressed) > 1:  # so it stands in files of old
            previous = suppressed[-2]
        language = settings.get("language")
        return cls(
            start, end, languages if several else {}, tasks if several else {},
            read_forced(settings, vocab_size), one("no_timestamps_token_id"),
            whole_or_none(settings, "max_initial_timestamp_index"),
            None if language is None else settings.one_of("language", names_of(languages)),
            settings.one_of("task", tuple(tasks) or ("transcribe",), "transcribe"),
            Thresholds.of(settings), Draws.of(settings), previous,
            settings.flag("condition_on_prev_tokens", False),
            read_alignment(settings, config),
        )  # fmt: skip

    def language_token(self, language: str) -> int:
        """Return the token of a language, by its code, or raise ValueError."""
        code = language.lower().removeprefix("<|").removesuffix("|>")
        if code not in self.languages:
            raise ValueError(
                f"language {language!r} is none that the model knows: "
                + (", ".join(self.languages) or "it knows one only, and takes no language")
            )
        return self.languages[code]

    def task_token(self, task: str) -> int:
        """Return the token of a task, or raise ValueError."""
        if task not in self.tasks:
            raise ValueError(f"task must be one of {[*self.tasks]}, not {task!r}")
        return self.tasks[task]


def read_alignment(settings: Settings, config: WhisperConfig) -> tuple[tuple[int, int], ...]:
    """Return alignment_heads, pairs of a layer and a head."""
    given = settings.get("alignment_heads", [])
    limits = (config.decoder_layers, config.num_heads)
    pairs: list[tuple[int, int]] = []
    for pair in given if isinstance(given, list) else [given]:
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(
                type(each) is int and 0 <= each < limit
                for each, limit in zip(pair, limits, strict=True)
            )
        ):
            raise ValueError(
                f"{settings.path}: alignment_heads must be pairs of a layer of {limits[0]} and a "
                f"head of {limits[1]}, not {shown(given)}"
            )
        pairs.append((pair[0], pair[1]))
    return tuple(pairs)


def names_of(languages: dict[str, int]) -> tuple[str, ...]:
    """Return languages' codes, and their tokens as text."""
    return (*languages, *(f"<|{code}|>" for code in languages))


def whole_or_none(settings: Settings, name: str) -> int | None:
    """Return a whole number from 0 on, or None if there is none."""
    return None if settings.get(name) is None else settings.whole(name, 0)


def read_forced(settings: Settings, vocab_size: int) -> tuple[int, ...]:
    """Return forced_decoder_ids, pairs of the places 1, 2, … and tokens; those of null left out."""
    pairs = settings.get("forced_decoder_ids", [])
    tokens: list[int] = []
    for place, pair in enumerate(pairs if isinstance(pairs, list) else [pairs], start=1):
        if not isinstance(pair, list) or len(pair) != 2 or pair[0] != place:
            raise ValueError(
                f"{settings.path}: forced_decoder_ids must be pairs of 1, 2, … and a token, "
                f"not {shown(pairs)}"
            )
        part = Settings({"forced_decoder_ids": pair[1]}, settings.path)
        tokens += token_tuple(part, "forced_decoder_ids", vocab_size)
    return tuple(tokens)
