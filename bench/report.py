"""Results of `compare.py` as markdown tables, and those over sequence length as a plot.

    python bench/report.py f32.json bf16.json two_threads.json --markdown table.md
    python bench/report.py sweep.json --plot sweep.png

Files of one CPU, ISA, thread count and set of versions are put together; a row that stands in two
of them is taken from the later one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

Result = dict[str, Any]  # what compare.py --json wrote
Row = dict[str, Any]

OURS = "numattn"
DASH = "–"
DTYPES = ("f32", "bf16", "f16")

# Colours that the colour-blind tell apart too (Okabe and Ito), and a marker each.
STYLES: dict[str, dict[str, Any]] = {
    OURS: {"color": "#d55e00", "marker": "o", "linewidth": 2.5, "zorder": 3},
    "PyTorch": {"color": "#0072b2", "marker": "s"},
    "ONNX Runtime": {"color": "#009e73", "marker": "^"},
    "OpenVINO": {"color": "#cc79a7", "marker": "D"},
}


def setting(result: Result, *, of_threads: bool = True) -> str:
    """What must be equal for two files to stand in one table; or in tables that compare threads."""
    names = ["cpu", "cores", "isa", "versions"] + ["threads"] * of_threads
    return json.dumps([peers_held(result), *(result[name] for name in names)])


def peers_held(result: Result) -> bool:
    """Whether the run held the peers to AVX2."""
    return "ONEDNN_MAX_CPU_ISA" in result["environment"]


def merged(results: list[Result]) -> list[Result]:
    """One result for each setting, with the rows of all its files and their days as `date`."""
    groups: dict[str, Result] = {}
    rows: dict[str, dict[tuple[str, str], Row]] = {}
    for result in results:
        key = setting(result)
        group = groups.setdefault(key, {**result, "date": "", "memory": []})
        days = {*group["date"].split(", "), result["date"][:10]} - {""}
        group["date"] = ", ".join(sorted(days))
        group["memory"] = result.get("memory", group["memory"])
        found = {(row["name"], row["dtype"]): row for row in result.get("rows", [])}
        rows.setdefault(key, {}).update(found)
    return [{**group, "rows": list(rows[key].values())} for key, group in groups.items()]


def of_dtype(rows: list[Row], dtype: str) -> list[Row]:
    return [row for row in rows if row["dtype"] == dtype]


def dtypes_of(rows: list[Row]) -> list[str]:
    return [dtype for dtype in DTYPES if of_dtype(rows, dtype)]


def threads_text(result: Result) -> str:
    return f"{result['threads']} thread{'s' * (result['threads'] > 1)}"


def figure(value: float | None) -> str:
    """Three significant digits, never in scientific notation."""
    if value is None:
        return DASH
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def error_text(entry: dict[str, Any] | None) -> str:
    return DASH if entry is None or entry["error"] is None else f"{entry['error']:.1e}"


def cell(name: str, entry: dict[str, Any]) -> str:
    if entry["seconds"] is not None:
        return figure(entry["rate"])
    return entry["status"] if name == OURS or entry["status"] != "not available" else DASH


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


def heading(result: Result) -> str:
    held = ", peers held to AVX2" if peers_held(result) else ""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"**{threads_text(result)}**, {result['cpu']}, ISA of numattn: {result['isa']}{held}, "
        f"{result['date']}",
        versions,
    ]
    lines += [f"{name} is left out: {why}" for name, why in result["missing"].items()]
    return "\n".join(lines)


def seconds_alone(result: Result, groups: list[Result]) -> dict[tuple[str, str], float]:
    """Our seconds with one thread for rows of a result with several: empty if nobody measured."""
    return {
        (row["name"], row["dtype"]): row["entries"][OURS]["seconds"]
        for group in groups
        if group["threads"] == 1 < result["threads"]
        and setting(group, of_threads=False) == setting(result, of_threads=False)
        for row in group["rows"]
        if row["entries"][OURS]["seconds"]
    }


def row_table(rows: list[Row], alone: dict[tuple[str, str], float]) -> str:
    """Rows of one dtype; `alone` adds how much faster several threads are than one."""
    names = list(dict.fromkeys(name for row in rows for name in row["entries"]))
    header = ["row", "unit", *names, "ratio", "our error", "best peer's error"]
    lines = []
    for row in rows:
        entries = row["entries"]
        line = [row["name"], row["unit"]]
        line += [cell(name, entries[name]) if name in entries else DASH for name in names]
        line.append(DASH if row["ratio"] is None else f"{row['ratio']:.2f}")
        line += [error_text(entries[OURS]), error_text(entries.get(row["best_peer"]))]
        if alone:
            one, ours = alone.get((row["name"], row["dtype"])), entries[OURS]["seconds"]
            line.append(f"{one / ours:.2f}" if one and ours else DASH)
        lines.append(line)
    return grid([*header, "× one thread"] if alone else header, lines, text_columns=2)


def notes(rows: list[Row]) -> list[str]:
    """Our kernels, which of a peer's several ways stands in the table, why a figure is missing."""
    said: dict[str, list[str]] = {}
    for row in rows:
        for name, entry in row["entries"].items():
            texts = []
            if entry["seconds"] is None:
                texts.append(f"{name}: {entry['status']}: {entry['reason']}")
            else:
                texts += [f"{name}: a way failed: {failure}" for failure in entry["failed"]]
                if name == OURS or len(entry["tried"]) > 1:
                    texts.append(f"{name}: {entry['how']}")
            for text in texts:
                said.setdefault(text, []).append(row["name"])
    every = len(rows)
    return [
        f"- {text} ({'every row' if len(where) == every else ', '.join(where)})"
        for text, where in said.items()
    ]


