"""`numattn bench`: how fast this machine computes, in a minute and a table."""

from __future__ import annotations

import argparse
import json
import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from .arguments import positive
from .progress import add_quiet, progress_bar
from .table import columns

if TYPE_CHECKING:
    from .arguments import Commands
    from .bench_rows import Row
    from .stopwatch import Timing


class Measured(NamedTuple):
    """A row and what came of it."""

    row: Row
    own: Timing
    peer: Timing | None


def add_parser(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "bench",
        help="how fast this machine computes",
        description="Measure attention, a decoder's step over its cache, projections and, if "
        "all-MiniLM-L6-v2 is installed, texts to vectors; print medians, and in percent how far "
        "half of the calls were from them. NumPy alone is needed, and ml_dtypes for bfloat16.",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="upper limit of threads")
    parser.add_argument(
        "--seconds",
        type=duration,
        default=60.0,
        metavar="N",
        help="how long all rows take together, about (default: %(default)g)",
    )
    parser.add_argument(
        "--peers",
        action="store_true",
        help="measure PyTorch's scaled_dot_product_attention too, in turns with ours",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object instead")
    add_quiet(parser)
    parser.set_defaults(run=run)


def duration(text: str) -> float:
    """Return a number of seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text!r}")
    return value


def run(arguments: argparse.Namespace) -> None:
    """Measure, and print what came of it."""
    import numattn as na

    if arguments.threads is not None:
        na.set_num_threads(arguments.threads)
    # The tokenizer's own threads; it reads this when it is first used.
    os.environ["RAYON_NUM_THREADS"] = str(na.get_num_threads())
    if arguments.peers:
        prepare_peers(na.get_num_threads())
    measured, left_out = measure(arguments)
    facts = facts_of_machine()
    if arguments.json:
        rows = [as_object(each) for each in measured]
        print(json.dumps({**facts, "rows": rows, "left_out": left_out}, ensure_ascii=False))
        return
    cores = "" if facts["cores"] is None else f"{facts['cores']} cores, "
    print(f"numattn {facts['numattn']}, NumPy {facts['numpy']}")
    print(
        f"{facts['processor']}: {cores}{facts['processor_threads']} threads, of which this process "
        f"may use {facts['usable_threads']}"
    )
    print(f"instruction set {facts['instruction_set']}, threads {facts['threads']}\n")
    print("\n".join(table(measured, arguments.peers)))
    for each in left_out:
        print(f"left out: {each['name']}, {each['dtype']}: {each['reason']}")


def prepare_peers(threads: int) -> None:
    """Hold PyTorch to the same threads.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import torch
    except ImportError:
        raise ImportError("--peers needs PyTorch: pip install torch") from None
    torch.set_num_threads(threads)


def measure(arguments: argparse.Namespace) -> tuple[list[Measured], list[dict[str, str]]]:
    """Return what was measured, and what was left out and why."""
    from .bench_rows import rows
    from .stopwatch import timings

    measured: list[Measured] = []
    left_out: list[dict[str, str]] = []
    todo = rows()
    with progress_bar(arguments, len(todo), "row") as advance:
        for row in todo:
            try:
                calls = [row.prepare()]
            except (ImportError, FileNotFoundError) as error:
                left_out.append({"name": row.name, "dtype": row.dtype, "reason": str(error)})
            else:
                if arguments.peers and row.prepare_peer is not None:
                    calls.append(row.prepare_peer())
                own, *peers = timings(calls, arguments.seconds / len(todo))
                measured.append(Measured(row, own, peers[0] if peers else None))
            advance(1)
    return measured, left_out


def facts_of_machine() -> dict[str, Any]:
    """Return what the numbers depend on."""
    import numpy as np

    import numattn as na

    from .processor import read_processor

    processor = read_processor()
    return {
        "numattn": na.__version__,
        "numpy": np.__version__,
        "processor": processor.name,
        "cores": processor.cores,
        "processor_threads": processor.threads,
        "usable_threads": processor.usable,
        "instruction_set": na.isa.current(),
        "threads": na.get_num_threads(),
    }


def as_object(measured: Measured) -> dict[str, Any]:
    """Return a row as JSON has it: rates in its unit, times in seconds."""
    row = measured.row
    found: dict[str, Any] = {"name": row.name, "dtype": row.dtype, "unit": row.unit}
    for name, timing in (("numattn", measured.own), ("torch", measured.peer)):
        if timing is not None:
            found[name] = {
                "rate": row.rate(timing.seconds),
                "seconds": timing.seconds,
                "quartiles": timing.quartiles,
                "calls": timing.calls,
            }
    return found


def table(measured: list[Measured], peers: bool) -> list[str]:
    """Return the lines of the table: words to the left, numbers to the right."""
    lines = [["", "", "unit", "numattn", "±"] + (["PyTorch", "±"] if peers else [])]
    for each in measured:
        line = [each.row.name, each.row.dtype, each.row.unit]
        for timing in (each.own, each.peer) if peers else (each.own,):
            if timing is None:
                line += ["", ""]
            else:
                line += [f"{each.row.rate(timing.seconds):.1f}", f"{100 * timing.spread:.0f} %"]
        lines.append(line)
    widths = [max(columns(cell) for cell in column) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell + " " * (width - columns(cell)) if place < 3 else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
