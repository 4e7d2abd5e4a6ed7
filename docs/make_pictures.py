"""Draw the pictures of docs/how-it-works.md into docs/: plain SVG, standard library alone.

Run it with: python docs/make_pictures.py
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

DOCS = Path(__file__).resolve().parent
INK, FAINT, GROUND = "#1b2330", "#7d8798", "#ffffff"
QUERY, KEY, SCORE, VALUE, OUTPUT = "#a3cbe6", "#f3c98b", "#d7e3c0", "#e2bcd8", "#7fa7d0"
HIDDEN, PARTIAL, WHOLE = "#f4f5f7", "#a3cbe6", "#559fcd"


class Drawing:
    """Shapes with sizes in pixels, from the upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.parts: list[str] = []

    def box(
        self, x: float, y: float, width: float, height: float, fill: str, text: str = ""
    ) -> None:
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}" '
            f'stroke="{INK}" stroke-width="0.8"/>'
        )
        if text:
            self.text(x + width / 2, y + height / 2 + 4.5, text, middle=True)

    def grid(self, x: float, y: float, columns: int, rows: int, cell: float) -> None:
        for column in range(1, columns):
            self.line(x + column * cell, y, x + column * cell, y + rows * cell, faint=True)
        for row in range(1, rows):
            self.line(x, y + row * cell, x + columns * cell, y + row * cell, faint=True)

    def text(
        self, x: float, y: float, text: str, *, middle: bool = False, faint: bool = False
    ) -> None:
        anchor, colour = ("middle" if middle else "start"), (FAINT if faint else INK)
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}">'
            f"{escape(text)}</text>"
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, *, faint: bool = False) -> None:
        colour, width = (FAINT, 0.4) if faint else (INK, 1.2)
        self.parts.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}" '
            f'stroke-width="{width}"/>'
        )

    def arrow(self, x1: float, y1: float, x2: float, y2: float) -> None:
        self.parts.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{INK}" '
            'stroke-width="1.2" marker-end="url(#head)"/>'
        )

    def svg(self) -> str:
        head = (
            '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="{INK}"/></marker>'
        )
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" '
                f'height="{self.height}" viewBox="0 0 {self.width} {self.height}" '
                'font-family="DejaVu Sans, Helvetica, sans-serif" font-size="13">',
                f"<defs>{head}</defs>",
                f'<rect width="100%" height="100%" fill="{GROUND}"/>',
                *self.parts,
                "</svg>\n",
            ]
        )


def attend() -> Drawing:
    """One lane group against one tile of keys: two products of one shape, softmax between."""
    page = Drawing(900, 300)
    cell = 14
    page.text(40, 30, "keys")
    page.box(40, 44, 6 * cell, 12 * cell, KEY)
    page.grid(40, 44, 6, 12, cell)
    page.box(40, 44 + 2 * cell, 6 * cell, 4 * cell, "none")
    page.text(40, 232, "a row = a key, D wide,", faint=True)
    page.text(40, 250, "read where it lies", faint=True)

    page.text(180, 30, "queries, transposed once")
    page.box(180, 44, 9 * cell, 6 * cell, QUERY)
    page.grid(180, 44, 9, 6, cell)
    page.text(180, 148, "a column = a query (lane),", faint=True)
    page.text(180, 166, "times scale · log₂ e", faint=True)

    page.arrow(318, 120, 368, 120)
    page.text(322, 108, "× add")

    page.text(380, 30, "scores → weights")
    page.box(380, 44, 9 * cell, 12 * cell, SCORE)
    page.grid(380, 44, 9, 12, cell)
    page.box(380, 44 + 2 * cell, 9 * cell, 4 * cell, "none")
    page.text(380, 232, "one register tile framed:", faint=True)
    page.text(380, 250, "keys down, queries across;", faint=True)
    page.text(380, 268, "maxima, 2^x and sums run", faint=True)
    page.text(380, 286, "down the columns", faint=True)

    page.arrow(518, 120, 568, 120)
    page.text(522, 108, "× add")

    page.text(580, 30, "values")
    page.box(580, 44, 5 * cell, 12 * cell, VALUE)
    page.grid(580, 44, 5, 12, cell)
    page.text(580, 232, "a row = a value, Dv wide,", faint=True)
    page.text(580, 250, "read where it lies", faint=True)

    page.arrow(660, 120, 710, 120)
    page.text(722, 30, "outputs, transposed")
    page.box(722, 44, 9 * cell, 5 * cell, OUTPUT)
    page.grid(722, 44, 9, 5, cell)
    page.text(722, 136, "O′ = α·O + this tile's sum", faint=True)
    page.text(722, 154, "turned back when written", faint=True)
    return page


