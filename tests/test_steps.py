"""Calls that are noted down and run in one go."""

from __future__ import annotations

import gc
import signal
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest

import numattn as na
from numattn._steps import Steps
from numattn.models.norms import LayerNorm, RmsNorm
from numattn.position import Rope
from tolerance import assert_same_bits

TOKENS, WIDTH = 7, 32


class Operands:
    """Arrays of a layer."""

    def __init__(self, rng: np.random.Generator) -> None:
        def normal(*shape: int) -> Any:
            return rng.standard_normal(shape).astype(np.float32)

        self.x, self.residual = normal(TOKENS, WIDTH), normal(TOKENS, WIDTH)
        self.weight, self.bias = normal(WIDTH, WIDTH), normal(WIDTH)
        self.heads = normal(TOKENS, 6, 16)
        self.table = normal(2, 4, 4)

    def linear(self, storage: str = "float32") -> na.Linear:
        return na.Linear(self.weight, self.bias, dtype=storage)


@pytest.fixture
def operands(rng: np.random.Generator) -> Operands:
    return Operands(rng)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("storage", ["float32", "int8", "w8a8"])
def test_linear_has_the_bits_of_a_call(
    operands: Operands, storage: str, threads: int, isa: str
) -> None:
    layer, factor = operands.linear(storage), na.Linear(operands.weight.T.copy(), dtype=storage)
    residual = operands.residual.copy()
    expected = layer(operands.x, activation="gelu", factor=factor, residual=residual)
    steps = Steps(threads)
    steps.linear(
        layer, operands.x, activation="gelu", factor=factor, residual=residual, out=residual
    )
    assert_same_bits(residual, operands.residual)  # nothing is computed yet
    steps.run()
    assert_same_bits(residual, expected)


def test_norms_have_the_bits_of_calls(operands: Operands, isa: str) -> None:
    weight, x = operands.bias, operands.x
    plain, shifted = LayerNorm(weight, None, 1e-5), LayerNorm(weight, weight, 1e-5)
    root = RmsNorm(weight, 1e-6)
    expected = [norm(x, 1) for norm in (plain, shifted, root)]
    results = [np.empty_like(x) for _ in expected]
    steps = Steps(None)
    for norm, out in zip((plain, shifted, root), results, strict=True):
        norm.add_to(steps, x, out=out)
    root.add_to(steps, x, out=x)  # where it stands
    steps.run()
    for out, one in zip([*results, x], [*expected, expected[-1]], strict=True):
        assert_same_bits(out, one)


def test_rope_has_the_bits_of_a_call(operands: Operands, isa: str) -> None:
    heads = operands.heads[np.newaxis]
    cos, sin = Rope(16).tables(np.arange(TOKENS))
    expected = na.apply_rope(heads, cos, sin, layout="bshd")
    steps = Steps(None)
    steps.rope(heads, cos, sin)
    steps.run()
    assert_same_bits(heads, expected)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("window", [None, (2, 1)])
def test_attention_has_the_bits_of_a_call(
    operands: Operands, window: tuple[int, int] | None, is_causal: bool, isa: str
) -> None:
    query, key, value = (operands.heads[:, 2 * part : 2 * part + 2] for part in range(3))
    starts = np.array([0, 3, 3, TOKENS])
    expected = na.attention_varlen(
        query, key, value, starts, starts, is_causal=is_causal, window=window
    )
    out = np.empty_like(expected)
    steps = Steps(1)
    steps.attention_varlen(query, key, value, starts, out, is_causal=is_causal, window=window)
    steps.run()
    assert_same_bits(out, expected)


def test_attention_with_a_bias_has_the_bits_of_a_call(operands: Operands, isa: str) -> None:
    query, key, value = (operands.heads[np.newaxis, :4, 2 * p : 2 * p + 2] for p in range(3))
    expected = na.attention(query, key, value, bias=operands.table, layout="bshd")
    out = np.empty_like(expected)
    steps = Steps(1)
    steps.attention(query, key, value, out, bias=operands.table)
    steps.run()
    assert_same_bits(out, expected)


