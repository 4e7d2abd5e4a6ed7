"""The thread that computes vectors: of all texts that wait, as many at once as a budget allows.

Nothing is padded, and a text's vector is the same, bit by bit, in whatever batch it comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .embedding_queue import EmbeddingQueue, Job
from .engine import Engine

if TYPE_CHECKING:
    from numattn.models import Bert

    from .metrics import Metrics


class EmbeddingEngine(Engine):
    """Computes the vectors of jobs.

    Parameters
    ----------
    name : str
        The model's.
    model : Bert
    batch_tokens : int
        Tokens computed at once, unless one text has more.
    metrics : Metrics
    num_threads : int, optional
        Upper limit of threads.
    """

    def __init__(
        self,
        name: str,
        model: Bert,
        batch_tokens: int,
        metrics: Metrics,
        num_threads: int | None = None,
    ) -> None:
        super().__init__(name)
        self.model = model
        self._queue = EmbeddingQueue(batch_tokens)
        self._metrics = metrics
        self._num_threads = num_threads

    def submit(self, job: Job) -> None:
        """Have a job computed; any thread may ask."""
        self.call(lambda: self._queue.add(job))

    def _has_work(self) -> bool:
        return self._queue.waiting > 0

    def _work(self) -> None:
        batch = self._queue.batch()
        lists = [job.texts[index] for job, index in batch]
        tokens = sum(int(ids.size) for ids in lists)
        self._metrics.waiting.labels(self.name).set(self._queue.waiting)
        if not batch:
            return
        try:
            vectors = self.model.encode_tokens(
                lists, batch_tokens=max(tokens, 1), num_threads=self._num_threads
            )
        except Exception as error:
            for job in {id(job): job for job, _ in batch}.values():
                fail(job, error)
            return
        self._metrics.batch_tokens.labels(self.name).observe(tokens)
        self._metrics.prompt_tokens.labels(self.name).inc(tokens)
        for (job, index), vector in zip(batch, vectors, strict=True):
            if job.put(index, vector) and not job.cancelled:
                job.done(None)

    def _give_up(self, error: BaseException) -> None:
        for job in self._queue.drop():
            fail(job, error)


def fail(job: Job, error: BaseException) -> None:
    """Tell a job what went wrong, once, and compute no more of it."""
    if not job.cancelled:
        job.cancelled = True
        job.done(error)
