"""Results of `compare.py` as a markdown table, and a sweep's as a plot.

python bench/report.py out.json [--markdown table.md] [--plot sweep.png]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

OURS = "numattn"
DASH = "–"


def figure(value: float | None) -> str:
    """Three significant digits, never in scientific notation."""
    if value is None:
        return DASH
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def error_text(entry: dict[str, Any] | None) -> str:
    return DASH if entry is None or entry["error"] is None else f"{entry['error']:.1e}"


def cell(entry: dict[str, Any]) -> str:
    if entry["seconds"] is None:
        return entry["status"] if entry["status"] != "not available" else DASH
    return figure(entry["rate"])


def names_of(rows: list[dict[str, Any]]) -> list[str]:
    return list(rows[0]["entries"]) if rows else []


def grid(header: list[str], lines: list[list[str]], text_columns: int) -> str:
    """A markdown table, padded so that it also reads well as plain text."""
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]

    def join(line: list[str]) -> str:
        cells = [
            text.ljust(width) if i < text_columns else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "| " + " | ".join(cells) + " |"

    rule = [
        "-" * width if i < text_columns else "-" * (width - 1) + ":"
        for i, width in enumerate(widths)
    ]
    return "\n".join([join(header), join(rule), *map(join, lines)])


def heading(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"{result['date']}, {result['cpu']}, {result['threads']} thread(s), "
        f"ISA of numattn: {result['isa']}",
        versions,
    ]
    lines += [f"{name} is left out: {why}" for name, why in result["missing"].items()]
    return "\n".join(lines)


def row_table(rows: list[dict[str, Any]]) -> str:
    names = names_of(rows)
    header = ["row", "dtype", "unit", *names, "ratio", "our error", "best peer's error"]
    lines = []
    for row in rows:
        entries, best = row["entries"], row["best_peer"]
        ours = entries.get(OURS)
        first = [row["name"], row["dtype"], row["unit"]]
        cells = [cell(entries[name]) for name in names]
        if ours is not None and ours["status"] == "not available":
            cells[names.index(OURS)] = "not available"
        ratio = DASH if row["ratio"] is None else f"{row['ratio']:.2f}"
        errors = [error_text(ours), error_text(entries.get(best))]
        lines.append([*first, *cells, ratio, *errors])
    return grid(header, lines, text_columns=3)


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """Why a figure is missing, and which of a peer's several ways stands in the table."""
    said: dict[str, list[str]] = {}
    for row in rows:
        for name, entry in row["entries"].items():
            texts = []
            if entry["seconds"] is None:
                texts.append(f"{name}: {entry['status']}: {entry['reason']}")
            else:
                texts += [f"{name}: a way failed: {failure}" for failure in entry["failed"]]
                if len(entry["tried"]) > 1:
                    texts.append(f"{name}: {entry['how']}")
            for text in texts:
                said.setdefault(text, []).append(f"{row['name']} {row['dtype']}")
    every = len(rows)
    return [
        f"{text} ({'every row' if len(where) == every else ', '.join(where)})"
        for text, where in said.items()
    ]


def memory_table(memory: list[dict[str, Any]]) -> str:
    lines = [[one["name"], one["how"], one["growth"]] for one in memory]
    return grid(["", "way", "growth of peak memory"], lines, text_columns=2)


def markdown(result: dict[str, Any]) -> str:
    parts = [heading(result)]
    if "memory" in result:
        parts.append(memory_table(result["memory"]))
    if "rows" in result:
        parts.append(row_table(result["rows"]))
        parts.append("\n".join(f"- {note}" for note in notes(result["rows"])))
    return "\n\n".join(part for part in parts if part)


def plot(result: dict[str, Any], path: Path) -> None:
    """GFLOP/s over sequence length, one panel per dtype, one line per library."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in result["rows"] if row["name"].startswith("sweep")]
    if not rows:
        raise SystemExit("no sweep in this file: run compare.py with --sweep")
    dtypes = sorted({row["dtype"] for row in rows}, key=["f32", "bf16", "f16"].index)
    figure_, axes = pyplot.subplots(
        1, len(dtypes), figsize=(5.5 * len(dtypes), 4), squeeze=False, layout="constrained"
    )
    for axis, dtype in zip(axes[0], dtypes, strict=True):
        for name in names_of(rows):
            points = [
                (row["length"], row["entries"][name]["rate"])
                for row in rows
                if row["dtype"] == dtype and row["entries"][name]["rate"] is not None
            ]
            if points:
                style = {"linewidth": 2.5, "zorder": 3} if name == OURS else {"linewidth": 1.2}
                axis.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name, **style)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.set_ylim(bottom=0)
        axis.set_title(f"{dtype}, {result['threads']} thread(s)")
        axis.set_xlabel("sequence length")
        axis.set_ylabel("GFLOP/s")
        axis.grid(alpha=0.3)
        axis.legend()
    figure_.suptitle(f"Attention, B1 H12 D64, {result['cpu']}, ISA {result['isa']}", fontsize=10)
    figure_.savefig(path, dpi=120)
    pyplot.close(figure_)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="what compare.py --json wrote")
    parser.add_argument("--markdown", type=Path, help="write the table here, not to stdout")
    parser.add_argument("--plot", type=Path, help="write the plot of a --sweep here (PNG)")
    options = parser.parse_args()
    result = json.loads(options.results.read_text())
    if options.plot is not None:
        plot(result, options.plot)
    if options.markdown is not None:
        options.markdown.write_text(markdown(result) + "\n")
    elif options.plot is None:
        print(markdown(result))


if __name__ == "__main__":
    main()
