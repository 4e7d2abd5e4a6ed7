"""Draw the pictures of the pages in docs/ into docs/: plain SVG, standard library alone.

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

    def cells(
        self,
        x: float,
        y: float,
        columns: int,
        rows: int,
        fill: str,
        *,
        width: float = 20,
        height: float = 12,
        pairs: bool,
    ) -> None:
        """A matrix of 32-bit cells: pairs, each drawn as its two halves, or float32."""
        self.box(x, y, columns * width, rows * height, fill)
        for column in range(columns):
            left = x + column * width
            self.line(left, y, left, y + rows * height, width=0.6)
            if pairs:
                self.line(left + width / 2, y, left + width / 2, y + rows * height, faint=True)
        for row in range(1, rows):
            self.line(x, y + row * height, x + columns * width, y + row * height, faint=True)

    def line(
        self, x1: float, y1: float, x2: float, y2: float, *, faint: bool = False, width: float = 1.2
    ) -> None:
        colour, width = (FAINT, 0.4) if faint else (INK, width)
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


def pairs() -> Drawing:
    """A pair, the operands made of pairs, and the two units that multiply them."""
    page = Drawing(900, 712)
    draw_pair_product(page)
    draw_pair_operands(page, top=170)
    draw_vector_unit(page, left=40, top=448)
    draw_tile_unit(page, left=480, top=448)
    return page


def draw_pair_product(page: Drawing) -> None:
    """What a lane does with two pairs."""
    page.text(40, 26, "a pair = two bfloat16 in 32 bits, neighbours in depth")
    page.box(40, 44, 40, 26, KEY, "k₀")
    page.box(80, 44, 40, 26, KEY, "k₁")
    page.text(40, 90, "a: the same pair", faint=True)
    page.text(40, 108, "in every lane", faint=True)
    page.arrow(128, 57, 172, 57)
    for lane in range(4):
        x = 180 + 156 * lane
        page.box(x, 44, 78, 26, QUERY, "q₀")
        page.box(x + 78, 44, 78, 26, QUERY, "q₁")
        page.box(x, 80, 156, 26, SCORE, "s += k₀·q₀ + k₁·q₁")
    page.text(816, 62, "… 16 lanes")
    page.text(180, 126, "b: a query in each lane;  s: a float32 sum in each lane", faint=True)


def draw_pair_operands(page: Drawing, top: float) -> None:
    """Both products of attention with their operands as they lie."""
    y = top + 20
    page.text(40, top, "keys")
    page.cells(40, y, 4, 12, KEY, pairs=True)
    captions = ["a row = a key,", "read where it lies:", "its pairs are there"]
    draw_caption(page, 40, y + 170, captions)

    page.text(184, top, "queries")
    page.cells(184, y, 5, 4, QUERY, pairs=True)
    draw_caption(page, 184, y + 170, ["[d/2][lane],", "packed once", "a block"])

    page.arrow(294, y + 72, 322, y + 72)
    page.text(332, top, "scores")
    page.cells(332, y, 5, 12, SCORE, pairs=False)
    draw_caption(page, 332, y + 170, ["[key][lane],", "float32"])

    page.arrow(440, y + 72, 468, y + 72)
    page.text(478, top, "weights")
    page.cells(478, y, 5, 6, SCORE, pairs=True)
    draw_caption(page, 478, y + 170, ["[key/2][lane],", "written over", "the scores"])

    page.text(608, top, "values, transposed")
    page.cells(608, y, 6, 5, VALUE, pairs=True)
    draw_caption(page, 608, y + 170, ["[d][key], a tile", "for all the block's", "lane groups"])

    page.arrow(738, y + 30, 762, y + 30)
    page.text(772, top, "outputs")
    page.cells(772, y, 5, 5, OUTPUT, pairs=False)
    draw_caption(page, 772, y + 170, ["[d][lane], float32;", "scaled by α when", "a peak jumps"])


def draw_caption(page: Drawing, x: float, y: float, lines: list[str]) -> None:
    for index, line in enumerate(lines):
        page.text(x, y + 18 * index, line, faint=True)


def draw_vector_unit(page: Drawing, left: float, top: float) -> None:
    """The register tile of AVX512-BF16."""
    page.text(left, top, "AVX512-BF16: vdpbf16ps")
    x, y, width, height = left + 50, top + 54, 96, 18
    for vector in range(3):
        page.box(x + vector * width, y - 30, width, height, QUERY, f"b · {vector}")
    for row in range(8):
        page.box(left, y + row * height, 36, height, KEY)
        page.line(left + 18, y + row * height, left + 18, y + (row + 1) * height, faint=True)
        for vector in range(3):
            page.box(x + vector * width, y + row * height, width, height, SCORE)
    lines = [
        "8 × 3 registers of sums, 3 of b, 1 of a in turn;",
        "a step is 2 elements deep",
    ]
    draw_caption(page, left, y + 8 * height + 24, lines)


def draw_tile_unit(page: Drawing, left: float, top: float) -> None:
    """The tiles of AMX, and in which order they pass over 64 rows × 48 lanes."""
    page.text(left, top, "AMX: tdpbf16ps, eight tiles")
    x, y, width, height = left + 50, top + 54, 64, 36
    for column, tile in enumerate([6, 7, 6]):
        page.box(x + column * width, y - 30, width, 18, QUERY, f"{tile}")
    for row in range(4):
        page.box(left, y + row * height, 36, height, KEY, f"{4 + row % 2}")
        for column in range(3):
            shade = HIDDEN if column == 2 else WHOLE if row < 2 else PARTIAL
            tile = row if column == 2 else row % 2 * 2 + column
            page.box(x + column * width, y + row * height, width, height, shade, f"{tile}")
    for index, (shade, text) in enumerate([(WHOLE, "first"), (PARTIAL, "then"), (HIDDEN, "last")]):
        page.box(x + 3 * width + 24, y + 46 * index, 22, 18, shade)
        page.text(x + 3 * width + 54, y + 46 * index + 14, text)
    lines = [
        "sums in tiles 0 – 3, of 16 rows × 16 lanes each;",
        "a step is 32 elements deep: a is 16 rows × 32,",
        "b is 16 pairs × 16 lanes",
    ]
    draw_caption(page, left, y + 4 * height + 24, lines)


def pictures() -> Iterator[tuple[str, Drawing]]:
    for make in (attend, spans, decode, projection, pairs):
        yield f"{make.__name__}.svg", make()


def main() -> None:
    for name, drawing in pictures():
        (DOCS / name).write_text(drawing.svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
