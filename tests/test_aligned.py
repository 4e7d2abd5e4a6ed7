"""Arrays that numattn makes begin on a cache line: the contract's last rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import numattn as na
from cases import normal
from numattn._aligned import empty

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(np.float32), np.dtype(np.float16), BFLOAT16]
LINE = 64


def results(rng: np.random.Generator, dtype: np.dtype[Any]) -> Iterator[Any]:
    """Every public function's result for some shape whose size is no whole number of lines."""
    x = normal(rng, (1, 3, 5, 7)).astype(dtype)
    o, lse = na.attention(x, x, x, return_lse=True)
    yield from (o, lse)
    yield na.attention_weights(x, x)
    starts = np.array([0, 2, 5], np.int32)
    tokens = x[0].swapaxes(0, 1)
    yield na.attention_varlen(tokens, tokens, tokens, starts, starts)
    pages = normal(rng, (2, 4, 3, 7)).astype(dtype)
    table = np.array([[0, 1]], np.int32)
    yield na.attention_paged(x, pages, pages, table, np.array([6]))
    yield na.Linear(normal(rng, (9, 7)), dtype="bfloat16")(x)
    square = normal(rng, (6, 6))
    mha = na.MultiHeadAttention(2, square, square, square, square)
    yield mha(normal(rng, (1, 5, 6)).astype(dtype))
    yield na.layer_norm(x, np.ones(7, np.float32), np.zeros(7, np.float32))
    yield na.rms_norm(x, np.ones(7, np.float32))
    cos, sin = na.position.Rope(6).tables(np.arange(5))
    yield na.apply_rope(x, cos, sin)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_results_begin_on_a_cache_line(rng: np.random.Generator, dtype: np.dtype[Any]) -> None:
    kept = []  # so that each has memory of its own
    for _ in range(5):
        for number, result in enumerate(results(rng, dtype)):
            assert result.ctypes.data % LINE == 0, f"result {number}"
            assert result.flags.c_contiguous and result.flags.writeable
            kept.append(result)


@pytest.mark.parametrize("dtype", [*DTYPES, np.dtype(np.int8)], ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 5), (17, 33), (1, 2, 3, 4)])
def test_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    arrays = [empty(shape, dtype) for _ in range(20)]
    for i, array in enumerate(arrays):
        array[...] = i
        assert (array.shape, array.dtype) == (shape, dtype)
        assert array.ctypes.data % LINE == 0
        assert array.flags.c_contiguous and array.flags.writeable and array.flags.aligned
    for i, array in enumerate(arrays):  # none lies over another
        assert (array == np.asarray(i, dtype)).all()


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        ((2**62, 2), (ValueError, MemoryError)),
        ((2**40, 2**10), (ValueError, MemoryError)),
        ((-1,), ValueError),
    ],
)
def test_sizes_that_are_none(shape: tuple[int, ...], error: Any) -> None:
    with pytest.raises(error):
        empty(shape, np.float32)


def test_memory_goes_with_the_last_array(rng: np.random.Generator) -> None:
    """A view keeps the memory of its result; without one it is given back."""
    import tracemalloc

    linear = na.Linear(normal(rng, (1000, 4)))
    make: Callable[[], Any] = lambda: linear(normal(rng, (1000, 4)))  # noqa: E731
    make()
    tracemalloc.start()
    part = make()[500:]
    part[:] = 7
    one = tracemalloc.get_traced_memory()[0]
    for _ in range(10):
        make()
    assert tracemalloc.get_traced_memory()[0] < one + 1_000_000
    assert one > 4_000_000
    del part
    assert tracemalloc.get_traced_memory()[0] < one - 3_000_000
    tracemalloc.stop()
