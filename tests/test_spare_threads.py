"""A thread that cannot be had is done without: no call ends the process for want of one."""

from __future__ import annotations

import os
import sys

import pytest

import numattn as na
from child import output_of

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux"),
    pytest.mark.skipif(na.get_num_threads() < 2, reason="one thread at most"),
]

PRELUDE = """
import os, resource, sys
import numpy as np
import numattn as na

x = np.random.default_rng(0).standard_normal((4, 8, 128, 64), np.float32)
want = na.attention(x, x, x, num_threads=1)
out = np.empty_like(want)

def tasks():
    return len(os.listdir("/proc/self/task"))

def workers():
    '''How many threads a call adds; what it computes is right.'''
    out[...] = 0
    before = tasks()
    na.attention(x, x, x, out=out, num_threads=2)
    assert (out == want).all()
    return tasks() - before
"""


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OMP_STACKSIZE": "64M"},
        {"OMP_STACKSIZE": " 65536 k "},
        {"OMP_STACKSIZE": "67108864B"},
        {"GOMP_STACKSIZE": "65536"},
    ],
    ids=repr,
)
def test_no_address_space_for_a_stack(environment: dict[str, str]) -> None:
    script = """
        stack = 1 << 26
        if sys.argv[1:] == ["default"]:
            stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
            if stack == resource.RLIM_INFINITY:
                stack = 1 << 21  # what the C library takes then
        pages = int(open("/proc/self/statm").read().split()[0])
        limits = resource.getrlimit(resource.RLIMIT_AS)
        limit = pages * resource.getpagesize() + stack * 3 // 4
        resource.setrlimit(resource.RLIMIT_AS, (limit, limits[1]))
        print(workers(), workers())
        resource.setrlimit(resource.RLIMIT_AS, limits)
        print(workers(), workers())  # and the second call has it already
    """
    size = "default" if not environment else "given"
    assert output_of(script, size, prelude=PRELUDE, **environment).split() == ["0", "0", "1", "0"]


# As a user without privileges, whom the limit on processes binds, and who has no others.
ANOTHER_USER = """
os.setuid(100000 + os.getpid())
HARD = resource.getrlimit(resource.RLIMIT_NPROC)[1]

def allow(more):
    resource.setrlimit(resource.RLIMIT_NPROC, (tasks() + more, HARD))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without processes")
def test_no_thread_allowed() -> None:
    script = """
        allow(0)
        print(workers(), workers())
        allow(1)
        print(workers(), workers())
    """
    assert output_of(script, prelude=PRELUDE + ANOTHER_USER).split() == ["0", "0", "1", "0"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without processes")
def test_exactly_the_thread_allowed() -> None:
    """Again and again: what was started to find out has left when OpenMP starts its own."""
    script = """
        import threading

        allow(2)  # a thread that calls, and its worker
        results = []

        def call():
            results.append(na.attention(x, x, x, num_threads=2).tobytes() == want.tobytes())

        for i in range(100):
            caller = threading.Thread(target=call)
            while True:
                try:
                    caller.start()
                    break
                except RuntimeError:  # the last one or its worker has not left yet
                    caller = threading.Thread(target=call)
            caller.join()
        print(len(results), all(results))
    """
    assert output_of(script, prelude=PRELUDE + ANOTHER_USER).split() == ["100", "True"]
