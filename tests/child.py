"""Run a piece of Python in a process of its own, for what would harm or depend on this one."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap


def run_python(
    script: str, *arguments: str, prelude: str = "", timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Return the finished process. The library's own environment variables are not inherited."""
    inherited = {name: value for name, value in os.environ.items() if "NUMATTN" not in name}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(script), *arguments],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def output_of(
    script: str, *arguments: str, prelude: str = "", timeout: float = 120, **environment: str
) -> str:
    """Return what the script prints; it must end well."""
    process = run_python(script, *arguments, prelude=prelude, timeout=timeout, **environment)
    assert process.returncode == 0, f"exit {process.returncode}\n{process.stderr[-2000:]}"
    return process.stdout
