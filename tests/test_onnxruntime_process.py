"""numattn's operators in ONNX Runtime as part of a process: threads, forks, imports and exits."""

from __future__ import annotations

import ctypes
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

import numattn as na
from child import output_of, run_python

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from numattn.compat.onnxruntime import library_path  # noqa: E402
from onnxruntime_nodes import model_of, run, session_of  # noqa: E402

TESTS = str(Path(__file__).parent)
PRELUDE = """
    import sys
    sys.path.insert(0, {tests!r})
    import numpy as np
    rng = np.random.default_rng(0)
    inputs = {{name: rng.standard_normal((2, 8, 300, 32), np.float32) for name in "QKV"}}
"""
MAKE = """
    import numattn as na
    from onnxruntime_nodes import model_of, run, session_of
    model = model_of("Attention", inputs, list("QKV"), ["Y"])
    expected = na.attention(*inputs.values(), num_threads=1)
    def works(session):
        return np.array_equal(run(session, inputs)[0], expected)
"""


def said(script: str, *, first: str = "") -> str:
    """Return what a process of its own prints, which must end well."""
    return output_of(MAKE + script, prelude=PRELUDE.format(tests=TESTS) + first).strip()


@pytest.mark.parametrize("first", ["import numattn", "import onnxruntime"])
@pytest.mark.parametrize("threads", [1, 2])
def test_imports_in_both_orders(first: str, threads: int) -> None:
    script = f"""
    session = session_of(model, {threads})
    print(works(session), works(session_of(model, {threads})))
"""
    assert said(script, first=f"    {first}\n") == "True True"


def test_a_session_that_is_there_at_the_end() -> None:
    """In a module and in a cycle. (Where a daemon thread runs one, ONNX Runtime itself aborts.)"""
    script = """
    session = session_of(model, 2)
    cycle = [session_of(model, 2)]
    cycle.append(cycle)
    print(works(session) and works(cycle[0]))
"""
    assert said(script) == "True"


def test_a_forked_child() -> None:
    """A session of one thread goes on in it; one with more is made there, as ONNX Runtime asks."""
    script = """
    import os, signal
    one = session_of(model, 1)
    assert works(one) and works(session_of(model, 2))
    na.attention(*inputs.values(), num_threads=2)
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        os._exit(0 if works(one) and works(session_of(model, 2)) else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), works(one))
"""
    assert said(script) == "0 True"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_the_session_s_threads_are_used_and_no_others() -> None:
    """The processes' limit holds beside the session's."""
    script = """
    import os
    os.environ.pop("OMP_NUM_THREADS", None)
    def threads():
        return len(os.listdir("/proc/self/task"))
    one = session_of(model, 1)
    before = threads()
    assert works(one) and threads() == before
    two = session_of(model, 2)
    with_pool = threads()
    assert works(two) and threads() == with_pool
    na.set_num_threads(1)
    assert works(two)
    print(with_pool - before)
"""
    assert said(script) == "1"


def test_bits_do_not_depend_on_threads(rng: np.random.Generator) -> None:
    inputs = {name: rng.standard_normal((1, 2, 700, 64), np.float32) for name in "QKV"}
    inputs["Q"] = inputs["Q"][:, :, :1]  # few rows over many keys, which may be split
    model = model_of("Attention", inputs, list("QKV"), ["Y"])
    alone, together = (run(session_of(model, threads), inputs)[0] for threads in (1, 4))
    assert alone.tobytes() == together.tobytes() == na.attention(*inputs.values()).tobytes()


@pytest.mark.parametrize("shared", [False, True])
def test_two_threads(rng: np.random.Generator, shared: bool) -> None:
    """Each with a session of its own, or both with one."""
    inputs = {name: rng.standard_normal((1, 4, 200, 32), np.float32) for name in "QKV"}
    model = model_of("Attention", inputs, list("QKV"), ["Y"])
    first = session_of(model, 2)
    sessions = [first, first if shared else session_of(model, 2)]
    expected = na.attention(*inputs.values())
    good: list[bool] = []

    def work(session: object) -> None:
        good.extend(np.array_equal(run(session, inputs)[0], expected) for _ in range(40))

    threads = [threading.Thread(target=work, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert good == [True] * 80


def test_nothing_else_is_shown() -> None:
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", library_path()], capture_output=True, text=True, check=True
    )
    assert [line.split()[-1] for line in listing.stdout.splitlines()] == ["RegisterCustomOps"]


def test_the_library_is_small() -> None:
    assert Path(library_path()).stat().st_size < 64 << 10


def test_an_old_onnx_runtime_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a table whose first function alone is called: that which makes a status."""
    said: list[bytes] = []
    create = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)(
        lambda code, words: said.append(words) or 4711
    )
    table = (ctypes.c_void_p * 1)(ctypes.cast(create, ctypes.c_void_p))
    get_api = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)(
        lambda version: ctypes.addressof(table) if version < 17 else None
    )
    base = (ctypes.c_void_p * 2)(ctypes.cast(get_api, ctypes.c_void_p), None)
    register = ctypes.CDLL(library_path()).RegisterCustomOps
    register.restype = ctypes.c_void_p
    assert register(None, base) == 4711
    assert said == [b"numattn needs ONNX Runtime 1.17 or later"]


def test_without_its_core_beside_it(tmp_path: Path) -> None:
    """A copy elsewhere is refused when it is registered, with the file that is missing."""
    copy = tmp_path / "operators.so"
    copy.write_bytes(Path(library_path()).read_bytes())
    script = f"""
        import onnxruntime
        try:
            onnxruntime.SessionOptions().register_custom_ops_library({str(copy)!r})
        except Exception as error:
            print(error)
    """
    said = run_python(script).stdout
    assert "numattn's kernels are not there" in said and "_core" in said
