"""How many threads work: the limits of the call, the process, the environment and the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

import numattn as na
from cases import unit_inputs
from child import output_of, run_python

PLAN = "na.plan((4, 8, 512, 64), (4, 8, 512, 64){}).threads"
PRINT_THREADS = f"import numattn as na; print({PLAN.format('')})"
PROCESSORS = sorted(
    os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
)
CORES = len(PROCESSORS)


@pytest.fixture(autouse=True)
def limit_restored() -> Iterator[None]:
    yield
    na.set_num_threads(0)  # no limit, as at the start


def threads(num_threads: int | None = None) -> int:
    plan = na.plan((4, 8, 512, 64), (4, 8, 512, 64), num_threads=num_threads)
    return int(plan.threads)


def test_process_limit() -> None:
    na.set_num_threads(1)
    assert na.get_num_threads() == 1
    assert threads() == 1
    assert threads(5) == 1  # the call may ask for less, not for more


def test_call_limit() -> None:
    assert threads(1) == 1
    assert 1 <= threads(2) <= 2
    assert threads(10_000) == threads()


def test_never_more_than_the_cores_of_this_process() -> None:
    na.set_num_threads(10_000)
    assert threads() <= CORES
    assert 1 <= na.get_num_threads()


def test_limit_holds_in_every_thread() -> None:
    """It belongs to the process, not to the thread that set it."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        pool.submit(na.set_num_threads, 1).result()
        assert na.get_num_threads() == 1 and threads() == 1
        assert pool.submit(na.get_num_threads).result() == 1


def test_zero_lifts_the_limit() -> None:
    before = na.get_num_threads()
    na.set_num_threads(1)
    na.set_num_threads(0)
    assert na.get_num_threads() == before == threads()


@pytest.mark.parametrize("wrong", [-1, -(2**31), 2**70])
def test_limits_out_of_range_are_refused(wrong: int) -> None:
    na.set_num_threads(1)
    with pytest.raises(ValueError, match=str(wrong)):
        na.set_num_threads(wrong)
    assert na.get_num_threads() == 1


def test_limits_that_are_no_integers_are_refused() -> None:
    with pytest.raises(TypeError):
        na.set_num_threads(1.5)


@pytest.mark.parametrize("name", ["NUMATTN_NUM_THREADS", "OMP_NUM_THREADS"])
def test_environment(name: str) -> None:
    assert output_of(PRINT_THREADS, **{name: "1"}).strip() == "1"
    assert int(output_of(PRINT_THREADS, **{name: "2"})) <= 2


@pytest.mark.parametrize(
    "value", ["0", "00", "-2", "many", "1.5", "²", str(2**63), str(2**70), "9" * 5000]
)
def test_nonsense_in_the_environment_fails_at_import(value: str) -> None:
    process = run_python(PRINT_THREADS, NUMATTN_NUM_THREADS=value)
    assert process.returncode != 0
    last = process.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: NUMATTN_NUM_THREADS must be") and repr(value) in last


def test_a_limit_that_needs_all_of_64_bits() -> None:
    free = output_of(PRINT_THREADS)
    assert output_of(PRINT_THREADS, NUMATTN_NUM_THREADS=str(2**63 - 1)) == free
    assert output_of(PRINT_THREADS, NUMATTN_NUM_THREADS=" 0001 ").strip() == "1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OMP_PROC_BIND", "true"),
        ("OMP_PROC_BIND", "close"),
        ("OMP_PROC_BIND", "spread,close"),
        ("OMP_PLACES", "cores"),
        ("OMP_PLACES", "threads"),
        ("GOMP_CPU_AFFINITY", " ".join(map(str, PROCESSORS))),
    ],
)
def test_threads_bound_by_openmp_are_as_many(name: str, value: str) -> None:
    """OpenMP narrows the mask of the thread that loads it, and others inherit theirs from it."""
    script = f"""
        from concurrent.futures import ThreadPoolExecutor
        import os
        import numpy as np
        import numattn as na

        def planned():
            return {PLAN.format("")}

        x = np.zeros((4, 8, 256, 64), np.float32)
        before = len(os.listdir("/proc/self/task"))
        na.attention(x, x, x)
        print(1 + len(os.listdir("/proc/self/task")) - before)
        with ThreadPoolExecutor(1) as pool:
            print(planned(), pool.submit(planned).result(), na.get_num_threads())
    """
    free, bound = output_of(script), output_of(script, **{name: value})
    assert bound == free