def test_results_have_arrays_of_their_own(operands: Operands, isa: str) -> None:
    layer, norm, x = operands.linear(), RmsNorm(operands.bias, 1e-6), operands.x
    expected = norm(layer(x, activation="silu"), 1)
    steps = Steps(1)
    result = norm.add_to(steps, steps.linear(layer, x, activation="silu"))
    steps.run()
    assert result.dtype == x.dtype
    assert_same_bits(result, expected)


def test_each_step_reads_what_those_before_it_wrote(operands: Operands) -> None:
    layer, x = operands.linear(), operands.x
    expected = x
    for _ in range(3):
        expected = layer(expected)
    first, second = np.empty_like(x), np.empty_like(x)
    steps = Steps(None)
    for here, there in ((x, first), (first, second), (second, first)):
        steps.linear(layer, here, out=there)
    steps.run()
    assert_same_bits(first, expected)


def test_a_run_forgets_its_steps(operands: Operands) -> None:
    layer, out = operands.linear(), operands.residual
    steps = Steps(None)
    steps.linear(layer, operands.x, residual=out, out=out)
    steps.run()
    once = out.copy()
    steps.run()
    assert_same_bits(out, once)


def test_what_is_read_lives_until_it_is_read(operands: Operands) -> None:
    expected = operands.linear()(operands.x)
    out, x = np.empty_like(expected), operands.x.copy()
    reader = weakref.ref(x)
    steps = Steps(None)
    steps.linear(operands.linear(), x, out=out)
    del x
    gc.collect()
    assert reader() is not None
    steps.run()
    assert_same_bits(out, expected)
    gc.collect()
    assert reader() is None


def test_what_does_not_fit_is_refused_and_the_rest_dropped(operands: Operands) -> None:
    layer, out = operands.linear(), np.zeros_like(operands.x)
    with pytest.raises(TypeError, match="float64"):
        Steps(None).linear(layer, operands.x.astype(np.float64), out=out)
    steps = Steps(None)
    steps.linear(layer, operands.x[:, :-1], out=out)
    steps.linear(layer, operands.x, out=out)
    with pytest.raises(ValueError, match="31"):
        steps.run()
    steps.run()
    assert not out.any()
    with pytest.raises(ValueError, match="num_threads"):
        Steps(0)


def test_other_threads_run_meanwhile(operands: Operands) -> None:
    steps, layer = Steps(1), operands.linear()
    x, out = np.ones((20000, WIDTH), np.float32), np.empty((20000, WIDTH), np.float32)
    for _ in range(400):
        steps.linear(layer, x, out=out)
    counted = 0
    runner = threading.Thread(target=steps.run)
    runner.start()
    while runner.is_alive():
        counted += 1
        time.sleep(0.001)
    assert counted > 5


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no such timer")
def test_an_interrupt_ends_them(operands: Operands) -> None:
    steps, layer = Steps(1), operands.linear()
    x, out = np.ones((20000, WIDTH), np.float32), np.empty((20000, WIDTH), np.float32)
    for _ in range(20000):  # of which each takes a millisecond or so
        steps.linear(layer, x, out=out)
    last = np.zeros_like(out)
    steps.linear(layer, x, out=last)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            steps.run()
        assert not last.any()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(("rows", "ran"), [(1, False), (64, False), (65, True)])
def test_many_rows_are_not_kept_from_layer_to_layer(
    operands: Operands, rows: int, ran: bool
) -> None:
    x = np.ones((rows, WIDTH), np.float32)
    out = np.zeros_like(x)
    steps = Steps(1)
    steps.linear(operands.linear(), x, out=out)
    steps.end_layer(len(x))
    assert out.any() == ran
    steps.run()
    assert out.any()
