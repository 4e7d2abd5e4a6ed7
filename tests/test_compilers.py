"""Every compiler that is there compiles the file that one of them once crashed on (clang 16)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "tools" / "try_compilers.py"

if not TOOL.is_file() or os.uname().machine != "x86_64":
    pytest.skip("needs the sources, and x86-64's instruction sets", allow_module_level=True)

sys.path.insert(0, str(TOOL.parent))
from try_compilers import compilers  # noqa: E402

# Beside the one of the build, which has compiled everything.
OTHERS = [name for name in compilers() if name.startswith("clang")]


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_it_compiles_the_kernels_of_bfloat16(name: str) -> None:
    run = subprocess.run(
        [sys.executable, TOOL, "--only", name, "--files", "isa_avx512bf16"],
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 of 1 files compile" in run.stdout
