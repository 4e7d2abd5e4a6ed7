"""Whisper: speech in, text out.

    text = decoder(what was said before, <start> <language> <task> [<no times>], window of 30 s)

(Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2023.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from numattn._arguments import flag
from numattn._arguments import size as positive

from ..arrays import Float32Array, Int64Array
from ..files.checkpoint import Checkpoint
from ..files.ctranslate2_file import ctranslate2_in
from ..files.folder import model_folder
from ..files.tensors import Tensors
from ..ids import check_ids
from .generation_config import GenerationConfig
from .log_mel import LogMel
from .sound import checked_sound
from .speech_text import SpeechText
from .spoken_before import PromptCondition, SpokenBefore
from .state import DecoderState
from .timestamps import SECONDS, Piece, pieces_of
from .transcript import Segment, Transcript, Word
from .whisper_config import STRIDE, SpeechTokens, WhisperConfig, read_log_mel
from .window_writer import WindowWriter, Wishes

PREVIOUS = "<|startofprev|>"
# Languages that are written without spaces between words.
UNSPACED = ("zh", "ja", "th", "lo", "my", "yue")


class Spoken(NamedTuple):
    """A piece of a window that begins at some time, and the places of the window's tokens."""

    start: float
    piece: Piece
    places: list[int] | None


class Whisper(WindowWriter):
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
        speech: SpeechTokens, log_mel: LogMel, tokens: SpeechText, dtype: DTypeLike | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config, checkpoint, generation, speech, dtype)
        self._tokens, self.log_mel = tokens, log_mel

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
        speech = SpeechTokens.from_folder(folder, config)
        checkpoint = Checkpoint(folder / "model.safetensors", "decoder.embed_tokens.weight")
        model = cls(
            config, checkpoint, generation, speech, read_log_mel(folder, config),
            SpeechText(folder), dtype,
        )  # fmt: skip
        checkpoint.finish("")
        return model

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
        temperature: float | Sequence[float] | None = None,
        compression_ratio_threshold: float | None = None,
        logprob_threshold: float | None = None,
        no_speech_threshold: float | None = None,
        seed: int | None = None,
        prompt: str | Sequence[int] | None = None,
        condition_on_prev_tokens: bool | None = None,
        prompt_condition_type: PromptCondition = "first-segment",
        word_timestamps: bool = False,
        progress: Callable[[float, float], object] | None = None,
        num_threads: int | None = None,
    ) -> Transcript:
        """Return what is said in some sound.

        Sound of more than a window (30 s) is transcribed window by window, each of which begins
        where the last whole segment of the one before ended; for that, times are looked for, as
        with `timestamps`.

        A window whose text does not come out well, by the first two thresholds, is written again
        at the next temperature, as transformers' ``generate`` does; the last one's is kept.

        Parameters
        ----------
        audio : path, or float array of shape (n,)
            A WAV file, of one or more channels, or another sound file that soundfile reads; or
            samples of −1 … 1.
        sampling_rate : int
            Samples a second of an array; the model reads 16000. Another rate, of an array or a
            file, is resampled by soxr.
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
        temperature : float or sequence of float, optional
            How tokens are drawn, attempt after attempt: at 0, by default the only one, the
            likeliest is taken, or a search is made with `beams`; above, one is drawn as by
            `Sampler`, of the 50 likeliest unless the folder's top_k says otherwise.
        compression_ratio_threshold : float, optional
            A text whose tokens zlib makes smaller by more than this repeats itself, and is written
            again (OpenAI: 2.4 of characters; transformers: 1.35 of tokens). The folder's own, or
            none, by default; so are the next two.
        logprob_threshold : float, optional
            A text whose mean of log p is below this is written again (usually −1).
        no_speech_threshold : float, optional
            Where silence is more probable than this, and the mean of log p below
            `logprob_threshold`, nothing is said in the window (usually 0.6).
        seed : int, optional
            The same seed draws the same tokens; without one each call differs.
        prompt : str or sequence of int, optional
            What goes before each window as if it had been said: names and words to be expected,
            or a way of writing. A text, or its tokens (transformers' ``prompt_ids``), the first of
            which is <|startofprev|>.
        condition_on_prev_tokens : bool, optional
            Whether what is said goes before the next window, its last tokens, unless it was drawn
            at a temperature of 0.5 or more. The folder's own, or not, by default.
        prompt_condition_type : {"first-segment", "all-segments"}
            Where the prompt goes with `condition_on_prev_tokens`: before the first window, as what
            was said before it, or before what was said before each.
        word_timestamps : bool
            Whether segments have words with their times, by the heads that the folder's
            alignment_heads names; with `timestamps`.
        progress : callable, optional
            Called after each window with the seconds that are transcribed, and those of all sound.
        num_threads : int, optional
            Upper limit for this call.

        Raises
        ------
        FileNotFoundError
            If there is no such file, or no tokenizer.
        ImportError
            If tokenizers is not installed, or soundfile or soxr where it is needed.
        TypeError
            If samples are not floats, or a temperature, threshold or seed is no number.
        ValueError
            If there is no sound, or it is not finite; if the model does not know the
            language, the task, times or those of words; if it has one language and one is given; if
            a temperature or seed is below 0; if there is a no_speech_threshold, and no
            logprob_threshold; or if a prompt is longer than the model's positions, or has a token
            that is no text.
        """
        speech = self.speech
        wishes = Wishes(
            bool(timestamps or word_timestamps), beams,
            None if max_tokens is None else positive("max_tokens", max_tokens),
            speech.draws.samplers(temperature, seed),
            speech.thresholds.changed(
                compression_ratio=compression_ratio_threshold, logprob=logprob_threshold,
                no_speech=no_speech_threshold,
            ),
            bool(word_timestamps), num_threads,
        )  # fmt: skip
        if wishes.words and not speech.alignment:
            raise ValueError(
                "word_timestamps need alignment_heads in generation_config.json, which the folder "
                "has not"
            )
        if wishes.thresholds.no_speech is not None and speech.no_timestamps is None:
            raise ValueError(
                "no_speech_threshold needs no_timestamps_token_id in generation_config.json, "
                "which the folder has not"
            )
        samples = checked_sound(audio, sampling_rate, self.log_mel.rate)
        size = self.config.frames * self.log_mel.hop
        frames = self.log_mel(np.pad(samples, (0, max(0, size - samples.size))))
        if samples.size > size:
            wishes = replace(wishes, timestamps=True)
        state = self._heard(frames, 0, num_threads)
        opening, code = self._opening(state, language, task, wishes)
        before = self._before(prompt, condition_on_prev_tokens, prompt_condition_type, opening.size)
        said = -(-samples.size // self.log_mel.hop)
        spaced = code not in UNSPACED or (task or speech.task) == "translate"

        def reached(place: int) -> None:
            if progress is not None:
                whole = samples.size / self.log_mel.rate
                progress(min(place * self.log_mel.hop / self.log_mel.rate, whole), whole)

        segments = [
            self._segment(spoken, spaced)
            for spoken in self._spoken_pieces(frames, said, state, opening, before, wishes, reached)
        ]
        return Transcript("".join(each.text for each in segments).strip(), segments, code)

    def _spoken_pieces(
        self, frames: Float32Array, said: int, state: DecoderState, opening: Int64Array,
        before: SpokenBefore, wishes: Wishes, reached: Callable[[int], object],
    ) -> list[Spoken]:  # fmt: skip
        """Return what is said in `said` frames, window by window; `reached` is told each end."""
        pieces: list[Spoken] = []
        first = self._first_time if wishes.timestamps else self.vocab_size
        place = 0
        while place < said:
            if place:
                state = self._heard(frames, place, wishes.num_threads)
            left = min(said - place, self.config.frames)
            prompt = np.concatenate([np.array(before.tokens(), dtype=np.int64), opening])
            attempt = self._attempted(state, prompt, wishes)
            found, done = pieces_of(self._unended(attempt.tokens), first, left)
            if attempt.silent:
                found, done = [], left
            before.add(found, attempt.temperature)
            places = None
            if found and wishes.words:
                places = self._token_places(state, prompt, attempt.tokens, left, wishes)
            pieces += [Spoken(place * SECONDS / STRIDE, piece, places) for piece in found]
            place += done
            reached(place)
        return pieces

    def _heard(self, frames: Float32Array, place: int, num_threads: int | None) -> DecoderState:
        """Return where the decoder begins for the window from a frame on."""
        here = window(frames, place, self.config.frames)[np.newaxis]
        return self.encode(here, num_threads=num_threads)

    def _segment(self, spoken: Spoken, spaced: bool) -> Segment:
        """Return a piece as it is given to a caller."""
        piece, start = spoken.piece, spoken.start
        text = self._tokens.decode([token for token in piece.tokens if token < self._first_time])
        return Segment(
            start + piece.start * SECONDS, start + piece.end * SECONDS, text, piece.tokens,
            None if spoken.places is None else self._words(spoken, spoken.places, spaced),
        )  # fmt: skip

    def _words(self, spoken: Spoken, places: list[int], spaced: bool) -> list[Word]:
        """Return a piece's words: each from where the token before it ends to where it does."""
        numbers = [
            number
            for number, token in enumerate(spoken.piece.tokens, start=spoken.piece.first)
            if token < self.speech.end
        ]
        first, ends = spoken.piece.first, [0, *places]
        tokens = [spoken.piece.tokens[number - first] for number in numbers]
        return [
            Word(
                text, spoken.start + ends[numbers[begin]] * SECONDS,
                spoken.start + ends[numbers[end - 1] + 1] * SECONDS,
            )
            for text, begin, end in self._tokens.words(tokens, spaced)
        ]  # fmt: skip

    def _before(
        self, prompt: str | Sequence[int] | None, conditioned: bool | None,
        condition: PromptCondition, opening: int,
    ) -> SpokenBefore:  # fmt: skip
        """Return what goes before the windows, or raise."""
        if condition not in ("first-segment", "all-segments"):
            raise ValueError(
                "prompt_condition_type must be 'first-segment' or 'all-segments', "
                f"not {condition!r}"
            )
        everywhere = condition == "all-segments"
        goes_on = self.speech.conditioned
        if conditioned is not None:
            goes_on = flag("condition_on_prev_tokens", conditioned)
        if everywhere and not goes_on:
            raise ValueError("prompt_condition_type 'all-segments' needs condition_on_prev_tokens")
        most = self.config.max_positions // 2 - 1
        tokens = self._prompt_tokens(prompt)
        room = self.config.max_positions - opening - 1 - (most if everywhere else 0)
        if len(tokens) > room:
            raise ValueError(f"prompt has {len(tokens)} tokens, and there is room for {room}")
        return SpokenBefore(
            tokens, self.speech.previous, self._first_time, most,
            conditioned=goes_on, everywhere=everywhere,
        )  # fmt: skip

    def _prompt_tokens(self, prompt: str | Sequence[int] | None) -> list[int]:
        """Return the tokens of a prompt, none of an empty one."""
        if not isinstance(prompt, str):
            given = [] if prompt is None else prompt
            return [*map(int, check_ids("prompt", given, self.vocab_size, ndim=1))]
        if not prompt.strip():
            return []
        tokens = self._tokens.plain(f" {prompt.strip()}")
        special = [token for token in tokens if token >= self.speech.end]
        if special:
            raise ValueError(f"prompt has the token {special[0]}, which is no text: {prompt!r}")
        previous = self._tokens.token(PREVIOUS)
        previous = self.speech.previous if previous is None else previous
        return tokens if previous is None else [previous, *tokens]

    def _unended(self, tokens: list[int]) -> list[int]:
        """Return tokens without the end token."""
        return tokens[:-1] if tokens and tokens[-1] in self.generation.rules.ends else tokens

    def _opening(
        self, state: DecoderState, language: str | None, task: str | None, wishes: Wishes
    ) -> tuple[Int64Array, str | None]:
        """Return what texts begin with, and the code of the language."""
        speech, code = self.speech, None
        none, timestamps = speech.no_timestamps, wishes.timestamps
        if timestamps and none is None:
            raise ValueError(
                "timestamps, and sound of more than a window, need no_timestamps_token_id in "
                "generation_config.json, which the folder has not"
            )
        tokens = [speech.start]
        if speech.languages:
            wanted = speech.language if language is None else language
            token = (
                self._spoken(state, wishes.num_threads) if wanted is None
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

    def _spoken(self, state: DecoderState, num_threads: int | None) -> int:
        """Return the token of the likeliest language."""
        logits = self.step([self.speech.start], state, num_threads=num_threads)[0]
        tokens = sorted(self.speech.languages.values())
        return tokens[int(logits[tokens].argmax())]


def window(frames: Float32Array, first: int, size: int) -> Float32Array:
    """Return frames (bands, size) from one on, filled up with zeros."""
    part = frames[:, first : first + size]
    return np.pad(part, ((0, 0), (0, size - part.shape[1])))
