"""numattn beside PyTorch, ONNX Runtime and OpenVINO: one process, A B A B …, medians.

    python bench/compare.py --threads 1 --dtype f32,bf16 --rows S2048 --json out.json

Prints a table for each dtype; `--json` keeps everything that is behind it. README.md says how to
read it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cases import Case
    from contestant import Contestant
    from ours import Numattn
    from rows import Row
    from serving import ServingCase

AVX2_ENVIRONMENT = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--isa", help="hold numattn to this ISA; avx2 holds the peers to it too")
    parser.add_argument("--dtype", type=comma_list, default=["f32", "bf16"], help="f32,bf16,f16")
    parser.add_argument("--rows", type=comma_list, default=[""], help="parts of rows' names")
    parser.add_argument("--json", type=Path, help="write all results here")
    parser.add_argument("--repeats", type=int, default=5, help="least turns of each contestant")
    parser.add_argument("--min-time", type=float, default=0.3, help="least seconds of each")
    parser.add_argument("--sweep", action="store_true", help="rows over sequence length instead")
    parser.add_argument("--memory", action="store_true", help="memory of one long call instead")
    options = parser.parse_args(arguments)
    unknown = set(options.dtype) - {"f32", "bf16", "f16"}
    if unknown:
        parser.error(f"unknown dtype {', '.join(sorted(unknown))}: choose from f32, bf16, f16")
    return options


def comma_list(text: str) -> list[str]:
    return text.split(",")


def hold_environment(threads: int, isa: str | None) -> dict[str, str]:
    """Set what the libraries read when they are imported: so this comes before any import."""
    held = dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)
    )
    if isa is not None:
        held["NUMATTN_ISA"] = isa
    if isa == "avx2":
        held |= AVX2_ENVIRONMENT
    # Its cache knows no ISA: code compiled for AVX-512 would be run under AVX2, with wrong results.
    held["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    os.environ.update(held)
    return held


def chosen(cases: Sequence[Case | ServingCase], parts: list[str]) -> list[Case | ServingCase]:
    rows = [case for case in cases if any(part in case.name for part in parts)]
    if not rows:
        raise SystemExit("no such row; there are: " + "; ".join(case.name for case in cases))
    return rows


def describe_run(
    options: argparse.Namespace,
    held: dict[str, str],
    ours: Numattn,
    peers: list[Contestant],
    missing: dict[str, str],
) -> dict[str, Any]:
    from contestants import cpu_information

    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu_information("model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "isa": ours.isa(),
        "threads": options.threads,
        "versions": {one.name: one.version for one in [ours, *peers]},
        "missing": missing,
        "environment": held,
        "repeats": options.repeats,
        "min_time": options.min_time,
    }


def compare(options: argparse.Namespace, ours: Numattn, peers: list[Contestant]) -> list[Row]:
    from cases import sweep, table
    from rows import Effort, measure_row
    from serving import serving

    effort = Effort(options.repeats, options.min_time, rest=options.threads > 1)
    rows = []
    for case in chosen(sweep() if options.sweep else [*table(), *serving()], options.rows):
        for dtype in options.dtype:
            if dtype in case.dtypes:
                print(f"{case.name}, {dtype} ...", file=sys.stderr, flush=True)
                rows.append(measure_row(case, dtype, ours, peers, effort))
    if not rows:
        raise SystemExit(f"none of these rows is measured in {', '.join(options.dtype)}")
    return rows


def main() -> None:
    options = parse()
    held = hold_environment(options.threads, options.isa)
    from contestants import load

    ours, peers, missing = load(options.threads, options.isa)
    result = describe_run(options, held, ours, peers, missing)
    if options.memory:
        from memory import measure_memory

        result["memory"] = measure_memory([one.name for one in [ours, *peers]], options.threads)
    else:
        result["rows"] = [asdict(row) for row in compare(options, ours, peers)]

    from report import markdown

    print(markdown([result]))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
