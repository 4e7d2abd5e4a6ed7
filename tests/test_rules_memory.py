"""Rule 7: no S×S buffer, and `plan` says the bytes of a call beforehand."""

from __future__ import annotations

import textwrap

import pytest

from cases import DTYPES
from child import output_of

MIB = 1 << 20

# What a call may take beyond its scratch: pages of code and of stacks touched for the first time,
# the rounding of each buffer to pages, and what the counters themselves are behind by, up to 64
# pages a thread (Linux counts resident pages per thread or core and adds them up in such lots).
ALLOWANCE = MIB

# Every buffer of a call is then memory that was not resident before, and is given back after it.
FRESH_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "32768", "MALLOC_TRIM_THRESHOLD_": "0"}

STATUS = textwrap.dedent("""
    import sys
    import ml_dtypes
    import numpy as np
    import numattn as na

    def status(name):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name + ":"))
""")

# Grow by one call, in KiB: VmHWM counts the process's own peak, which clear_refs sets back.
# (ru_maxrss would also count what the parent had before exec.)
SCRIPT = STATUS + textwrap.dedent("""
    batch, heads, kv_heads, query_len, key_len, dim = (int(x) for x in sys.argv[1].split(","))
    dtype, num_threads = sys.argv[2], int(sys.argv[3])
    options = eval(sys.argv[4])
    rng = np.random.default_rng(0)
    q, out = (np.zeros((batch, heads, query_len, dim), dtype) for _ in range(2))
    k, v = (np.zeros((batch, kv_heads, key_len, dim), dtype) for _ in range(2))
    for x in (q, k, v, out):
        x[...] = rng.standard_normal(x.shape, dtype=np.float32)
    v[:, :, 0] = 1e-35  # where units would lose it, such is added in memory of its own
    # A small call of the same kind starts the threads and maps the code.
    na.attention(*(x[:, :, :100, :8] for x in (q, k, v)), num_threads=num_threads, **options)
    plan = na.plan(q.shape, k.shape, dtype=dtype, num_threads=num_threads, **options)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    na.attention(q, k, v, out=out, num_threads=num_threads, **options)
    print(status("VmHWM") - before, plan.scratch_bytes)
""")


def grown_and_planned(
    shape: str, dtype: str, num_threads: int, options: str, **environment: str
) -> tuple[int, int]:
    """Return the bytes by which a call makes a process grow, and what the plan says of it."""
    printed = output_of(
        SCRIPT, shape, dtype, str(num_threads), options, timeout=300, **FRESH_MEMORY, **environment
    )
    grown, scratch = (int(x) for x in printed.split())
    return grown * 1024, scratch


SHAPES = {
    "causal": ("1,4,4,4096,4096,64", "{'is_causal': True}"),
    "window": ("1,2,2,16384,16384,64", "{'window': (256, 0)}"),
    "decode": ("2,32,8,1,4096,128", "{}"),
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_memory_of_a_call_is_what_the_plan_says(isa: str, name: str, dtype: str) -> None:
    shape, options = SHAPES[name]
    grown, scratch = grown_and_planned(shape, dtype, 2, options, NUMATTN_ISA=isa)
    assert grown <= scratch + ALLOWANCE
    # O(threads·block), and at most one repacked copy of keys and values.
    batch, _, kv_heads, _, key_len, dim = (int(x) for x in shape.split(","))
    repacked = 2 * batch * kv_heads * key_len * dim * 4
    assert scratch <= 2 * 4 * MIB + repacked
    # For comparison, one S×S buffer of a single head: 64 MiB, 1 GiB.
    if name != "decode":
        assert scratch < key_len * key_len


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "precision"), [*((dtype, "highest") for dtype in DTYPES), ("float32", "high")]
)
def test_the_plan_does_not_overstate(isa: str, dtype: str, precision: str) -> None:
    """A head of 16384 elements makes the blocks so large that nothing else counts.

    One thread, so that all that is planned is used, and full blocks. What may stay untouched is
    room for a tile of keys that can be read in place, of n keys beside m queries: n/2 of 3·m/2 + n
    numbers per element where products take bfloat16, which is less than a quarter for n < m.
    """
    grown, scratch = grown_and_planned(
        "1,1,1,192,256,16384", dtype, 1, str({"precision": precision}), NUMATTN_ISA=isa
    )
    assert scratch > 10 * MIB
    assert 0.75 * scratch <= grown <= scratch + ALLOWANCE


