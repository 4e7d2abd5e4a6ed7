"""Rule 12: the GIL is released during the work, and any number of threads may call at once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, SCORE_FEATURES, normal, score_feature, unit_inputs
from child import output_of
from tolerance import assert_same_bits


def busy_call(kind: str, seconds: float, rng: np.random.Generator) -> Any:
    """Return a function without arguments that takes about that long."""
    x = normal(rng, (1, 1, 512, 64))
    linear = na.Linear(normal(rng, (1024, 1024)))

    def call(repeats: int) -> None:
        if kind == "attention":
            na.attention(np.repeat(x, repeats, axis=1), x, x, num_threads=1)
        elif kind == "attention_weights":
            na.attention_weights(np.repeat(x, repeats, axis=1), x, num_threads=1)
        elif kind == "linear":
            linear(np.broadcast_to(x[0, 0, 0, 0], (16 * repeats, 1024)), num_threads=1)
        else:
            rows = np.broadcast_to(x[0, 0, 0, 0], (64 * repeats, 4096))
            na.layer_norm(rows, rows[0], num_threads=1)

    call(4)
    start = time.perf_counter()
    call(4)
    repeats = max(4, int(4 * seconds / (time.perf_counter() - start)))
    return lambda: call(min(repeats, 256))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["attention", "attention_weights", "linear", "layer_norm"])
def test_another_thread_runs_during_the_call(isa: str, rng: np.random.Generator, kind: str) -> None:
    call = busy_call(kind, 1.0, rng)
    ticks: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.wait(0.0005):
            ticks.append(time.perf_counter())

    clock = threading.Thread(target=tick)
    clock.start()
    try:
        start = time.perf_counter()
        call()
        end = time.perf_counter()
    finally:
        done.set()
        clock.join()
    # With the GIL held there would be no tick in the middle of the call, however long it takes.
    fifth = (end - start) / 5
    inside = [t for t in ticks if start + 2 * fifth < t < end - fifth]
    assert len(inside) >= 3, f"{len(inside)} ticks in the middle of {end - start:.2f} s"


@pytest.mark.parametrize("num_threads", [1, 2, None])
def test_many_threads_call_at_once(
    isa: str, rng: np.random.Generator, num_threads: int | None
) -> None:
    def problem(i: int) -> tuple[Any, dict[str, Any]]:
        heads, lengths = (1 + i % 2, 4, 2), (1 + 37 * (i % 5), 50 + 41 * (i % 7))
        dtype = list(DTYPES)[i % 3]
        feature = SCORE_FEATURES[i % len(SCORE_FEATURES)]
        options = score_feature(feature, rng, (heads[0], 4, *lengths))
        return unit_inputs(rng, heads, lengths, (32, 40), dtype), options

    problems = [problem(i) for i in range(40)]
    expected = [na.attention(*inputs, num_threads=1, **options) for inputs, options in problems]

    def solve(i: int) -> Any:
        inputs, options = problems[i % 40]
        return na.attention(*inputs, num_threads=num_threads, **options)

    with ThreadPoolExecutor(8) as pool:
        for i, got in enumerate(pool.map(solve, range(400))):
            assert_same_bits(got, expected[i % 40], f"problem {i % 40}")


def test_many_threads_share_a_layer(isa: str, rng: np.random.Generator) -> None:
    linear = na.Linear(normal(rng, (70, 50)), normal(rng, (70,)))
    inputs = [normal(rng, (1 + i, 50)) for i in range(30)]
    expected = [linear(x, activation="gelu") for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda i: linear(inputs[i % 30], activation="gelu"), range(300))
        for i, got in enumerate(results):
            assert_same_bits(got, expected[i % 30])


def test_errors_in_many_threads_stay_with_their_callers(isa: str, rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 2), (40, 50))
    expected = na.attention(q, k, v)

    def call(i: int) -> bool:
        if i % 2:
            with pytest.raises(ValueError, match="(?s)51"):
                na.attention(q, k, v, kv_lens=[51])
            return True
        return bool((na.attention(q, k, v) == expected).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(200)))


def test_first_calls_at_once(isa: str) -> None:
    """What a first call initialises is initialised once, whoever comes first."""
    printed = output_of(
        """
        from concurrent.futures import ThreadPoolExecutor
        import threading
        import numpy as np
        import numattn as na

        x = np.random.default_rng(0).standard_normal((1, 4, 64, 32), dtype=np.float32)
        barrier = threading.Barrier(8)

        def call(_):
            barrier.wait()
            return na.attention(x, x, x, num_threads=2).tobytes()

        with ThreadPoolExecutor(8) as pool:
            print(len(set(pool.map(call, range(8)))))
        """,
        NUMATTN_ISA=isa,
    )
    assert printed.strip() == "1"