def span_of(row: int, left: int, keys: int) -> tuple[int, int]:
    return max(0, row - left), min(keys, row + 1)


def spans() -> Drawing:
    """Which tiles of a causal window are computed, and which of them look at each row's span."""
    page = Drawing(760, 330)
    cell, rows, keys, left, tile_rows, tile_keys = 10, 24, 24, 15, 6, 4
    page.text(40, 26, "keys →")
    for top in range(0, rows, tile_rows):
        for first in range(0, keys, tile_keys):
            seen = [span_of(row, left, keys) for row in range(top, top + tile_rows)]
            cells = range(first, first + tile_keys)
            visible = [low <= key < high for low, high in seen for key in cells]
            fill = WHOLE if all(visible) else PARTIAL if any(visible) else HIDDEN
            page.box(40 + first * cell, 36 + top * cell, tile_keys * cell, tile_rows * cell, fill)
    for row in range(rows):
        low, high = span_of(row, left, keys)
        y = 36 + row * cell + cell / 2
        page.line(40 + low * cell + 1, y, 40 + high * cell - 1, y)
    page.text(40, 36 + rows * cell + 20, "rows of queries ↓, one line = one row's span", faint=True)
    notes = [
        (WHOLE, "seen by every row of the group: nothing is tested"),
        (PARTIAL, "seen in part: −∞ is put where a row's span ends"),
        (HIDDEN, "outside every row's span: keys and values are not read"),
    ]
    for index, (fill, text) in enumerate(notes):
        page.box(320, 60 + 40 * index, 26, 20, fill)
        page.text(358, 75 + 40 * index, text)
    page.text(
        320, 200, "causal with window (15, 0), drawn with 6 rows × 4 keys a tile;", faint=True
    )
    page.text(320, 218, "in truth a lane group has 48, 16 or 8 rows and a tile", faint=True)
    page.text(320, 236, "192 or 96 keys, cut to what the group sees of it", faint=True)
    return page


def decode() -> Drawing:
    """Few rows over many keys: splits of the keys, each with a state, combined in order."""
    page = Drawing(820, 250)
    page.text(40, 30, "keys and values of one key head, streamed once for all its query heads")
    names = ["keys 0 … 1151", "1152 … 2303", "2304 … 3455", "3456 … end"]
    for index, name in enumerate(names):
        x = 40 + 185 * index
        page.box(x, 44, 180, 36, KEY, name)
        page.arrow(x + 90, 82, x + 90, 106)
        page.box(x + 30, 110, 120, 30, SCORE, "m, l, O")
        page.arrow(x + 90, 142, 400, 176)
    page.box(300, 180, 210, 32, OUTPUT, "m = max,  O = Σ 2^(mₛ−m)·Oₛ")
    page.text(530, 200, "in order of the splits, by whichever thread", faint=True)
    page.text(
        40,
        236,
        "The splits follow from the shapes: one thread or thirty, the same bits.",
        faint=True,
    )
    return page


def projection() -> Drawing:
    """A weight in panels of 48 features; every instruction set reads them in its own steps."""
    page = Drawing(820, 250)
    page.text(40, 30, "weight (features, depth)")
    for index in range(4):
        page.box(40, 44 + 36 * index, 150, 34, KEY, f"48 features · {index}")
    page.arrow(200, 116, 250, 116)
    page.text(260, 30, "packed once: panel[k][48]")
    for index in range(4):
        page.box(260 + 62 * index, 44, 56, 142, KEY, f"{index}")
    page.text(260, 208, "depth ↓, in slices of 512", faint=True)
    page.arrow(516, 116, 566, 116)
    page.text(576, 30, "columns of a panel in one step")
    for index, (name, width) in enumerate([("avx512", 48), ("avx2", 16), ("scalar", 8)]):
        y = 48 + 46 * index
        for at in range(0, 48, width):
            page.box(576 + 3 * at, y, 3 * width, 28, QUERY)
        page.text(730, y + 19, f"{name}: {width}")
    page.text(576, 208, "one packed copy serves them all", faint=True)
    return page


def pictures() -> Iterator[tuple[str, Drawing]]:
    for make in (attend, spans, decode, projection):
        yield f"{make.__name__}.svg", make()


def main() -> None:
    for name, drawing in pictures():
        (DOCS / name).write_text(drawing.svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