def memory_table(memory: list[dict[str, Any]]) -> str:
    lines = [[one["name"], one["how"], one["growth"]] for one in memory]
    return grid(["", "way", "growth of peak memory"], lines, text_columns=2)


def markdown(results: list[Result]) -> str:
    """For each setting its heading, and a table with notes for each dtype."""
    groups = merged(results)
    parts = []
    for group in groups:
        parts.append(heading(group))
        if group["memory"]:
            parts.append(memory_table(group["memory"]))
        alone = seconds_alone(group, groups)
        for kind in ("computing", "serving"):
            of_kind = [row for row in group["rows"] if row.get("group", "computing") == kind]
            for dtype in dtypes_of(of_kind):
                rows = of_dtype(of_kind, dtype)
                title = dtype if kind == "computing" else f"{kind}, {dtype}"
                parts += [f"**{title}**", row_table(rows, alone), "\n".join(notes(rows))]
    return "\n\n".join(part for part in parts if part)


def draw_panel(axis: Any, rows: list[Row]) -> None:
    """GFLOP/s over sequence length, one line per library."""
    for name, style in STYLES.items():
        points = sorted(
            (row["length"], row["entries"][name]["rate"])
            for row in rows
            if name in row["entries"] and row["entries"][name]["rate"] is not None
        )
        if points:
            look = {"linewidth": 1.3, "markersize": 4, "label": name, **style}
            axis.plot(*zip(*points, strict=True), **look)
    axis.set_xscale("log", base=2)
    axis.set_xticks(sorted({row["length"] for row in rows}))
    axis.xaxis.set_major_formatter("{x:.0f}")
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)


def plot(results: list[Result], path: Path) -> None:
    """A panel for each dtype, side by side, and a row of panels for each setting."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    swept = [
        (group, [row for row in group["rows"] if row["name"].startswith("sweep")])
        for group in merged(results)
    ]
    swept = [(group, rows) for group, rows in swept if rows]
    if not swept:
        raise SystemExit("no sweep in these files: run compare.py with --sweep")
    dtypes = dtypes_of([row for _, rows in swept for row in rows])
    # Ten inches at most: scaled to the width of a page, the letters stay readable.
    size = (max(5.0, 10 / 3 * len(dtypes)), 0.9 + 2.7 * len(swept))
    picture, axes = pyplot.subplots(
        len(swept), len(dtypes), figsize=size, squeeze=False, layout="constrained"
    )
    for panels, (group, rows) in zip(axes, swept, strict=True):
        for axis, dtype in zip(panels, dtypes, strict=True):
            draw_panel(axis, of_dtype(rows, dtype))
            axis.set_title(f"{dtype}, {group['isa']}, {threads_text(group)}", fontsize=10)
        panels[0].set_ylabel("GFLOP/s")
    for axis in axes[-1]:
        axis.set_xlabel("sequence length")
    lines = {drawn.get_label(): drawn for axis in axes.flat for drawn in axis.lines}
    picture.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines))
    described = sorted({f"{group['cpu']}, {group['date']}" for group, _ in swept})
    picture.suptitle(f"Attention, B1 H12 D64: {'; '.join(described)}", fontsize=11)
    picture.savefig(path, dpi=150)
    pyplot.close(picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+", help="what compare.py --json wrote")
    parser.add_argument("--markdown", type=Path, help="write the tables here, not to stdout")
    parser.add_argument("--plot", type=Path, help="write the plot of a --sweep here (PNG)")
    options = parser.parse_args()
    results = [json.loads(path.read_text()) for path in options.results]
    if options.plot is not None:
        plot(results, options.plot)
    if options.markdown is not None:
        options.markdown.write_text(markdown(results) + "\n")
    elif options.plot is None:
        print(markdown(results))


if __name__ == "__main__":
    main()
