"""What this installation does on this machine, and why."""

from __future__ import annotations

import os

import numpy as np

from numattn import _core, isa, threads


def show_config() -> None:
    """Print version, instruction sets and threads, with what decided them.

    Examples
    --------
    >>> import numattn as na
    >>> na.show_config()  # doctest: +ELLIPSIS
    numattn ...
    """
    print(config_text())


def config_text() -> str:
    """The text that :func:`show_config` prints."""
    limits = _core.thread_limits()
    chosen = os.environ.get("NUMATTN_ISA")
    best = isa.current() == isa.available()[-1]
    why = "the best available" if best else "chosen by isa.use()"
    if chosen == isa.current():
        why = f"NUMATTN_ISA={chosen}"
    bounds = [
        ("set_num_threads() or NUMATTN_NUM_THREADS", limits["process"]),
        ("OpenMP (OMP_NUM_THREADS)", limits["openmp"]),
        ("processors of the affinity mask", limits["affinity"]),
        ("CPU quota of the control group", limits["cgroup"]),
    ]
    lines = [
        f"numattn {_core.__version__}, NumPy {np.__version__}",
        f"instruction set: {isa.current()} ({why})",
        f"  available: {', '.join(isa.available())}",
        f"  the processor offers: {_core.cpu_features() or 'none of those known'}",
        f"threads: {threads.get_num_threads()} (the least of those set)",
    ]
    lines += [f"  {name}: {value or 'not set'}" for name, value in bounds]
    if limits["nested"]:
        lines.append("  inside another parallel region: 1")
    return "\n".join(lines)
