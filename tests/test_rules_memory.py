"""Rule 7: no S×S buffer, and `plan` says the bytes of a call beforehand."""

from __future__ import annotations

import textwrap

import pytest

from child import output_of

MIB = 1 << 20

# Grow by one call, in KiB: VmHWM counts the process's own peak, which clear_refs sets back.
# (ru_maxrss would also count what the parent had before exec.)
SCRIPT = """
    import sys
    import numpy as np
    import numattn as na

    def status(name):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(name + ":"))

    batch, heads, kv_heads, query_len, key_len, dim = (int(x) for x in sys.argv[1].split(","))
    options = eval(sys.argv[2])
    rng = np.random.default_rng(0)
    q, out = (np.zeros((batch, heads, query_len, dim), sys.argv[3]) for _ in range(2))
    k, v = (np.zeros((batch, kv_heads, key_len, dim), sys.argv[3]) for _ in range(2))
    for x in (q, k, v, out):
        x[...] = rng.standard_normal(x.shape, dtype=np.float32)
    na.attention(q[:, :, :2], k[:, :, :2], v[:, :, :2], num_threads=2)  # starts the threads
    plan = na.plan(q.shape, k.shape, v.shape, dtype=sys.argv[3], num_threads=2, **options)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    na.attention(q, k, v, out=out, num_threads=2, **options)
    print(status("VmHWM") - before, plan.scratch_bytes)
"""

SHAPES = {
    "causal_8192": ("1,8,8,8192,8192,64", "{'is_causal': True}"),
    "window_32768": ("1,4,4,32768,32768,64", "{'window': (256, 0)}"),
    "decode": ("4,32,8,1,8192,128", "{}"),
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", SHAPES)
def test_memory_of_a_call_is_what_the_plan_says(isa: str, name: str, dtype: str) -> None:
    shape, options = SHAPES[name]
    printed = output_of(SCRIPT, shape, options, dtype, timeout=300, NUMATTN_ISA=isa)
    grown, scratch = (int(x) for x in printed.split())
    # Pages of code and stacks touched for the first time, and page rounding of each buffer.
    assert grown * 1024 <= scratch + 1 * MIB
    # O(threads·block), and at most one repacked copy of keys and values.
    batch, _, kv_heads, _, key_len, dim = (int(x) for x in shape.split(","))
    repacked = 2 * batch * kv_heads * key_len * dim * 4
    assert scratch <= 2 * 4 * MIB + repacked
    # For comparison, one S×S buffer of a single head: 256 MiB, 4 GiB.
    if name != "decode":
        assert scratch < key_len * key_len


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_large_scratch_is_told_within_a_factor_of_two(isa: str, dtype: str) -> None:
    """Heads of 65536 elements make the blocks so large that nothing else counts."""
    script = "import ml_dtypes\n" + textwrap.dedent(SCRIPT)
    printed = output_of(script, "1,2,2,100,100,65536", "{}", dtype, NUMATTN_ISA=isa)
    grown, scratch = (int(x) for x in printed.split())
    assert scratch > 16 * MIB
    assert 0.5 * scratch <= grown * 1024 <= scratch + 1 * MIB


@pytest.mark.slow
def test_a_long_causal_call_takes_less_than_64_mib() -> None:
    """32768 queries and keys: the scores of one head alone would be 4 GiB."""
    printed = output_of(
        SCRIPT, "1,8,8,32768,32768,64", "{'is_causal': True}", "float32", timeout=300
    )
    grown, scratch = (int(x) for x in printed.split())
    assert grown * 1024 < 64 * MIB
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
