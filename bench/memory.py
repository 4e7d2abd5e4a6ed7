"""How much one long causal call grows the process beyond its inputs and its output.

Each way runs in a process of its own, whose peak resident size (VmHWM) is read afterwards: the
`ru_maxrss` of a child starts at its parent's size, so it cannot be used here.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

MIB = 1 << 20
ADDRESS_LIMIT = 12 << 30  # a way that wants S×S scores (32 GiB) shall fail, not take the machine
NO_SUCH_WAY = "no such way"


def status_bytes(field: str) -> int:
    """A size of this process from the kernel: VmRSS is the resident one now, VmHWM its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def growth_of(name: str, way: int, threads: int) -> dict[str, Any]:
    """Run in the child: way number `way` of contestant `name` on the long causal row."""
    from cases import long_causal
    from contestant import Unsupported, failure
    from contestants import load

    ours, peers, _ = load(threads, None)
    contestant = next(one for one in [ours, *peers] if one.name == name)
    case = long_causal()
    small = replace(case, queries=256, keys=256)
    try:
        warm = contestant.recipes(small, "f32", small.operands("f32"))
        if way >= len(warm):
            return {"how": NO_SUCH_WAY, "growth": None}
        warm[way]().run()  # libraries loaded, threads started
        operands = case.operands("f32")
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_LIMIT, ADDRESS_LIMIT))
        candidate = contestant.recipes(case, "f32", operands)[way]()
        before = status_bytes("VmRSS")
        candidate.run()
    except Unsupported as error:
        return {"how": str(error), "growth": "not available"}
    except Exception as error:
        return {"how": failure(error), "growth": "failed"}
    output = operands["query"].nbytes
    grown = status_bytes("VmHWM") - before - output
    return {"how": candidate.how, "growth": f"{grown / MIB:.1f} MiB"}


def measure_memory(names: list[str], threads: int) -> list[dict[str, Any]]:
    """One line per contestant and way."""
    lines = []
    for name in names:
        way = 0
        while True:
            command = [sys.executable, __file__, name, str(way), str(threads)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode != 0:
                lines.append({"name": name, "how": "", "growth": f"died: {done.returncode}"})
                break
            line = json.loads(done.stdout.splitlines()[-1])
            if line["how"] == NO_SUCH_WAY:
                break
            lines.append({"name": name, **line})
            if line["growth"] == "not available":
                break
            way += 1
    return lines


if __name__ == "__main__":
    print(json.dumps(growth_of(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
