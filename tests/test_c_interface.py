"""numattn.h, function by function: the bits of Python's, its errors as statuses and words."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numattn as na
from c_library import (
    INTERRUPT,
    INTERRUPTED,
    INVALID,
    OK,
    OUT_OF_MEMORY,
    PARALLEL,
    AttentionArgs,
    Ints,
    Tensor,
)

pytestmark = pytest.mark.slow


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def arguments(q: np.ndarray, k: np.ndarray, v: np.ndarray, out: np.ndarray) -> AttentionArgs:
    args = AttentionArgs(struct_size=ctypes.sizeof(AttentionArgs))
    args.q, args.k, args.v, args.out = (Tensor.of(x) for x in (q, k, v, out))
    return args


# What is set in the struct, and the same in Python, for q (2, 4, 20, 32) and k (2, 2, 150, 32).
def no_more(args: AttentionArgs, rng: np.random.Generator) -> dict[str, Any]:
    return {}


def causal(args: AttentionArgs, rng: np.random.Generator) -> dict[str, Any]:
    offsets = np.array([130, 7])
    args.is_causal, args.q_offset = 1, Ints.of(offsets)
    return {"is_causal": True, "q_offset": offsets}


def window(args: AttentionArgs, rng: np.random.Generator) -> dict[str, Any]:
    args.has_window, args.window_left, args.window_right, args.sink_tokens = 1, 9, -1, 3
    return {"window": (9, None), "sink_tokens": 3}


def lengths(args: AttentionArgs, rng: np.random.Generator) -> dict[str, Any]:
    kept = np.array([150, 33])
    args.kv_lens, args.num_threads = Ints.of(kept), 1
    return {"kv_lens": kept, "num_threads": 1}


def masks(args: AttentionArgs, rng: np.random.Generator) -> dict[str, Any]:
    mask, bias = rng.random((20, 150)) < 0.7, normal(rng, 4, 1, 150)
    args.mask, args.bias = Tensor.of(mask), Tensor.of(bias)
    return {"mask": mask, "bias": bias}


def scores(args: AttentionArgs, rng: np.random.Generator) -> dict[str, Any]:
    slopes, sinks = normal(rng, 2, 4) ** 2, normal(rng, 4)
    args.alibi_slopes, args.sinks = Tensor.of(slopes), Tensor.of(sinks)
    args.has_scale, args.scale, args.softcap, args.skip_below = 1, 0.0, 5.0, 0.0
    return {"alibi_slopes": slopes, "sinks": sinks, "scale": 0.0, "softcap": 5.0}


def spans(args: AttentionArgs, rng: np.random.Generator) -> dict[str, Any]:
    begin = rng.integers(0, 100, (2, 1, 20))
    both = np.stack([begin, begin + 30])
    args.key_spans, args.key_spans_shape[:] = both.ctypes.data, begin.shape
    return {"key_spans": (both[0], both[1])}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("given", [no_more, causal, window, lengths, masks, scores, spans])
def test_attention(c_isa: ctypes.CDLL, rng: np.random.Generator, given: Any, dtype: str) -> None:
    q, k, v = (normal(rng, 2, *shape).astype(dtype) for shape in [(4, 20, 32), *[(2, 150, 32)] * 2])
    out, lse = np.full((2, 4, 20, 32), np.nan, dtype), np.full((2, 4, 20), np.nan, np.float32)
    args = arguments(q, k, v, out)
    args.lse = Tensor.of(lse)
    options = given(args, rng)
    assert c_isa.numattn_attention(ctypes.byref(args)) == OK, c_isa.numattn_last_error()
    expected, expected_lse = na.attention(q, k, v, return_lse=True, **options)
    assert out.tobytes() == expected.tobytes() and lse.tobytes() == expected_lse.tobytes()


def test_layout_and_strides(c_isa: ctypes.CDLL, rng: np.random.Generator) -> None:
    fused = normal(rng, 2, 50, 3, 4, 32)
    q, k, v = (fused[:, ::-1, i] for i in range(3))
    out = np.zeros((2, 50, 4, 32), np.float32)
    args = arguments(q, k, v, out)
    args.layout = 1
    assert c_isa.numattn_attention(ctypes.byref(args)) == OK
    assert out.tobytes() == na.attention(q, k, v, layout="bshd").tobytes()


def test_integers_with_scales(c_isa: ctypes.CDLL, rng: np.random.Generator) -> None:
    q, out = normal(rng, 1, 4, 1, 64), np.zeros((1, 4, 1, 64), np.float32)
    (k, k_scale), (v, v_scale) = (na.quantize(normal(rng, 1, 2, 300, 64)) for _ in "kv")
    args = arguments(q, k, v, out)
    args.k_scale, args.v_scale = Tensor.of(k_scale), Tensor.of(v_scale)
    assert c_isa.numattn_attention(ctypes.byref(args)) == OK
    expected = na.attention(q, k, v, k_scale=k_scale, v_scale=v_scale)
    assert out.tobytes() == expected.tobytes()


def test_sequences(c_isa: ctypes.CDLL, rng: np.random.Generator) -> None:
    q, k, v = normal(rng, 30, 4, 32), normal(rng, 70, 2, 32), normal(rng, 70, 2, 32)
    starts, key_starts = np.array([0, 7, 7, 30]), np.array([0, 40, 41, 70])
    out = np.zeros_like(q)
    args = arguments(q, k, v, out)
    args.is_causal = 1
    pointers = starts.ctypes.data, key_starts.ctypes.data
    assert c_isa.numattn_attention_varlen(ctypes.byref(args), *pointers, 3) == OK
    expected = na.attention_varlen(q, k, v, starts, key_starts, is_causal=True)
    assert out.tobytes() == expected.tobytes()
    assert c_isa.numattn_attention_varlen(ctypes.byref(args), *pointers, 2) == INVALID
    assert b"cu_seqlens_q must end at the 30 rows of q, not at 7" in c_isa.numattn_last_error()


def test_pages(c_isa: ctypes.CDLL, rng: np.random.Generator) -> None:
    q, k, v = normal(rng, 2, 4, 1, 32), normal(rng, 9, 16, 2, 32), normal(rng, 9, 16, 2, 32)
    table, kept = np.array([[3, 8, 1], [0, 2, -1]]), np.array([40, 20])
    out = np.zeros_like(q)
    args = arguments(q, k, v, out)
    args.kv_lens = Ints.of(kept)
    run = c_isa.numattn_attention_paged
    assert run(ctypes.byref(args), table.ctypes.data, 2, 3) == OK, c_isa.numattn_last_error()
    assert out.tobytes() == na.attention_paged(q, k, v, table, kept).tobytes()
    kept[1] = 48
    assert run(ctypes.byref(args), table.ctypes.data, 2, 3) == INVALID
    assert b"block_table[1, 2] = -1 is no page" in c_isa.numattn_last_error()


def test_threads_of_the_caller(c_isa: ctypes.CDLL, rng: np.random.Generator) -> None:
    """Here one after the other, and the last first; a part may find nothing left to do."""
    x = normal(rng, 2, 8, 256, 32)
    out, asked = np.empty_like(x), []

    @PARALLEL
    def parallel(context: int, count: int, part: Any, argument: int) -> None:
        asked.append((context, count))
        for index in reversed(range(count)):
            part(argument, index)

    args = arguments(x, x, x, out)
    args.parallel, args.parallel_context, args.num_threads = parallel, 77, 2
    assert c_isa.numattn_attention(ctypes.byref(args)) == OK
    assert out.tobytes() == na.attention(x, x, x).tobytes()
    assert asked == [(77, 2)] if c_isa.numattn_get_num_threads() > 1 else asked == []
    args.interrupt = INTERRUPT(lambda context: 0)
    assert c_isa.numattn_attention(ctypes.byref(args)) == INVALID
    assert b"parallel cannot be given together with interrupt" in c_isa.numattn_last_error()


def no_data(args: AttentionArgs) -> None:
    args.v.data = None


def bad_rank(args: AttentionArgs) -> None:
    args.k.rank = 5


def bad_dtype(args: AttentionArgs) -> None:
    args.q.dtype = 9


def negative(args: AttentionArgs) -> None:
    args.q.shape[2] = -3


def no_output(args: AttentionArgs) -> None:
    args.out.rank = 0


def bad_layout(args: AttentionArgs) -> None:
    args.layout = 2


def bad_lse(args: AttentionArgs) -> None:
    args.lse = args.q


def strided_sinks(args: AttentionArgs) -> None:
    args.sinks = args.q
    args.sinks.rank, args.sinks.shape[0], args.sinks.strides[0] = 1, 2, 8


def bad_lengths(args: AttentionArgs) -> None:
    args.kv_lens = Ints(None, 2)


def small_struct(args: AttentionArgs) -> None:
    args.struct_size = 8


def bad_threads(args: AttentionArgs) -> None:
    args.num_threads = -1


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_data, "v has no data: it is NULL"),
        (bad_rank, "k must have 1 to 4 dimensions, not 5"),
        (bad_dtype, "q has the unknown dtype 9"),
        (negative, "q has the negative length -3"),
        (no_output, "out must be given"),
        (bad_layout, "layout must be 0 to 1, not 2"),
        (bad_lse, "lse must have shape (1, 2, 4), not (1, 2, 4, 8)"),
        (strided_sinks, "sinks must be contiguous"),
        (bad_lengths, "kv_lens has no data"),
        (small_struct, "struct_size must be the size of the structure"),
        (bad_threads, "num_threads must be at least 1, not -1"),
    ],
)
def test_what_is_wrong_is_said(
    library: ctypes.CDLL, spoil: Callable[[AttentionArgs], None], words: str
) -> None:
    x, out = np.ones((1, 2, 4, 8), np.float32), np.full((1, 2, 4, 8), 7, np.float32)
    args = arguments(x, x, x, out)
    spoil(args)
    assert library.numattn_attention(ctypes.byref(args)) == INVALID
    assert words in library.numattn_last_error().decode()
    assert (out == 7).all()
    assert library.numattn_attention(ctypes.byref(arguments(x, x, x, out))) == OK
    assert (out == 1).all()


def test_a_larger_struct_may_hold_zeros_alone(library: ctypes.CDLL) -> None:
    """As that of a program made for a later version, which sets nothing new."""

    class Larger(ctypes.Structure):
        _fields_ = [("known", AttentionArgs), ("later", ctypes.c_int64)]

    x, out = np.ones((1, 2, 4, 8), np.float32), np.empty((1, 2, 4, 8), np.float32)
    larger = Larger(known=arguments(x, x, x, out))
    larger.known.struct_size = ctypes.sizeof(Larger)
    assert library.numattn_attention(ctypes.byref(larger)) == OK
    larger.later = 1
    assert library.numattn_attention(ctypes.byref(larger)) == INVALID
    assert b"what this version of numattn does not know" in library.numattn_last_error()


def test_no_memory_is_a_status(library: ctypes.CDLL) -> None:
    zero = np.zeros((1, 1), np.float32)
    weight = Tensor.of(np.broadcast_to(zero, (1 << 29, 1 << 29)))
    handle = ctypes.c_void_p(1)
    made = library.numattn_linear_create(ctypes.byref(weight), None, 0, 0, ctypes.byref(handle))
    assert made == OUT_OF_MEMORY and handle.value is None
    assert library.numattn_last_error() == b"out of memory"


def test_a_call_can_be_interrupted(library: ctypes.CDLL, rng: np.random.Generator) -> None:
    x = normal(rng, 1, 8, 8192, 64)  # tenths of a second at least
    out = np.empty_like(x)
    args = arguments(x, x, x, out)
    asked: list[int] = []

    @INTERRUPT
    def interrupt(context: int) -> int:
        asked.append(context)
        return 1

    args.interrupt, args.interrupt_context = interrupt, 1234
    assert library.numattn_attention(ctypes.byref(args)) == INTERRUPTED
    assert asked == [1234]


def test_words_are_those_of_their_thread(library: ctypes.CDLL) -> None:
    assert library.numattn_isa_use(b"avx3") == INVALID
    before = library.numattn_last_error()
    seen: list[bytes] = []
    thread = threading.Thread(target=lambda: seen.append(library.numattn_last_error()))
    thread.start()
    thread.join()
    assert seen == [b""]
    assert library.numattn_last_error() == before
    assert b"'avx3' is unknown or not available here; available: scalar" in before


def test_instruction_sets_and_threads(library: ctypes.CDLL) -> None:
    names = []
    while name := library.numattn_isa_available(len(names)):
        names.append(name)
    assert names[0] == b"scalar" and library.numattn_isa_available(-1) is None
    for name in names:
        assert library.numattn_isa_use(name) == OK and library.numattn_isa_current() == name
    assert library.numattn_set_num_threads(1) == OK
    assert library.numattn_get_num_threads() == 1
    assert library.numattn_set_num_threads(-1) == INVALID
    assert library.numattn_set_num_threads(0) == OK


def test_versions(library: ctypes.CDLL) -> None:
    assert library.numattn_version().decode() == na.__version__
    assert library.numattn_abi_version() == 1


def test_contiguous(library: ctypes.CDLL) -> None:
    shape = np.array([2, 3, 4])
    made = library.numattn_contiguous(8, 1, 3, shape.ctypes.data)
    assert (made.data, made.dtype, made.rank) == (8, 1, 3)
    assert list(made.shape) == [2, 3, 4, 0] and list(made.strides) == [24, 8, 2, 0]
    assert library.numattn_contiguous(8, 1, 5, shape.ctypes.data).rank == -1


def test_every_symbol_is_tried(library: ctypes.CDLL) -> None:
    header = (Path(__file__).parents[1] / "cpp" / "include" / "numattn.h").read_text()
    tests = [*Path(__file__).parent.glob("test_c_*.py"), Path(__file__).parent / "c_library.py"]
    own = "".join(path.read_text() for path in tests)
    names = [line.split("(")[0].split()[-1].lstrip("*") for line in header.splitlines()
             if line.startswith("NUMATTN_API")]  # fmt: skip
    assert len(names) == 16 and not [name for name in names if name not in own]
