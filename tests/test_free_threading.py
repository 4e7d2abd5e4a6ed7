"""Python threads that share everything which may be shared, with the GIL or without it.

A Python without the GIL (CPython built with --disable-gil) must stay without it after the import,
and there the same calls truly run at once, in the binding too.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

import numattn as na
from cases import normal
from child import output_of
from tolerance import assert_same_bits

THREADS = 8
ROUNDS = 20

Call = Callable[[], NDArray[np.float32]]


def calls_of(rng: np.random.Generator) -> dict[str, Call]:
    """Return calls over shared arrays and weights, each with one right result."""
    x = normal(rng, (2, 4, 33, 16))
    rows = normal(rng, (9, 64))
    starts = np.array([0, 5, 9], np.int64)
    linear = na.Linear(normal(rng, (48, 64)), normal(rng, (48,)))
    whole = na.Linear(normal(rng, (48, 64)), dtype="int8")
    square = [normal(rng, (64, 64)) for _ in range(4)]
    layer = na.MultiHeadAttention(4, *square)
    pages = normal(rng, (6, 16, 4, 16))
    table = np.array([[5, 0, 2], [1, 3, 4]], np.int64)
    return {
        "attention": lambda: na.attention(x, x, x, is_causal=True),
        "weights": lambda: na.attention_weights(x, x),
        "varlen": lambda: na.attention_varlen(
            rows.reshape(9, 4, 16), rows.reshape(9, 4, 16), rows.reshape(9, 4, 16), starts, starts
        ),
        "linear": lambda: linear(rows, activation="gelu"),
        "int8": lambda: whole(rows),
        "layer": lambda: layer(rows[np.newaxis]),
        "pages": lambda: na.attention_paged(x[:, :, :1], pages, pages, table, [33, 40]),
        "norm": lambda: na.layer_norm(rows, rows[0]),
        "silu": lambda: na.silu(rows),
    }


@pytest.mark.skipif(
    getattr(sys, "_is_gil_enabled", lambda: True)(), reason="this Python has the GIL"
)
def test_the_import_leaves_the_lock_off() -> None:
    assert output_of("import sys, numattn; print(sys._is_gil_enabled())").strip() == "False"


def test_shared_objects_give_every_thread_the_same_bits(rng: np.random.Generator) -> None:
    """Each thread walks the calls from another place, so that different ones meet."""
    calls = calls_of(rng)
    expected = {name: call() for name, call in calls.items()}
    names = list(calls)
    together = threading.Barrier(THREADS)

    def walk(start: int) -> None:
        together.wait()
        for step in range(ROUNDS):
            name = names[(start + step) % len(names)]
            assert_same_bits(calls[name](), expected[name])

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(walk, start) for start in range(THREADS)]:
            done.result()


def test_objects_are_made_and_dropped_by_many_threads(rng: np.random.Generator) -> None:
    """Registries and reference counts hold while weights and caches come and go."""
    weight, x = normal(rng, (32, 64)), normal(rng, (3, 64))
    expected = na.Linear(weight)(x)
    tokens = normal(rng, (1, 2, 5, 8))
    attended = na.attention(tokens, tokens, tokens, is_causal=True)

    def work(_: int) -> None:
        assert_same_bits(na.Linear(weight)(x), expected)
        cache = na.KVCache(1, 1, 2, 8)
        assert_same_bits(cache.attend(0, tokens, tokens, tokens), attended)
        with pytest.raises(ValueError, match="x"):
            na.Linear(weight)(x[:, :5])

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS * ROUNDS)))


def test_limits_may_change_while_others_compute(rng: np.random.Generator) -> None:
    x = normal(rng, (1, 8, 65, 32))
    expected = na.attention(x, x, x)
    before = na.get_num_threads()
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            for count in (1, 2, 3):
                na.set_num_threads(count)

    with ThreadPoolExecutor(THREADS) as pool:
        changer = pool.submit(change)
        try:
            work = [pool.submit(lambda: na.attention(x, x, x)) for _ in range(THREADS * ROUNDS)]
            for each in work:
                assert_same_bits(each.result(), expected)
        finally:
            done.set()
            changer.result()
            na.set_num_threads(before)
