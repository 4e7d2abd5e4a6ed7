"""Attention over tokens of several processes: as threads, and by mpirun where there is one."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import numattn as na
import numattn.compat.mpi as nm
from mpi_ranks import Checks
from numattn.compat.mpi.ring import State
from thread_ranks import World

needs_mpi = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or shutil.which("mpirun") is None,
    reason="mpi4py or mpirun is not installed",
)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_threads(size: int) -> None:
    World(size).run(lambda comm: Checks(comm).all((0, 3, 203)))


@needs_mpi
@pytest.mark.parametrize("size", [1, 2, 4])
def test_processes(size: int) -> None:
    # Open MPI: more processes than processors, and root, as in containers. Others pass them over.
    environment = {
        **os.environ,
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_mpi_yield_when_idle": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    script = Path(__file__).with_name("mpi_ranks.py")
    # Started by mpi4py, so that one that fails ends all.
    command = ["mpirun", "-n", str(size), sys.executable, "-m", "mpi4py", str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{size} processes agree with one\n"


def test_a_state_is_what_merge_states_makes(rng: np.random.Generator) -> None:
    outs = rng.standard_normal((4, 2, 6, 8), np.float32)
    lses = 40 * rng.standard_normal((4, 2, 6), np.float32)
    lses[rng.random(lses.shape) < 0.4] = -np.inf
    lses[:, 0, 0], lses[0, 0, 1] = -np.inf, -np.inf
    outs[np.isneginf(lses)] = 0
    expected = na.merge_states(outs, lses)
    state = State()
    for o, lse in zip(outs.copy(), lses, strict=True):
        state.add(o, lse)
    np.testing.assert_allclose(state.o, expected[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(state.lse, expected[1], rtol=1e-6)
    assert np.isneginf(state.lse[0, 0]) and not state.o[0, 0].any()


@pytest.mark.parametrize(("length", "size"), [(0, 1), (7, 2), (64, 4), (101, 5), (3, 8)])
def test_every_token_has_one_process(length: int, size: int) -> None:
    places = [nm.positions(length, size, rank) for rank in range(size)]
    assert sorted(np.concatenate(places)) == [*range(length)]
    sizes = [each.size for each in places]
    assert max(sizes) - min(sizes) <= 2


@pytest.mark.parametrize(("length", "size", "rank"), [(-1, 2, 0), (4, 0, 0), (4, 2, 2), (4, 2, -1)])
def test_what_is_no_place(length: int, size: int, rank: int) -> None:
    with pytest.raises(ValueError, match=f"length {length}, rank {rank} and size {size}"):
        nm.positions(length, size, rank)


def test_parts_are_contiguous(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 10, 4), np.float32)
    parts = World(2).run(lambda comm: nm.split(x, comm))
    for rank, part in enumerate(parts):
        assert part.flags.c_contiguous
        np.testing.assert_array_equal(part, x[:, :, nm.positions(10, 2, rank)])


def test_what_has_no_tokens() -> None:
    with pytest.raises(ValueError, match=r"of shape \(…, S, D\), not \(3,\)"):
        World(2).run(lambda comm: nm.split(np.zeros(3), comm))
    with pytest.raises(ValueError, match=r"of shape \(…, S, D\), not \(3,\)"):
        World(2).run(lambda comm: nm.join(np.zeros(3), comm))


def test_without_mpi4py(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    x = np.zeros((1, 1, 4, 8), np.float32)
    for form in (nm.ring_attention, nm.gather_attention):
        with pytest.raises(ImportError, match=r"numattn\[mpi\]"):
            form(x, x, x)
    for form in (nm.split, nm.join):
        with pytest.raises(ImportError, match=r"numattn\[mpi\]"):
            form(x)
