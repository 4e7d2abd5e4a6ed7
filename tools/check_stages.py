"""Check what the compiler made of the pipeline's stages (cpp/kernels/pipeline.h).

Products of tiles hide behind the softmax, and it behind them, only while a row stays short and its
constants stay in registers. Builds the kernels of AMX with the compiler that CMake finds and reads
the object with ``objdump``: no vector register may be spilled, and a row of 64 scores may take so
many vector instructions.

    python tools/check_stages.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from check_symbols import KERNELS, ROOT, isa_flags

# Rows that a stage has code for: one behind each product of a step, and one behind the last.
ROWS = 5

# Vector instructions of a row, moves among registers included, by parts of SoftRows and number of
# their Exactness. g++ 12: 53, 66, 90 and 83, with what goes before the first row.
MOST = {("1", "0"): 54, ("1", "1"): 67, ("1", "2"): 91, ("2", "1"): 85}


def functions(object_file: Path) -> dict[str, list[str]]:
    """The instructions of each function, by its name."""
    command = ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", object_file]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, list[str]] = {}
    code: list[str] = []
    for line in listing.splitlines():
        heading = re.fullmatch(r"[0-9a-f]+ <(.*)>:", line)
        if heading:
            code = found.setdefault(heading.group(1), [])
        elif "\t" in line:
            code.append(line.split("\t", 1)[1].strip())
    return found


def main() -> int:
    """Compile the kernels of AMX as the build does and look at each stage."""
    compiler = os.environ.get("CXX", "c++")
    flags = isa_flags(compiler)
    if "amx" not in flags:
        print("the compiler builds no kernels of AMX")
        return 0
    wrong = stages = 0
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "amx.o"
        command = [compiler, "-std=c++17", "-fPIC", "-fno-math-errno", "-ffp-contract=off"]
        command += [*flags["amx"], f"-I{ROOT / 'cpp' / 'include'}", f"-I{KERNELS}"]
        subprocess.run([*command, "-c", KERNELS / "isa_amx.cpp", "-o", target], check=True)
        for name, code in functions(target).items():
            kind = re.search(r"do_stage<.*SoftRows<(\d), .*?Exactness\)(\d), (true|false)>", name)
            if not kind:
                continue
            stages += 1
            spilled = [line for line in code if "zmm" in line and re.search(r"\(%r[sb]p", line)]
            a_row = sum(line.startswith("v") for line in code) / ROWS
            print(f"SoftRows<{', '.join(kind.groups())}>: {a_row:.1f} vector instructions a row")
            if spilled or a_row > MOST[kind.group(1), kind.group(2)]:
                print(f"    too many, or spilled: {spilled[:3]}")
                wrong += 1
    if stages != 2 * len(MOST):
        print(f"{stages} stages found, not {2 * len(MOST)}")
        wrong += 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
