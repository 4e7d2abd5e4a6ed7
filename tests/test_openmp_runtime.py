"""Which OpenMP runtime works: the one that the process has, the system's, or none."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

import numattn as na
from child import output_of

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="names and paths of Linux"),
    pytest.mark.skipif(na.get_num_threads() < 2, reason="one thread at most"),
]

PRELUDE = """
import ctypes, os, signal, sys
import numpy as np

x = np.random.default_rng(0).standard_normal((4, 8, 256, 64), np.float32)

def runtimes():
    '''The names of the files of OpenMP's that are loaded.'''
    paths = {line.split()[-1] for line in open("/proc/self/maps") if "/" in line}
    names = {os.path.basename(path) for path in paths}
    return sorted(name for name in names if name.startswith(("libgomp", "libomp", "libiomp")))

def tasks():
    return len(os.listdir("/proc/self/task"))

def right():
    import numattn as na
    want = na.attention(x, x, x, num_threads=1)
    return bool((na.attention(x, x, x) == want).all())

def in_child(work):
    '''Whether a forked child ends well; one that hangs is ended by its alarm.'''
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""

NAMES = ("libgomp.so.1", "libomp.so.5", "libomp.so", "libiomp5.so")


@pytest.fixture
def no_runtime(tmp_path: Path) -> str:
    """Return a folder for LD_LIBRARY_PATH where each runtime's file is none."""
    for name in NAMES:
        (tmp_path / name).write_bytes(b"no library")
    return str(tmp_path)


@pytest.fixture
def libgomp() -> str:
    """Return the path of the system's runtime."""
    script = """
        import numattn as na
        na.get_num_threads()
        paths = {line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line}
        print(*paths)
    """
    path = output_of(script, prelude=PRELUDE).strip()
    if not path:
        pytest.skip("the system has no libgomp")
    return path


def test_none_is_brought_along() -> None:
    """Nor looked for before a call needs threads: whatever is imported meanwhile comes first."""
    script = "import numattn as na; print(runtimes()); na.get_num_threads(); print(len(runtimes()))"
    first, then = output_of(script, prelude=PRELUDE).split("\n")[:2]
    assert first == "[]" and int(then) <= 1


def test_without_a_runtime(no_runtime: str) -> None:
    script = """
        import numattn as na
        def threads():
            print(na.get_num_threads(), right(), runtimes(), tasks())
        threads()
        print(in_child(lambda: threads() or sys.stdout.flush()))
        na.set_num_threads(1)
        threads()
    """
    printed = output_of(script, prelude=PRELUDE, LD_LIBRARY_PATH=no_runtime, OMP_NUM_THREADS="2")
    lines = printed.splitlines()
    assert [line.split(" ", 1)[0] for line in (lines[0], lines[-1])] == ["2", "1"]
    assert all("True []" in line for line in (lines[0], lines[-1])) and "True" in lines[-2]
    for limit in ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT"):
        script = "import numattn as na; print(na.get_num_threads())"
        assert output_of(script, LD_LIBRARY_PATH=no_runtime, **{limit: "1"}).strip() == "1"


def test_without_a_runtime_the_work_is_shared(no_runtime: str) -> None:
    """By a thread that is there while the call is, and no longer."""
    script = """
        import threading, time
        import numattn as na
        wide = np.zeros((1, 8, 2000, 64), np.float32)
        alone = tasks()
        caller = threading.Thread(target=lambda: na.attention(wide, wide, wide, num_threads=2))
        caller.start()
        most = 0
        while caller.is_alive():
            most = max(most, tasks())
            time.sleep(0.001)
        caller.join()
        until = time.monotonic() + 5
        while tasks() > alone and time.monotonic() < until:  # the system lists one a moment longer
            time.sleep(0.001)
        print(most - alone, tasks() - alone)
    """
    assert output_of(script, prelude=PRELUDE, LD_LIBRARY_PATH=no_runtime).split() == ["2", "0"]


def test_one_that_is_loaded_later(no_runtime: str, libgomp: str) -> None:
    script = """
        import numattn as na
        assert right() and runtimes() == []
        library = ctypes.CDLL(sys.argv[1])
        library.omp_set_num_threads(1)
        print(na.get_num_threads(), right())
    """
    printed = output_of(script, libgomp, prelude=PRELUDE, LD_LIBRARY_PATH=no_runtime)
    assert printed.split() == ["1", "True"]


def test_another_package_s_copy(tmp_path: Path, libgomp: str) -> None:
    """It has a name of its own, and is used until one comes that all find by its name."""
    copy = tmp_path / "libgomp-24e2ab19.so.1.0.0"
    data = Path(libgomp).read_bytes()
    assert data.count(b"libgomp.so.1\0") == 1
    copy.write_bytes(data.replace(b"libgomp.so.1\0", b"libgomp-own1\0"))
    script = """
        copy = ctypes.CDLL(sys.argv[1])
        import numattn as na
        assert right()
        print(len(runtimes()))
        copy.omp_set_num_threads(1)
        print(na.get_num_threads())
        system = ctypes.CDLL(sys.argv[2])
        print(na.get_num_threads(), right())
        system.omp_set_num_threads(1)
        print(na.get_num_threads(), right(), in_child(right))
    """
    lines = output_of(script, str(copy), libgomp, prelude=PRELUDE).splitlines()
    assert lines == ["1", "1", "2 True", "1 True True"]


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize(
    "order",
    ["import torch, numattn", "import numattn, torch", "import numattn; right(); import torch"],
)
def test_beside_torch(order: str) -> None:
    """One pool for both: its size is heard, and a child of a process that has used it works."""
    script = f"""
        {order}
        a = torch.randn(400, 400)

        def product():
            return bool(torch.isfinite((a @ a).sum() + torch.exp(a).sum()))

        def both():
            assert product() and right() and product()

        both()
        print(len(runtimes()), torch.get_num_threads() > 1, numattn.get_num_threads() > 1)
        print(in_child(product), in_child(right), in_child(both))
        torch.set_num_threads(1)
        print(numattn.get_num_threads(), in_child(both))
        torch.set_num_threads(2)
        numattn.set_num_threads(1)
        print(numattn.get_num_threads(), torch.get_num_threads(), in_child(both))
    """
    lines = output_of(script, prelude=PRELUDE).splitlines()
    assert lines == ["1 True True", "True True True", "1 True", "1 2 True"]
