"""Choosing an instruction set: `isa.available`, `isa.current`, `isa.use` and NUMATTN_ISA."""

from __future__ import annotations

import platform
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numattn as na
from cases import unit_inputs
from child import output_of, run_python
from tolerance import expect

PRINT_CURRENT = "import numattn as na; print(na.isa.current())"


def test_scalar_is_always_there() -> None:
    available = na.isa.available()
    assert isinstance(available, list) and all(isinstance(name, str) for name in available)
    assert "scalar" in available
    assert len(set(available)) == len(available)


AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names the flags of x86-64")
@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("avx2", {"avx2", "fma", "f16c"}),
        ("avxvnni", {"avx2", "fma", "f16c", "avx_vnni"}),
        ("avx512", AVX512),
        ("avx512vnni", AVX512 | {"avx512_vnni"}),
    ],
)
def test_what_the_processor_has_is_available(name: str, flags: set[str]) -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    has = set(next(line for line in lines if line.startswith("flags")).split())
    assert (name in na.isa.available()) == (flags <= has)


@pytest.mark.skipif(platform.machine() not in ("aarch64", "arm64"), reason="ARM's baseline")
def test_every_arm_processor_has_neon() -> None:
    assert na.isa.available()[:2] == ["scalar", "neon"]


def test_current_is_one_of_the_available() -> None:
    assert na.isa.current() in na.isa.available()


def test_the_best_is_chosen_unless_told_otherwise() -> None:
    chosen = output_of(PRINT_CURRENT).strip()
    order = "scalar avx2 avxvnni avx512 avx512vnni avx512bf16 amx neon neonbf16".split()
    ranked = [name for name in order if name in na.isa.available()]
    assert chosen == ranked[-1]


def test_use_is_undone() -> None:
    before = na.isa.current()
    for name in na.isa.available():
        with na.isa.use(name):
            assert na.isa.current() == name
            with na.isa.use("scalar"):
                assert na.isa.current() == "scalar"
            assert na.isa.current() == name
        assert na.isa.current() == before


def test_use_is_undone_by_an_exception() -> None:
    before = na.isa.current()
    with pytest.raises(RuntimeError, match="inside"), na.isa.use("scalar"):
        raise RuntimeError("inside")
    assert na.isa.current() == before


def test_the_block_entered_last_holds_whatever_order_they_end_in() -> None:
    """Blocks of two threads, or of two asyncio tasks, overlap without one lying in the other."""
    before = na.isa.current()
    names = ["scalar", na.isa.available()[-1]] * 2
    for order in permutations(range(4)):
        blocks = [na.isa.use(name) for name in names]
        still_open = dict(enumerate(names))
        for block, name in zip(blocks, names, strict=True):
            block.__enter__()
            assert na.isa.current() == name
        for index in order:
            blocks[index].__exit__(None, None, None)
            del still_open[index]
            assert na.isa.current() == [before, *still_open.values()][-1]


def test_blocks_in_two_threads() -> None:
    before = na.isa.current()
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))

    def first() -> None:
        with na.isa.use("scalar"):
            first_is_in.set()
            second_is_in.wait()
        first_is_out.set()

    def second() -> str:
        first_is_in.wait()
        with na.isa.use(na.isa.available()[-1]):
            second_is_in.set()
            first_is_out.wait()
            return na.isa.current()

    with ThreadPoolExecutor(2) as pool:
        pool.submit(first)
        assert pool.submit(second).result() == na.isa.available()[-1]
    assert na.isa.current() == before


def test_blocks_in_many_threads() -> None:
    before = na.isa.current()

    def enter_and_leave(i: int) -> None:
        with na.isa.use(na.isa.available()[i % len(na.isa.available())]):
            pass

    with na.isa.use("scalar"):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(enter_and_leave, range(400)))
        assert na.isa.current() == "scalar"
    assert na.isa.current() == before


def test_a_refused_name_leaves_other_blocks_alone() -> None:
    before = na.isa.current()
    with na.isa.use("scalar"):
        with pytest.raises(ValueError, match="avx3"), na.isa.use("avx3"):
            pass
        assert na.isa.current() == "scalar"
    assert na.isa.current() == before


@pytest.mark.parametrize("name", na.isa.available())
def test_what_the_environment_chose_holds_again_after_a_block(name: str) -> None:
    script = """
        import numattn as na
        with na.isa.use("scalar"), na.isa.use(na.isa.available()[-1]):
            pass
        print(na.isa.current())
    """
    assert output_of(script, NUMATTN_ISA=name).strip() == name


@pytest.mark.parametrize(
    "name", ["avx3", "", "AVX2", "neon" if platform.machine() == "x86_64" else "avx2"]
)
def test_unknown_names_are_refused_with_the_available_ones(name: str) -> None:
    before = na.isa.current()
    with pytest.raises(ValueError) as caught:
        with na.isa.use(name):
            pass
    for available in na.isa.available():
        assert available in str(caught.value)
    assert repr(name) in str(caught.value) or f'"{name}"' in str(caught.value)
    assert na.isa.current() == before


@pytest.mark.parametrize("name", na.isa.available())
def test_environment_forces_one(name: str) -> None:
    assert output_of(PRINT_CURRENT, NUMATTN_ISA=name).strip() == name


@pytest.mark.parametrize("name", ["avx3", "AVX2"])
def test_unknown_name_in_the_environment_fails_at_import(name: str) -> None:
    process = run_python(PRINT_CURRENT, NUMATTN_ISA=name)
    assert process.returncode != 0
    last = process.stderr.strip().splitlines()[-1]
    assert "Error" in last and "NUMATTN_ISA" in process.stderr and name in process.stderr
    for available in na.isa.available():
        assert available in process.stderr


def test_empty_environment_variable_is_none() -> None:
    assert output_of(PRINT_CURRENT, NUMATTN_ISA="") == output_of(PRINT_CURRENT)


def test_the_plan_tells_the_instruction_set(isa: str) -> None:
    assert na.plan((1, 2, 64, 32), (1, 2, 64, 32)).isa == isa


def test_all_compute_the_same_within_tolerance(rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (1, 2, 2), (70, 90), (48, 48))
    expected = expect(q, k, v)
    results: dict[str, Any] = {}
    for name in na.isa.available():
        with na.isa.use(name):
            results[name] = na.attention(q, k, v, return_lse=True)
        expected.check(*results[name])
    # The override is real: not all of them round alike. In float32 ARM's may: each has four lanes,
    # and every product is fused.
    different = len({o.tobytes() for o, _ in results.values()})
    assert len(results) == 1 or different > 1 or platform.machine() != "x86_64"
