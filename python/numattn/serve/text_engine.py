"""The thread that writes texts: step after step, for all that are being written together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from .batch import Batch, Written
from .engine import Engine
from .sequence import Sequence

if TYPE_CHECKING:
    from numattn.models import Gpt, Llama

    from .limits import Limits
    from .metrics import Metrics

Listener: TypeAlias = Callable[["list[Written]"], object]


class TextEngine(Engine):
    """Writes texts.

    Parameters
    ----------
    name : str
        The model's.
    model : Llama or Gpt
    limits : Limits
    metrics : Metrics
    num_threads : int, optional
        Upper limit of threads.

    Attributes
    ----------
    listener : callable
        Called by the thread after each step with what it has done.
    """

    def __init__(
        self,
        name: str,
        model: Llama | Gpt,
        limits: Limits,
        metrics: Metrics,
        num_threads: int | None = None,
    ) -> None:
        super().__init__(name)
        self.model = model
        self.listener: Listener = lambda written: None
        self._batch = Batch(model, limits, num_threads)
        self._metrics = metrics

    def start(self) -> None:
        """Start the thread, and say what there is to write with."""
        self.call(self._tell_state)
        super().start()

    def submit(self, sequence: Sequence) -> None:
        """Have a text written; any thread may ask. Pages for all of it must exist."""

        def add() -> None:
            try:
                self._batch.add(sequence)
            except ValueError as error:
                self.listener([Written(sequence, [], error)])

        self.call(add)

    def cancel(self, sequence: Sequence) -> None:
        """Have a text forgotten before the next step; any thread may ask."""

        def forget() -> None:
            self._batch.cancel(sequence)
            self._tell_state()

        self.call(forget)

    def _has_work(self) -> bool:
        return self._batch.waiting + self._batch.running > 0

    def _work(self) -> None:
        written = self._batch.step()
        self._tell_state()
        for each in written:
            self._metrics.new_tokens.labels(self.name).inc(len(each.tokens))
            self._metrics.guessed_tokens.labels(self.name).inc(each.guessed)
            self._metrics.accepted_tokens.labels(self.name).inc(each.accepted)
            if each.first:
                tokens, reused = each.sequence.prompt_tokens, each.sequence.reused
                self._metrics.prompt_tokens.labels(self.name).inc(tokens)
                self._metrics.reused_tokens.labels(self.name).inc(reused)
        if written:
            self.listener(written)

    def _tell_state(self) -> None:
        self._metrics.waiting.labels(self.name).set(self._batch.waiting)
        self._metrics.running.labels(self.name).set(self._batch.running)
        self._metrics.free_pages.labels(self.name).set(self._batch.free_pages)
        self._metrics.kept_pages.labels(self.name).set(self._batch.kept_pages)

    def _give_up(self, error: BaseException) -> None:
        written = [Written(sequence, [], error) for sequence in self._batch.drop()]
        if written:
            self.listener(written)
