"""Compile the core with every g++ and clang++ on the search path: no errors, no warnings.

Runs the commands that CMake would run with each, so that the sources, the flags of each
instruction set and the warnings are the build's own.

    python tools/try_compilers.py [--only NAME] [--files PART] [--syntax]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = re.compile(r"(g|clang)\+\+(-\d+)?$")


def compilers() -> dict[str, Path]:
    """Name and path of each compiler; several names of one file count once."""
    found: dict[Path, str] = {}
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        names = sorted(path for path in Path(folder).glob("*++*") if NAME.match(path.name))
        for path in names:
            if os.access(path, os.X_OK):
                found.setdefault(path.resolve(), path.name)
    return {name: path for path, name in sorted(found.items(), key=lambda item: item[1])}


def commands(build: Path, compiler: Path) -> list[list[str]]:
    """The commands of a build by that compiler, without it and without output."""
    configure = ["cmake", "-S", ROOT, "-B", build, "-DNUMATTN_BUILD_PYTHON=OFF"]
    configure += [f"-DCMAKE_CXX_COMPILER={compiler}"]
    configure += ["-DNUMATTN_WERROR=ON", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"]
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    entries = json.loads((build / "compile_commands.json").read_text())
    found = []
    for entry in entries:
        words = shlex.split(entry["command"])[1:]
        output = words.index("-o")
        found.append(words[:output] + words[output + 2 :])
    return found


def main() -> int:
    """Report each compiler; 1 if one cannot compile a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="the compiler of that name alone, as clang++-16")
    parser.add_argument("--files", default="", help="files with this part in their names alone")
    parser.add_argument("--syntax", action="store_true", help="stop before code is generated")
    arguments = parser.parse_args()
    chosen = compilers()
    if arguments.only:
        chosen = {name: path for name, path in chosen.items() if name == arguments.only}
    if not chosen:
        print("no compiler found")
        return 1
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, path in chosen.items():
            every = commands(Path(scratch) / name, path)
            sources = [words for words in every if arguments.files in words[-1]]
            if not sources:
                print(f"no file with {arguments.files} in its name")
                return 1
            extra = ["-fsyntax-only"] if arguments.syntax else ["-o", os.devnull]

            def compile_one(
                words: list[str], command: tuple[str, ...] = (str(path), *extra)
            ) -> subprocess.CompletedProcess[str]:
                return subprocess.run([*command, *words], capture_output=True, text=True)

            results = list(pool.map(compile_one, sources))
            failed = [result for result in results if result.returncode != 0]
            for result in failed:
                print(f"{name}: {result.args[-1]}\n{result.stderr}")
            print(f"{name}: {len(sources) - len(failed)} of {len(sources)} files compile")
            wrong += len(failed)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
