"""Rule 13: fork() after use works, and the child computes correctly."""

from __future__ import annotations

import pytest

import numattn as na
from child import output_of

PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
import numattn as na
from numattn import reference

rng = np.random.default_rng(0)
inputs = [rng.standard_normal((2, 4, 200, 32), dtype=np.float32) for _ in range(3)]
exact = reference.attention(*inputs)
linear = na.Linear(inputs[0][0, 0])
# Before any fork: a matrix product of NumPy's has threads of its own, which may not survive one.
product = inputs[1][0, 0] @ inputs[0][0, 0].T

def works(num_threads=2):
    o = na.attention(*inputs, num_threads=num_threads)
    y = linear(inputs[1][0, 0], num_threads=num_threads)
    return bool(np.abs(o - exact).max() < 1e-5 and
                np.abs(y - product).max() < 1e-3)

def fork_and_compute(count=3):
    '''Return whether a child could compute; one that hangs is ended by its alarm.'''
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        good = all(works(num_threads) for num_threads in (1, 2, 4) for _ in range(count))
        os._exit(0 if good else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def test_children_of_a_process_that_has_used_threads(isa: str) -> None:
    script = """
        assert works(2)
        for _ in range(10):
            assert fork_and_compute()
            assert works(2)
        print("good")
    """
    assert output_of(script, prelude=PRELUDE, NUMATTN_ISA=isa).strip() == "good"


def test_children_of_a_process_that_has_only_imported(isa: str) -> None:
    script = """
        for _ in range(3):
            assert fork_and_compute()
        assert works(2)
        print("good")
    """
    assert output_of(script, prelude=PRELUDE, NUMATTN_ISA=isa).strip() == "good"


def test_grandchildren(isa: str) -> None:
    script = """
        assert works(2)
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            os._exit(0 if works(2) and fork_and_compute() and works(2) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert works(2)
        print("good")
    """
    assert output_of(script, prelude=PRELUDE, NUMATTN_ISA=isa).strip() == "good"


@pytest.mark.slow
def test_fork_while_another_thread_computes(isa: str) -> None:
    script = """
        stop = threading.Event()
        results = []

        def compute():
            while not stop.is_set():
                results.append(works(2))

        thread = threading.Thread(target=compute)
        thread.start()
        while len(results) < 3:
            time.sleep(0.001)
        try:
            for _ in range(20):
                assert fork_and_compute(1)
        finally:
            stop.set()
            thread.join()
        assert all(results)
        print("good")
    """
    assert output_of(script, prelude=PRELUDE, NUMATTN_ISA=isa).strip() == "good"


@pytest.mark.slow
def test_pool_of_forked_workers(isa: str) -> None:
    script = """
        import multiprocessing

        def task(num_threads):
            return works(num_threads)

        assert works(2)
        with multiprocessing.get_context("fork").Pool(3) as pool:
            print(all(pool.map_async(task, [1, 2, 3, 2] * 8).get(timeout=60)))
        assert works(2)
    """
    assert output_of(script, prelude=PRELUDE, NUMATTN_ISA=isa).strip() == "True"


@pytest.mark.skipif(na.get_num_threads() < 2, reason="needs two processors")
def test_a_child_of_a_process_in_whose_other_threads_calls_are_at_work() -> None:
    """They are not at work in the child, whose calls have all threads to themselves."""
    script = """
        wide = rng.standard_normal((1, 8, 3000, 64), dtype=np.float32)
        busy = threading.Thread(target=lambda: na.attention(wide, wide, wide, num_threads=1))
        busy.start()
        time.sleep(0.05)
        pid = os.fork()
        if pid == 0:
            signal.alarm(30)
            assert works(2)
            os._exit(len(os.listdir("/proc/self/task")))
        assert busy.is_alive()
        threads = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        busy.join()
        print(threads)
    """
    assert int(output_of(script, prelude=PRELUDE)) >= 2
