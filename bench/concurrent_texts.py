"""Calls from several threads of Python at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

from cases import ConcurrentCase


def from_threads(
    case: ConcurrentCase, token_ids: NDArray[Any], model: Callable[[Any], Any]
) -> Callable[[], list[Any]]:
    """The timed call of a row: the model on each text (1, S) by itself, results in their order.

    The threads are there before the first timed call and wait between two.
    """
    texts = [token_ids[i : i + 1] for i in range(case.batch)]
    shares = [texts[thread :: case.threads] for thread in range(case.threads)]
    pool = ThreadPoolExecutor(case.threads)

    def work(share: list[NDArray[Any]]) -> list[Any]:
        return [model(text) for text in share]

    def run() -> list[Any]:
        results: list[Any] = [None] * case.batch
        for thread, done in enumerate(pool.map(work, shares)):
            results[thread :: case.threads] = done
        return results

    return run