@pytest.mark.skipif(CORES < 2, reason="one processor")
def test_one_place_of_openmp_s_is_one_thread() -> None:
    """Several threads bound to one processor would only wait for one another."""
    assert output_of(PRINT_THREADS, OMP_PLACES=f"{{{PROCESSORS[0]}}}").strip() == "1"


def test_thread_limit_of_openmp() -> None:
    assert output_of(PRINT_THREADS, OMP_THREAD_LIMIT="1").strip() == "1"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_affinity_is_respected() -> None:
    script = f"""
        import os
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        import numattn as na
        print({PLAN.format("")}, {PLAN.format(", num_threads=8")})
    """
    assert output_of(script).split() == ["1", "1"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_affinity_set_after_the_import_is_respected() -> None:
    script = f"""
        import os
        import numattn as na
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        print({PLAN.format("")})
    """
    assert output_of(script).strip() == "1"


def test_the_work_is_done_by_that_many_threads() -> None:
    """Threads of the process, counted after a call: workers beyond the limit would be there."""
    script = """
        import os, sys
        import numpy as np
        import numattn as na
        x = np.zeros((4, 8, 256, 64), np.float32)
        before = len(os.listdir("/proc/self/task"))
        na.attention(x, x, x, num_threads=int(sys.argv[1]))
        na.Linear(x[0, 0])(x, num_threads=int(sys.argv[1]))
        print(len(os.listdir("/proc/self/task")) - before)
    """
    assert int(output_of(script, "1")) == 0
    assert int(output_of(script, "2")) == min(2, CORES) - 1
    assert int(output_of(script, "8")) <= CORES - 1


def test_inside_another_parallel_region_there_is_one_thread() -> None:
    """Python runs in each thread of an OpenMP region of somebody else, and calls the library."""
    script = """
        import ctypes
        import numpy as np
        import numattn as na

        na.get_num_threads()  # OpenMP is found when it is first needed
        omp = next((line.split()[-1] for line in open("/proc/self/maps") if "gomp" in line), None)
        plans, results = [], []
        x = np.random.default_rng(0).standard_normal((2, 4, 100, 32), dtype=np.float32)

        @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        def body(_):
            plans.append(na.plan(x.shape, x.shape).threads)
            results.append(na.attention(x, x, x).tobytes())

        if omp is not None:
            ctypes.CDLL(omp).GOMP_parallel(body, None, 2, 0)
            assert set(results) == {na.attention(x, x, x).tobytes()}
        print(omp is None, *plans)
    """
    absent, *plans = output_of(script).split()
    if absent == "True":
        pytest.skip("another OpenMP than GCC's")
    assert plans == ["1", "1"]


def test_libraries_beside_us_keep_their_threads() -> None:
    """`omp_set_num_threads` is somebody else's business: the caller's number stays what it was."""
    script = """
        import ctypes
        import numpy as np
        import numattn as na

        na.get_num_threads()  # OpenMP is found when it is first needed
        omp = next((line.split()[-1] for line in open("/proc/self/maps") if "omp" in line), None)
        if omp is None:
            print("absent absent")
        else:
            library = ctypes.CDLL(omp)
            library.omp_set_num_threads(3)
            x = np.zeros((2, 4, 100, 32), np.float32)
            na.set_num_threads(1)
            na.attention(x, x, x, num_threads=2)
            na.Linear(x[0, 0])(x)
            print(library.omp_get_max_threads(), library.omp_get_dynamic())
    """
    printed = output_of(script).split()
    if printed[0] == "absent":
        pytest.skip("no OpenMP here")
    assert printed == ["3", "0"]


def test_show_config_prints_what_holds(capsys: pytest.CaptureFixture[str]) -> None:
    na.set_num_threads(1)
    with na.isa.use("scalar"):
        na.show_config()
    printed = capsys.readouterr().out
    assert na.__version__ in printed
    for word in ("scalar", "thread", *na.isa.available()):
        assert word in printed


def test_limit_changes_no_bit(rng: np.random.Generator) -> None:
    q, k, v = unit_inputs(rng, (1, 4, 4), (200, 200), (64, 64))
    results = set()
    for limit in (1, 2, 100):
        na.set_num_threads(limit)
        results.add(na.attention(q, k, v).tobytes())
    assert len(results) == 1