@pytest.mark.slow
def test_weights_in_bfloat16_take_half(isa: str) -> None:
    printed = output_of(
        STATUS
        + textwrap.dedent("""
        weight = np.ones((2048, 4096), np.float32)
        small, kept = weight[:64, :64].copy(), []
        for dtype in ("float32", "bfloat16"):
            na.Linear(small, dtype=dtype)
            before = status("VmRSS")
            kept.append(na.Linear(weight, dtype=dtype))
            print(status("VmRSS") - before)
        """),
        **FRESH_MEMORY,
        NUMATTN_ISA=isa,
    )
    # 2048 outputs are not a multiple of a panel's 48, and large pages are whole ones: 2 MiB each.
    for grown, packed in zip(printed.split(), (32 * MIB, 16 * MIB), strict=True):
        assert packed - ALLOWANCE <= int(grown) * 1024 <= packed + 4 * MIB + ALLOWANCE


@pytest.mark.slow
def test_weights_that_share_memory_give_it_back_one_by_one() -> None:
    """40 layers of 3.4 MiB, in blocks of several: half of them go, in two ways, then the rest."""
    printed = output_of(
        STATUS
        + textwrap.dedent("""
        rng = np.random.default_rng(0)
        weight, x = rng.standard_normal((1536, 576), np.float32), np.ones((1, 576), np.float32)
        expected = na.Linear(weight)(x).copy()
        before = status("VmRSS")
        kept = [na.Linear(weight) for _ in range(40)]
        print(status("VmRSS") - before)
        del kept[::2]
        print(status("VmRSS") - before)
        kept += [na.Linear(weight) for _ in range(20)]
        print(status("VmRSS") - before)
        assert all(np.array_equal(linear(x), expected) for linear in kept)
        kept.clear()
        print(status("VmRSS") - before)
        """),
        **FRESH_MEMORY,
    )
    bytes_of_one = 1536 * 576 * 4
    for grown, count in zip(printed.split(), (40, 20, 40, 0), strict=True):
        # The last huge page of each of up to 8 blocks; and what the calls took.
        assert count * bytes_of_one - MIB <= int(grown) * 1024
        assert int(grown) * 1024 <= count * bytes_of_one + 8 * 2 * MIB + ALLOWANCE


@pytest.mark.slow
def test_a_long_causal_call_takes_less_than_64_mib() -> None:
    """32768 queries and keys: the scores of one head alone would be 4 GiB."""
    shape, options = "1,8,8,32768,32768,64", "{'is_causal': True}"
    grown, scratch = grown_and_planned(shape, "float32", 2, options)
    assert grown < 64 * MIB
    assert scratch < 64 * MIB


@pytest.mark.slow
def test_calls_leak_nothing(isa: str) -> None:
    printed = output_of(
        """
        import numpy as np, numattn as na

        def resident():
            with open("/proc/self/status") as file:
                return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))

        x = np.random.default_rng(0).standard_normal((1, 4, 256, 64), dtype=np.float32)

        def calls(count):
            for _ in range(count):
                na.attention(x, x, x, return_lse=True)
                na.attention(x[:, :, :1], x, x)
                na.attention_weights(x, x, rows=[0, 5])
                na.Linear(x[0, 0])(x[0, 1], activation="gelu")
                try:
                    na.attention(x, x, x[..., :3, :])
                except ValueError:
                    pass

        calls(50)
        before = resident()
        calls(400)
        print(resident() - before)
        """,
        NUMATTN_ISA=isa,
    )
    # One lost output (256 KiB) or packed weight (64 KiB) per call would be 25 to 100 MiB.
    assert int(printed) < 4 * 1024


PARTS = STATUS + textwrap.dedent("""
    count = 200_000
    x, out = np.zeros((count, 1, 1), np.float32), np.ones((count, 1, 1), np.float32)
    starts, table, lengths = np.arange(count + 1), np.arange(count)[:, None], np.ones(count, int)
    pages, paged_out = x[:, :, None], out[:, :, None]

    def attend(n):
        if sys.argv[1] == "varlen":
            x_n, starts_n = x[:n], starts[: n + 1]
            na.attention_varlen(x_n, x_n, x_n, starts_n, starts_n, out=out[:n], num_threads=1)
        else:
            arguments = (pages[:n], pages[:n], pages[:n], table[:n], lengths[:n])
            na.attention_paged(*arguments, out=paged_out[:n], num_threads=1)

    attend(10)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    attend(count)
    print((status("VmHWM") - before) * 1024 / count)
""")


@pytest.mark.parametrize("kind", ["varlen", "paged"])
def test_a_part_takes_bytes_and_not_kilobytes(kind: str) -> None:
    """Its lengths and where its work begins are kept of each sequence: five numbers of 8 bytes."""
    assert float(output_of(PARTS, kind, timeout=300, **FRESH_MEMORY)) < 64
