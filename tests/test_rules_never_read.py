"""Rule 2: keys excluded by structure are never read. Guard pages prove it."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import DTYPES, normal, unit_inputs
from guard_pages import EDGES, PAGE, forbid, guarded
from numattn import reference
from relative_cases import STEPS, score_step
from tolerance import assert_same_bits, assert_weights_close, expect

# (heads, (Sq, Sk), score arguments, the keys [lo, hi) of each batch entry that some row sees)
STRUCTURES: dict[str, tuple[Any, Any, dict[str, Any], list[tuple[int, int]]]] = {
    "kv_lens": ((2, 4, 2), (33, 200), {"kv_lens": [77, 130]}, [(0, 77), (0, 130)]),
    "kv_lens_0": ((2, 2, 2), (33, 70), {"kv_lens": [0, 64]}, [(0, 0), (0, 64)]),
    "causal": ((1, 4, 2), (20, 90), {"is_causal": True, "q_offset": 5}, [(0, 25)]),
    "causal_per_batch": (
        (2, 3, 1),
        (49, 150),
        {"is_causal": True, "q_offset": [3, 80]},
        [(0, 52), (0, 129)],
    ),
    "window": ((1, 4, 4), (7, 120), {"window": (9, 3), "q_offset": 50}, [(41, 60)]),
    "window_long": ((1, 2, 1), (70, 900), {"window": (100, 0), "q_offset": 500}, [(400, 570)]),
    "window_left_causal": (
        (1, 2, 2),
        (17, 100),
        {"window": (4, None), "q_offset": 30, "is_causal": True},
        [(26, 47)],
    ),
    "decode": ((2, 8, 2), (1, 600), {"kv_lens": [311, 402]}, [(0, 311), (0, 402)]),
    "decode_long": ((1, 8, 2), (1, 5000), {"kv_lens": [2049]}, [(0, 2049)]),
    "decode_window": (
        (1, 4, 1),
        (1, 3000),
        {"window": (700, 0), "q_offset": 2500},
        [(1800, 2501)],
    ),
    "decode_causal": ((1, 4, 4), (3, 600), {"is_causal": True, "q_offset": 400}, [(0, 403)]),
}


def as_arrays(options: dict[str, Any]) -> dict[str, Any]:
    return {
        name: np.array(value) if isinstance(value, list) else value
        for name, value in options.items()
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("name", STRUCTURES)
def test_excluded_keys_are_not_mapped(
    isa: str, rng: np.random.Generator, name: str, edge: str, dtype: str
) -> None:
    heads, lengths, options, visible = STRUCTURES[name]
    options = as_arrays(options)
    for dims, padding in (((64, 64), 0), ((40, 24), 3), ((1, 3), 0), ((16, 129), 1)):
        q, k, v = unit_inputs(rng, heads, lengths, dims, dtype)
        guarded_k = guarded(k, edge, visible, padding)
        guarded_v = guarded(v, edge, visible, padding)
        o, lse = na.attention(q, guarded_k, guarded_v, return_lse=True, **options)
        expect(q, k, v, **options).check(o, lse)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", STRUCTURES)
def test_weights_do_not_read_excluded_keys(
    isa: str, rng: np.random.Generator, name: str, dtype: str
) -> None:
    heads, lengths, options, visible = STRUCTURES[name]
    options = as_arrays(options)
    q, k, _ = unit_inputs(rng, heads, lengths, (40, 40), dtype)
    for edge in EDGES:
        weights = na.attention_weights(q, guarded(k, edge, visible), **options)
        assert_weights_close(weights, reference.attention_weights(q, k, **options))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("step", STEPS)
def test_score_steps_do_not_read_excluded_keys(
    isa: str, rng: np.random.Generator, step: str, dtype: str
) -> None:
    q, k, v = unit_inputs(rng, (1, 4, 2), (35, 150), (24, 20), dtype)
    options = score_step(step, rng, (1, 4, 35, 150), (24, 20))
    options |= {"window": (20, 0), "q_offset": 60, "kv_lens": np.array([90])}
    for edge in EDGES:
        places = (guarded(x, edge, [(40, 90)]) for x in (k, v))
        expect(q, k, v, **options).check(*na.attention(q, *places, return_lse=True, **options))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("lengths", [(1, 1), (1, 97), (5, 130), (49, 63), (130, 17)])
def test_nothing_beside_the_arrays_is_touched(
    isa: str, rng: np.random.Generator, lengths: tuple[int, int], edge: str, dtype: str
) -> None:
    for dims in ((1, 1), (3, 40), (17, 129), (64, 64)):
        q, k, v = unit_inputs(rng, (2, 4, 2), lengths, dims, dtype)
        bias = normal(rng, (1, 4, *lengths))
        mask = rng.random((2, 1, *lengths)) < 0.8
        options = {"bias": guarded(bias, edge), "mask": guarded(mask, edge)}
        out = guarded(np.zeros((2, 4, lengths[0], dims[1]), q.dtype), edge)
        places = [guarded(x, edge) for x in (q, k, v)]
        na.attention(*places, out=out)
        expect(q, k, v).check(out)
        na.attention(*places, out=out, **options)
        expect(q, k, v, bias=bias, mask=mask).check(out)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", STRUCTURES)
def test_nan_in_excluded_keys_is_harmless(
    isa: str, rng: np.random.Generator, name: str, dtype: str
) -> None:
    heads, lengths, options, visible = STRUCTURES[name]
    options = as_arrays(options)
    q, k, v = unit_inputs(rng, heads, lengths, (40, 40), dtype)
    clean = na.attention(q, k, v, return_lse=True, **options)
    for b, (lo, hi) in enumerate(visible):
        for x in (k, v):
            x[b, :, :lo] = np.nan
            x[b, :, hi:] = np.inf
    for got, expected in zip(na.attention(q, k, v, return_lse=True, **options), clean, strict=True):
        assert_same_bits(got, expected)


def test_keys_between_the_windows_of_picked_rows_are_not_mapped(
    isa: str, rng: np.random.Generator
) -> None:
    """The rows' spans are far apart; what lies between belongs to none of them."""
    k = normal(rng, (1, 1, 4 * PAGE, 16))
    q = normal(rng, k.shape)
    row_bytes = k.shape[-1] * k.itemsize
    memory = mmap.mmap(-1, k.nbytes)
    there = np.frombuffer(memory, np.float32).reshape(k.shape)
    there[:] = k
    forbid(there.ctypes.data + PAGE, k.nbytes - 2 * PAGE)
    last = k.shape[2] - 1
    for picked in ([0, last], [3, last - 2, last, 1]):
        options = {"rows": picked, "window": (2, 1)}
        got = na.attention_weights(q, there, **options)
        assert_weights_close(got, reference.attention_weights(q, k, **options))
    assert PAGE // row_bytes > 6  # the keys seen lie in the first and the last page
