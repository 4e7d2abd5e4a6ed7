"""Which texts are embedded together: as many as a budget allows, from all requests in turn."""

from __future__ import annotations

import numpy as np
import pytest

from numattn.serve.embedding_queue import EmbeddingQueue, Job


def job_of(*lengths: int) -> Job:
    return Job([np.zeros(length, np.int64) for length in lengths], lambda error: None)


def drained(queue: EmbeddingQueue, jobs: list[Job]) -> list[list[tuple[int, int]]]:
    """Return all batches, as numbers of jobs and of their texts."""
    batches = []
    while queue.waiting:
        batches.append([(jobs.index(job), index) for job, index in queue.batch()])
    return batches


def filled(budget: int, *jobs: Job) -> EmbeddingQueue:
    queue = EmbeddingQueue(budget)
    for job in jobs:
        queue.add(job)
    return queue


def test_a_request_of_many_texts_lets_others_in_between() -> None:
    jobs = [job_of(*[4] * 5), job_of(4), job_of(4, 4)]
    queue = filled(12, *jobs)
    assert queue.waiting == 8
    assert drained(queue, jobs) == [
        [(0, 0), (1, 0), (2, 0)], [(0, 1), (2, 1), (0, 2)], [(0, 3), (0, 4)],
    ]  # fmt: skip


def test_a_text_beyond_the_budget_is_alone() -> None:
    jobs = [job_of(3), job_of(50), job_of(3)]
    assert drained(filled(10, *jobs), jobs) == [[(0, 0)], [(1, 0)], [(2, 0)]]


@pytest.mark.parametrize("seed", range(5))
def test_every_text_comes_once_and_in_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    jobs = [job_of(*rng.integers(1, 30, rng.integers(1, 9))) for _ in range(20)]
    batches = drained(filled(40, *jobs), jobs)
    for number, job in enumerate(jobs):
        own = [index for batch in batches for each, index in batch if each == number]
        assert own == [*range(len(job.texts))]
    for batch in batches:
        sizes = [jobs[number].texts[index].size for number, index in batch]
        assert sum(sizes) <= 40


def test_the_cancelled_are_left_out() -> None:
    jobs = [job_of(4, 4), job_of(4), job_of(4, 4)]
    queue = filled(8, *jobs)
    assert queue.batch() == [(jobs[0], 0), (jobs[1], 0)]
    jobs[2].cancelled = True
    assert queue.batch() == [(jobs[0], 1)]
    assert queue.batch() == [] and queue.waiting == 0


def test_a_job_is_done_with_its_last_vector() -> None:
    job = job_of(1, 1, 1)
    vector = np.zeros(4, np.float32)
    assert [job.put(index, vector) for index in (2, 0, 1)] == [False, False, True]
    assert filled(8, job, job_of(2)).drop()[0] is job
