"""A process ends well while its daemon threads are inside calls."""

from __future__ import annotations

import pytest

from child import run_python

# Each takes some microseconds, so that threads that make one after the other are mostly about to
# take the interpreter's lock.
CALLS = {
    "attention": "na.attention(x, x, x)",
    "attention_varlen": "na.attention_varlen(x[0], x[0], x[0], [0, 8], [0, 8])",
    "attention_paged": "na.attention_paged(x, x, x, [[0]], [8])",
    "attention_weights": "na.attention_weights(x, x)",
    "linear": "linear(x)",
    "layer_norm": "na.layer_norm(x, x[0, 0, 0])",
    "rms_norm": "na.rms_norm(x, x[0, 0, 0])",
    "apply_rope": "na.apply_rope(x, x[0, 0, :, :4], x[0, 0, :, :4])",
    "a refused shape": "refused(x[..., :3, :])",
    "a refused dtype": "refused(x.astype(np.int32))",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_threads_that_call_again_and_again(call: str) -> None:
    script = f"""
        import threading
        import numpy as np
        import numattn as na

        x = np.ones((1, 8, 8, 8), np.float32)
        linear = na.Linear(x[0, 0])
        everyone = threading.Barrier(4)

        def refused(v):
            try:
                na.attention(x, x, v)
            except (TypeError, ValueError):
                pass

        def loop():
            for i in range(20):
                {call}
            everyone.wait()
            while True:
                {call}

        for i in range(3):
            threading.Thread(target=loop, daemon=True).start()
        everyone.wait()
    """
    process = run_python(script)
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_call_left_behind(num_threads: int) -> None:
    """One that would take many minutes; its thread asks for signals while the interpreter ends."""
    script = f"""
        import sys, threading
        import numpy as np
        import numattn as na

        x = np.ones((1, 4, 1 << 20, 64), np.float32)
        started = threading.Event()

        def work():
            started.set()
            na.attention(x, x, x, num_threads={num_threads})

        # The main thread runs again once the call has let the lock go, and not before.
        sys.setswitchinterval(1000)
        threading.Thread(target=work, daemon=True).start()
        started.wait()
        print("the main thread ends")
    """
    process = run_python(script)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout == "the main thread ends\n"


def test_a_call_without_memory() -> None:
    """An exception of the call's own waits for the lock as well."""
    script = """
        import threading
        import numpy as np
        import numattn as na

        x = np.broadcast_to(np.float32(0), (1, 1, 64, 1 << 44))  # scratch for a tile: 2 ** 52 bytes
        everyone = threading.Barrier(4)

        def fail():
            try:
                na.attention_weights(x, x)
            except MemoryError:
                return True

        def loop():
            assert fail()
            everyone.wait()
            while True:
                fail()

        for i in range(3):
            threading.Thread(target=loop, daemon=True).start()
        everyone.wait()
    """
    process = run_python(script)
    assert (process.returncode, process.stderr) == (0, "")
