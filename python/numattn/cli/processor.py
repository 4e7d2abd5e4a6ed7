"""The processor: its name, its cores, and how many of its processors a process may use."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import NamedTuple

CPUINFO = Path("/proc/cpuinfo")


class Processor(NamedTuple):
    """What is known of the machine's processor."""

    name: str
    cores: int | None
    """Cores, in each of which several threads may run; None if the system does not say."""
    threads: int
    """Threads that the system can run at once."""
    usable: int
    """Those of them that this process may use."""


def read_processor() -> Processor:
    """Return what the system says of the processor.

    Examples
    --------
    >>> processor = read_processor()
    >>> 1 <= processor.usable <= processor.threads
    True
    """
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    name = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    threads = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads
    return Processor(
        name.group(1) if name else platform.processor() or platform.machine(),
        cores_of(text),
        threads,
        usable,
    )


def cores_of(cpuinfo: str) -> int | None:
    """Return how many cores the text of /proc/cpuinfo tells apart; None if it tells of none.

    Examples
    --------
    >>> cores_of("physical id : 0\\ncore id : 0\\n\\nphysical id : 0\\ncore id : 0\\n")
    1
    """
    pairs = re.findall(r"^physical id\s*: (\d+)$(?:.|\n(?!\n))*?^core id\s*: (\d+)$", cpuinfo, re.M)
    return len(set(pairs)) or None
