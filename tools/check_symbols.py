"""Check that files built for one instruction set export nothing but their table.

A weak symbol in such an object (a shared inline function, say) could be the copy that the linker
keeps for the whole library, and an older processor would die of it. Builds the kernels with the
compiler that CMake finds and reads the objects with ``nm``.

    python tools/check_symbols.py [build folder]
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "cpp" / "kernels"


def isa_flags(compiler: str) -> dict[str, list[str]]:
    """The flags of each instruction set that CMakeLists.txt builds for what the compiler does."""
    command = [compiler, "-dumpmachine"]
    target = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    is_arm = target.startswith(("aarch64", "arm64"))
    text = (ROOT / "CMakeLists.txt").read_text()
    flags = dict(re.findall(r"set\(NUMATTN_ISA_FLAGS_(\w+) ([^)]*)\)", text))
    return {
        name: value.split()
        for name, value in flags.items()
        if name == "scalar" or name.startswith("neon") == is_arm
    }


def exported_symbols(object_file: Path) -> list[tuple[str, str]]:
    """(type, name) of every symbol that other objects could see."""
    command = ["nm", "--demangle", "--defined-only", object_file]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    symbols = [line.split(maxsplit=2)[1:] for line in listing.splitlines()]
    return [(kind, name) for kind, name in symbols if kind.isupper() or kind in "uvw"]


def main() -> int:
    """Compile each file as the build does and compare its symbols with the one that it may have."""
    compiler = os.environ.get("CXX", "c++")
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, flags in isa_flags(compiler).items():
            target = Path(folder) / f"{name}.o"
            command = [compiler, "-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-math-errno"]
            command += [*flags, f"-I{ROOT / 'cpp' / 'include'}", f"-I{KERNELS}"]
            subprocess.run([*command, "-c", KERNELS / f"isa_{name}.cpp", "-o", target], check=True)
            symbols = exported_symbols(target)
            if symbols != [("T", f"numattn::kernels_{name}()")]:
                print(f"isa_{name}.cpp exports more than its table: {symbols}")
                wrong += 1
    if not wrong:
        print("each instruction set's object exports its table alone")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
