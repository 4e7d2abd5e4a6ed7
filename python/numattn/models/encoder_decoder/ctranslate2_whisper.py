"""Whisper from folders of CTranslate2's, as faster-whisper takes them: WhisperSpec."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import DTypeLike

from ..files.ctranslate2_file import Ctranslate2File
from ..files.ctranslate2_tensors import WITHOUT_EFFECT, Ctranslate2Tensors
from ..files.settings import Settings
from .attempts import Draws, Thresholds
from .ctranslate2_names import place_of
from .ctranslate2_sizes import read_sizes
from .ctranslate2_vocabularies import numbered
from .generation_config import GenerationConfig, token_tuple
from .speech_network import STACKS
from .speech_text import SpeechText
from .token_rules import TokenRules
from .whisper import Whisper
from .whisper_config import SpeechTokens, WhisperConfig, read_alignment, read_log_mel

GELU = 3
MULTILINGUAL = 51865  # tokens of a model of several languages, at least, by OpenAI's own rule
# What CTranslate2 does where a call does not say it.
LATEST_START = 50  # of the first time
BEAMS = 5
MEDIAN_WIDTH = 7
LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")


class WhisperTensors(Ctranslate2Tensors):
    """A folder's variables, of which the head is the table of the tokens, if they are one."""

    def has(self, name: str, *, from_root: bool = False) -> bool:
        """Return whether there is a tensor of that name, which is not another one's."""
        table = self.file.own_name(self.place_of("decoder.embed_tokens.weight").name)
        own = self.file.own_name(self.place_of(name).name)
        return own in self.file.variables and not (name == "proj_out.weight" and own == table)


def load_whisper(file: Ctranslate2File, *, dtype: DTypeLike | None = None) -> Whisper:
    """Load a folder of CTranslate2's; errors are those of `Whisper.from_folder`."""
    file.check_spec("WhisperSpec")
    tensors = WhisperTensors(file, place_of)
    config = read_config(tensors)
    tokens = numbered(file.vocabulary(("vocabulary",), config.vocab_size))
    speech = read_speech(file, config, tokens)
    generation = read_generation(file, config, speech)
    log_mel = read_log_mel(file.folder, config)
    model = Whisper(config, tensors, generation, speech, log_mel, SpeechText(file.folder), dtype)
    refuse_key_biases(tensors, config)
    tensors.finish(WITHOUT_EFFECT)
    return model


def read_config(tensors: Ctranslate2Tensors) -> WhisperConfig:
    """Return sizes by the variables' shapes, or raise ValueError."""
    tensors.only("decoder/activation", GELU, GELU)
    tensors.only("decoder/pre_norm", 1, 1)
    for name in ("decoder/alibi", "decoder/start_from_zero_embedding"):
        tensors.only(name, 0, 0)
    tensors.file.config.one_of("layer_norm_epsilon", (1e-5,), 1e-5)
    table = "decoder/embeddings/weight"
    width = tensors.size(table, 1)
    scale = tensors.embedding_scale("decoder", width)
    if scale != 1:
        raise ValueError(f"{tensors.file.path}: decoder/scale_embeddings {scale} is not supported")
    encoder, decoder = (read_sizes(tensors, stack, width) for stack in STACKS)
    return WhisperConfig(
        vocab_size=tensors.size(table, 0),
        hidden_size=width,
        encoder_layers=encoder.layers,
        decoder_layers=decoder.layers,
        heads=(encoder.heads, decoder.heads),
        ffn_sizes=(encoder.ffn_size, decoder.ffn_size),
        activation="gelu",
        bands=tensors.size("encoder/conv1/weight", 1),
        source_positions=tensors.size("encoder/position_encodings/encodings", 0),
        max_positions=tensors.size("decoder/position_encodings/encodings", 0),
        median_width=MEDIAN_WIDTH,
    )


def refuse_key_biases(tensors: Ctranslate2Tensors, config: WhisperConfig) -> None:
    """Raise ValueError if keys have a bias: beside those of queries and values stand zeros."""
    counts = (config.encoder_layers, config.decoder_layers)
    for stack, count in zip(STACKS, counts, strict=True):
        for number in range(count):
            for part in ("self_attn", "encoder_attn")[: 1 + (stack == "decoder")]:
                name = f"{stack}.layers.{number}.{part}.k_proj.bias"
                if np.any(tensors.take(name, (config.hidden_size,))):
                    raise ValueError(f"{tensors.file.path}: a bias of keys, {name}, is not read")


def read_speech(
    file: Ctranslate2File, config: WhisperConfig, tokens: dict[str, int]
) -> SpeechTokens:
    """Return the tokens that say what a text is to be, by what they are written as.

    Raises
    ------
    ValueError
        If one is missing.
    """
    for token in ("<|startoftranscript|>", "<|endoftext|>"):
        if token not in tokens:
            raise ValueError(f"{file.folder}: the vocabulary has no token {token}")
    tasks = {name: tokens[f"<|{name}|>"] for name in ("transcribe", "translate")
             if f"<|{name}|>" in tokens}  # fmt: skip
    several = len(tokens) >= MULTILINGUAL
    return SpeechTokens(
        start=tokens["<|startoftranscript|>"],
        end=tokens["<|endoftext|>"],
        languages=read_languages(file, tokens) if several else {},
        tasks=tasks if several else {},
        forced=(),
        no_timestamps=tokens.get("<|notimestamps|>"),
        latest_start=LATEST_START,
        language=None,
        task="transcribe",
        thresholds=Thresholds(),
        draws=Draws.of(Settings({}, file.config.path)),
        previous=tokens.get("<|startofprev|>"),
        conditioned=False,
        alignment=read_alignment(file.config, config),
    )


def read_languages(file: Ctranslate2File, tokens: dict[str, int]) -> dict[str, int]:
    """Return the codes of languages and their tokens: those of lang_ids, or before the tasks'."""
    written = {number: token for token, number in tokens.items()}
    first = tokens["<|startoftranscript|>"] + 1
    ids = token_tuple(file.config, "lang_ids", len(written))
    languages = {}
    for number in ids or range(first, tokens.get("<|translate|>", first)):
        match = LANGUAGE.fullmatch(written.get(number, ""))
        if match is None:
            raise ValueError(
                f"{file.config.path}: token {number}, {written.get(number)!r}, is of no language"
            )
        languages[match[1]] = number
    if not languages:
        raise ValueError(f"{file.config.path}: the model is of several languages, and names none")
    return languages


def read_generation(
    file: Ctranslate2File, config: WhisperConfig, speech: SpeechTokens
) -> GenerationConfig:
    """Return how texts are searched for, as CTranslate2 does where nothing is said."""

    def tokens(name: str) -> tuple[int, ...]:
        return token_tuple(file.config, name, config.vocab_size)

    return GenerationConfig(
        start=speech.start,
        rules=TokenRules(
            ends=(speech.end,),
            suppressed=tokens("suppress_ids"),
            suppressed_first=tokens("suppress_ids_begin"),
            renormalize=True,
        ),
        beams=BEAMS,
        length_penalty=1.0,
        early_stopping=True,
        max_length=None,
        max_new_tokens=config.max_positions // 2,
    )
