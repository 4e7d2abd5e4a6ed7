"""Whisper on numattn's public API: speech in, text out.

    frames = gelu(convolution(gelu(convolution(log-mel spectrogram)))) + sines and cosines
    source = encoder(frames)       a window of 30 s, whatever is said in it
    text   = decoder(<start> <language> <task> [<no times>], source)

(Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2023.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from numattn import Linear

from ..arrays import Float32Array, Int64Array
from ..files.checkpoint import Checkpoint
from ..files.ctranslate2_file import ctranslate2_in
from ..files.folder import model_folder
from ..files.tensors import Tensors
from .forms import NORM_EPS
from .generation_config import GenerationConfig
from .layers import DecoderLayer, EncoderLayer, read_layer_norm
from .log_mel import LogMel
from .model import EncoderDecoder
from .sound import checked_sound
from .state import DecoderState
from .tables import embedded, read_table
from .text_tokens import TextTokens
from .timestamps import SECONDS, Piece, TimestampRule, pieces_of
from .whisper_config import STRIDE, SpeechTokens, WhisperConfig, read_log_mel

STACKS = ("encoder", "decoder")
WIDTH = 3  # frames that a convolution reads


@dataclass(frozen=True)
class Segment:
    """What is said from one time to another."""

    start: float
    """Seconds."""
    end: float
    text: str
    tokens: list[int]


@dataclass(frozen=True)
class Transcript:
    """What is said in some sound."""

    text: str
    segments: list[Segment]
    language: str | None
    """The code of what is spoken, or what it is taken for; None in a model of one language."""


class Convolution:
    """A convolution over time, of WIDTH frames around each, as a product."""

    def __init__(
        self, checkpoint: Tensors, name: str, rows: int, columns: int, stride: int,
        dtype: np.dtype[Any],
    ) -> None:  # fmt: skip
        weight = checkpoint.take(f"{name}.weight", (rows, columns, WIDTH))
        flat = weight.transpose(0, 2, 1).reshape(rows, WIDTH * columns)
        self.product = Linear(flat, checkpoint.take(f"{name}.bias", (rows,)), dtype=dtype)
        self.stride = stride

    def __call__(self, x: Float32Array, num_threads: int | None) -> Float32Array:
        """Return gelu of the result (B, T / stride, rows) for x (B, T, columns)."""
        padded = np.pad(x, ((0, 0), (1, 1), (0, 0)))
        size = x.shape[1]
        parts = [padded[:, place : place + size : self.stride] for place in range(WIDTH)]
        return self.product(
            np.concatenate(parts, axis=2), activation="gelu", num_threads=num_threads
        )


class Whisper(EncoderDecoder):
    """A Whisper, made by `Whisper.from_folder`.

    Attributes
    ----------
    config : WhisperConfig
        Sizes and choices.
    log_mel : LogMel
        How sound becomes frames: ``model.log_mel(samples)``.
    speech : SpeechTokens
        The tokens of languages and tasks.

    Examples
    --------
    >>> from numattn.models import Whisper
    >>> model = Whisper.from_folder(folder)  # doctest: +SKIP
    >>> model.transcribe("speech.wav").text  # doctest: +SKIP
    'And so my fellow Americans, ask not what your country can do for you.'
    """

    def __init__(
        self, config: WhisperConfig, checkpoint: Tensors, generation: GenerationConfig,
        speech: SpeechTokens, log_mel: LogMel, tokens: TextTokens, dtype: DTypeLike | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config, dtype)
        self.config, self.generation, self._tokens = config, generation, tokens
        self.speech, self.log_mel = speech, log_mel
        width, number = config.hidden_size, self._number
        for stack, count in zip(
            STACKS, (config.encoder_layers, config.decoder_layers), strict=True
        ):
            checkpoint.check_layers(f"{stack}.layers", count, f"{stack}_layers")
        self._convolutions = [
            Convolution(checkpoint, "encoder.conv1", width, config.bands, 1, number),
            Convolution(checkpoint, "encoder.conv2", width, width, STRIDE, number),
        ]
        self._places = [
            checkpoint.take(f"{stack}.embed_positions.weight", (count, width))
            for stack, count in zip(
                STACKS, (config.source_positions, config.max_positions), strict=True
            )
        ]
        table = checkpoint.take(
            "decoder.embed_tokens.weight", (config.vocab_size, width), dtype=number
        )
        self._tables = [table]
        head = read_table(checkpoint, "proj_out.weight", table, from_root=True)
        self._head = Linear(head, dtype=self.dtype)
        del head
        norm = read_layer_norm(NORM_EPS, width)
        self._norms = [norm(checkpoint, f"{stack}.layer_norm") for stack in STACKS]
        self._encoder = [
            EncoderLayer(checkpoint, f"encoder.layers.{number}", config.layer(0), self.dtype)
            for number in range(config.encoder_layers)
        ]
        self._decoder = [
            DecoderLayer(checkpoint, f"decoder.layers.{number}", config.layer(1), self.dtype)
            for number in range(config.decoder_layers)
        ]

    @classmethod
    def from_folder(cls, folder: str | Path, *, dtype: DTypeLike | None = None) -> Whisper:
        """Load a Hugging Face folder: config.json, model.safetensors, and tokenizer.json for texts.

        generation_config.json names the tokens of languages, tasks and times,
        preprocessor_config.json how sound becomes frames. Arguments and errors are those of
        `T5.from_folder`. A folder of CTranslate2's is read as well (docs/encoder-decoders.md).
        """
        folder = model_folder(folder)
        file = ctranslate2_in(folder)
        if file is not None:
            from .ctranslate2_whisper import load_whisper  # which makes use of this class

            return load_whisper(file, dtype=dtype)
        config = WhisperConfig.from_file(folder / "config.json")
        generation = GenerationConfig.from_folder(folder, config.vocab_size)
        speech = SpeechTokens.from_folder(folder, config.vocab_size)
        checkpoint = Checkpoint(folder / "model.safetensors", "decoder.embed_tokens.weight")
        model = cls(
            config, checkpoint, generation, speech, read_log_mel(folder, config),
            TextTokens(folder), dtype,
        )  # fmt: skip
        checkpoint.finish("")
        return model

    def encode(self, frames: ArrayLike, *, num_threads: int | None = None) -> DecoderState:
        """Return where the decoder begins for windows of frames (B, bands, T).

        Parameters
        ----------
        frames : float array of shape (B, bands, T)
            Log-mel spectrograms, of exactly a window: T is 2 · max_source_positions.
        num_threads : int, optional
            Upper limit for this call.

        Raises
        ------
        ValueError
            If they have another shape.
        """
        given = np.asarray(frames, dtype=np.float32)
        wanted = (self.config.bands, self.config.frames)
        if given.ndim != 3 or given.shape[1:] != wanted or not given.shape[0]:
            raise ValueError(f"frames must be (B, {wanted[0]}, {wanted[1]}), not {given.shape}")
        x = np.ascontiguousarray(given.transpose(0, 2, 1))
        for convolution in self._convolutions:
            x = convolution(x, num_threads)
        x += self._places[0]
        lengths = np.full(x.shape[0], x.shape[1], dtype=np.int64)
        for layer in self._encoder:
            layer(x, lengths, None, num_threads)
        x = self._norms[0](x, num_threads, out=x)
        return self._started(x, lengths, num_threads)

    def _decoded(
        self, ids: Int64Array, state: DecoderState, num_threads: int | None
    ) -> Float32Array:
        x = embedded(self._tables[0], ids, 1.0)
        x += self._places[1][state.position : state.position + ids.shape[1]]
        for number, (layer, source) in enumerate(zip(self._decoder, state.sources, strict=True)):
            layer(x, state.cache, number, source, state.lengths, None, num_threads)
        return self._norms[1](x, num_threads, out=x)

    def transcribe(
        self,
        audio: Any,
        sampling_rate: int = 16000,
        *,
        language: str | None = None,
        task: str | None = None,
        timestamps: bool = False,
        beams: int | None = None,
        max_tokens: int | None = None,
        progress: Callable[[float, float], object] | None = None,
        num_threads: int | None = None,
    ) -> Transcript:
        """Return what is said in some sound.

        Sound of more than a window (30 s) is transcribed window by window, each of which begins
        where the last whole segment of the one before ended; for that, times are looked for, as
        with `timestamps`. No window is transcribed a second time with other settings.

        Parameters
        ----------
        audio : path, or float array of shape (n,)
            A WAV file of whole numbers, of one or more channels; or samples of −1 … 1.
        sampling_rate : int
            Samples a second of an array; the model reads 16000.
        language : str, optional
            The code of what is spoken, "en". Found out from the first window by default.
        task : {"transcribe", "translate"}, optional
            Whether the text is in the language or in English; transcribe by default.
        timestamps : bool
            Whether there is a segment for each pair of times that the model finds. Otherwise sound
            of one window is one segment.
        beams : int, optional
            How many texts a search keeps; the folder's num_beams, or 1, by default.
        max_tokens : int, optional
            Tokens of a window, at most.
        progress : callable, optional
            Called after each window with the seconds that are transcribed, and those of all sound.
        num_threads : int, optional
            Upper limit for this call.

        Raises
        ------
        FileNotFoundError
            If there is no such file, or no tokenizer.
        ImportError
            If tokenizers is not installed.
        TypeError
            If samples are not floats.
        ValueError
            If sound is at another rate, none, or not finite; if the model does not know the
            language, the task or times; or if it has one language and one is given.
        """
        samples = checked_sound(audio, sampling_rate, self.log_mel.rate)
        size = self.config.frames * self.log_mel.hop
        frames = self.log_mel(np.pad(samples, (0, max(0, size - samples.size))))
        said = -(-samples.size // self.log_mel.hop)
        timestamps = bool(timestamps) or samples.size > size
        state: DecoderState | None = self.encode(window(frames, 0, self.config.frames)[np.newaxis],
                                                 num_threads=num_threads)  # fmt: skip
        assert state is not None
        prompt, code = self._prompt(state, language, task, timestamps, num_threads)
        pieces: list[tuple[float, Piece]] = []
        place = 0
        while place < said:
            if state is None:
                here = window(frames, place, self.config.frames)[np.newaxis]
                state = self.encode(here, num_threads=num_threads)
            tokens = self._said(state, prompt, timestamps, beams, max_tokens, num_threads)
            left = min(said - place, self.config.frames)
            first = self._first_time if timestamps else self.vocab_size
            found, done = pieces_of(tokens, first, left)
            pieces += [(place * SECONDS / STRIDE, piece) for piece in found]
            place, state = place + done, None
            if progress is not None:
                whole = samples.size / self.log_mel.rate
                progress(min(place * self.log_mel.hop / self.log_mel.rate, whole), whole)
        segments = [self._segment(start, piece) for start, piece in pieces]
        return Transcript("".join(each.text for each in segments).strip(), segments, code)

    @property
    def _first_time(self) -> int:
        """Return the token of time 0; without one, what no token reaches."""
        none = self.speech.no_timestamps
        return self.vocab_size if none is None else none + 1

    def _segment(self, start: float, piece: Piece) -> Segment:
        words = [token for token in piece.tokens if token < self._first_time]
        text = self._tokens.decode(words)
        return Segment(
            start + piece.start * SECONDS, start + piece.end * SECONDS, text, piece.tokens
        )

    def _said(
        self,
        state: DecoderState,
        prompt: Int64Array,
        timestamps: bool,
        beams: int | None,
        max_tokens: int | None,
        num_threads: int | None,
    ) -> list[int]:
        """Return the tokens of a window, without the end token."""
        own, room = self.generation, self.config.max_positions - prompt.size
        most = max_tokens
        if most is None:
            most = own.max_new_tokens or own.max_length or room
            most = min(most, room)
        more = []
        if timestamps:
            more.append(
                TimestampRule(
                    self._first_time, self.speech.end, prompt.size, self.speech.latest_start
                )
            )
        found = self._searched(
            state, prompt, *more, beams=beams, max_tokens=most, num_threads=num_threads
        )
        tokens = found[0][0].tokens
        return tokens[:-1] if tokens and tokens[-1] in own.rules.ends else tokens

    def _prompt(
        self,
        state: DecoderState,
        language: str | None,
        task: str | None,
        timestamps: bool,
        num_threads: int | None,
    ) -> tuple[Int64Array, str | None]:
        """Return what texts begin with, and the code of the language; the state stays as it is."""
        speech, code = self.speech, None
        none = speech.no_timestamps
        if timestamps and none is None:
            raise ValueError(
                "timestamps, and sound of more than a window, need no_timestamps_token_id in "
                "generation_config.json, which the folder has not"
            )
        tokens = [speech.start]
        if speech.languages:
            wanted = speech.language if language is None else language
            token = (
                self._heard(state, num_threads) if wanted is None
                else speech.language_token(wanted)
            )  # fmt: skip
            code = {number: each for each, number in speech.languages.items()}[token]
            tokens += [token, speech.task_token(speech.task if task is None else task)]
        else:
            if language is not None:
                speech.language_token(language)
            if task not in (None, "transcribe"):
                raise ValueError(
                    f"task must be 'transcribe' in a model of one language, not {task!r}"
                )
            tokens += speech.forced
        if timestamps and tokens[-1] == none:
            tokens.pop()
        if not timestamps and none is not None and tokens[-1] != none:
            tokens.append(none)
        return np.array(tokens, dtype=np.int64), code

    def _heard(self, state: DecoderState, num_threads: int | None) -> int:
        """Return the token of the likeliest language."""
        logits = self.step([self.speech.start], state, num_threads=num_threads)[0]
        state.cache.truncate(0)
        tokens = sorted(self.speech.languages.values())
        return tokens[int(logits[tokens].argmax())]


def window(frames: Float32Array, first: int, size: int) -> Float32Array:
    """Return frames (bands, size) from one on, filled up with zeros."""
    part = frames[:, first : first + size]
    return np.pad(part, ((0, 0), (0, size - part.shape[1])))
