"""The text of a window of sound, written again while it does not come out well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..arrays import Int64Array
from ..beams import log_softmax
from ..files.tensors import Tensors
from ..sampling import Sampler
from .attempts import Look, Thresholds
from .generation_config import GenerationConfig
from .speech_network import SpeechNetwork
from .state import DecoderState
from .timestamps import TimestampRule
from .token_rules import NEVER, Rule
from .token_times import places_of_tokens
from .whisper_config import STRIDE, SpeechTokens, WhisperConfig


@dataclass(frozen=True)
class Wishes:
    """How a call wants each window to be written."""

    timestamps: bool
    beams: int | None
    max_tokens: int | None
    samplers: list[Sampler]
    """What chooses tokens, attempt after attempt."""
    thresholds: Thresholds
    words: bool
    """Whether it is asked when each token is said."""
    num_threads: int | None


@dataclass(frozen=True)
class Attempt:
    """The text of a window."""

    tokens: list[int]
    """Its end included."""
    silent: bool
    """Whether nothing is said."""
    temperature: float


class WindowWriter(SpeechNetwork):
    """A network that writes what is said in a window."""

    def __init__(
        self, config: WhisperConfig, checkpoint: Tensors, generation: GenerationConfig,
        speech: SpeechTokens, dtype: DTypeLike | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config, checkpoint, dtype)
        self.generation, self.speech = generation, speech

    @property
    def _first_time(self) -> int:
        """Return the token of time 0; without one, what no token reaches."""
        none = self.speech.no_timestamps
        return self.vocab_size if none is None else none + 1

    def _attempted(self, state: DecoderState, opening: Int64Array, wishes: Wishes) -> Attempt:
        """Return the text of a window, written again while it does not come out well."""
        own, room = self.generation, self.config.max_positions - opening.size
        most = min(wishes.max_tokens or own.max_new_tokens or own.max_length or room, room)
        more: list[Rule] = []
        if wishes.timestamps:
            speech = self.speech
            more.append(
                TimestampRule(self._first_time, speech.end, opening.size, speech.latest_start)
            )
        for sampler in wishes.samplers:
            drawn = sampler.temperature > 0
            state.restart()
            found = self._searched(
                state, opening, *more, beams=1 if drawn else wishes.beams, max_tokens=most,
                choose=sampler if drawn else None, num_threads=wishes.num_threads,
            )  # fmt: skip
            tokens, look = found[0][0].tokens, None
            if wishes.thresholds.needs_look:
                rule = own.rules.of(opening.size, most, *more)
                look = self._look(state, opening, tokens, rule, sampler, wishes)
            verdict = wishes.thresholds.verdict(tokens, self.vocab_size, look)
            if not verdict.again:
                break
        return Attempt(tokens, verdict.silent, sampler.temperature)

    def _look(
        self, state: DecoderState, opening: Int64Array, tokens: list[int], rule: Rule,
        sampler: Sampler, wishes: Wishes,
    ) -> Look:  # fmt: skip
        """Return how probable a text is, of which all logits are computed once more, at once.

        The probabilities are those of the tokens that could be chosen, at temperature 1.
        """
        state.restart()
        ids = np.concatenate([opening, np.array(tokens[:-1], dtype=np.int64)])
        logits = self.logits(ids[np.newaxis], state, num_threads=wishes.num_threads)[0]
        start = int(np.flatnonzero(opening == self.speech.start)[-1])
        silence = float(np.exp(log_softmax(logits[start])[self._first_time - 2]))
        beams = self.generation.beams if wishes.beams is None else wishes.beams
        total = 0.0
        for number, token in enumerate(tokens, start=opening.size):
            scores: Any = logits[np.newaxis, number - 1]
            if beams > 1 and not sampler.temperature:  # as the search has it
                scores = log_softmax(scores)
            scores = rule(ids[np.newaxis, :number], scores)[0]
            if sampler.temperature:
                scores[sampler.probabilities(scores) == 0] = NEVER
            total += float(log_softmax(scores)[token])
        return Look(total / len(tokens), silence)

    def _token_places(
        self, state: DecoderState, opening: Int64Array, tokens: list[int], frames: int,
        wishes: Wishes,
    ) -> list[int]:  # fmt: skip
        """Return the place of the source, of `frames` frames, at which each token is said.

        The last token, of which the search has not read anything, has the place of the one before.
        """
        if len(tokens) == 1:
            return [0]
        state.restart()
        ids = np.concatenate([opening, np.array(tokens[:-1], dtype=np.int64)])
        weights = self._source_weights(ids, state, self.speech.alignment, wishes.num_threads)
        here = weights[:, opening.size :, : max(1, frames // STRIDE)]
        places = places_of_tokens(here, self.config.median_width).tolist()
        return [*places, places[-1]]
