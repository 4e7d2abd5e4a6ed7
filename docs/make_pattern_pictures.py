"""Draw the picture of patterns.md into docs/: plain SVG, standard library alone.

Run it with: python docs/make_pattern_pictures.py
"""

from __future__ import annotations

from collections.abc import Callable

from make_pictures import DOCS, HIDDEN, PARTIAL, WHOLE, Drawing

# Which of TOKENS tokens sees which, and below it the width of what stands for a block of 64.
TOKENS, TOKEN_BLOCK = 24, 4
DRAWN = frozenset({(1, 4), (2, 0), (3, 1), (4, 2)})
PARENTS = (-1, 0, 0, 1, 1, 2, 3, 5)


def in_tree(i: int, j: int) -> bool:
    """Whether guess i has the ancestor j, behind a prefix."""
    prefix = TOKENS - len(PARENTS)
    while i >= 0 and i != j - prefix:
        i = PARENTS[i]
    return j < prefix or i >= 0


def by_blocks(i: int, j: int) -> bool:
    own, other, last = i // TOKEN_BLOCK, j // TOKEN_BLOCK, TOKENS // TOKEN_BLOCK - 1
    ends = own in (0, last) or other in (0, last)
    return ends or abs(own - other) <= 1 or (own, other) in DRAWN


PATTERNS: dict[str, tuple[int, Callable[[int, int], bool]]] = {
    "longformer": (TOKENS, lambda i, j: abs(i - j) <= 3 or 0 in (i, j)),
    "bigbird": (TOKENS, by_blocks),
    "strided, causal": (TOKENS, lambda i, j: j <= i and (i - j < 6 or (i - j) % 6 == 0)),
    "dilated": (TOKENS, lambda i, j: abs(i - j) <= 6 and (i - j) % 2 == 0),
    "tree": (len(PARENTS), in_tree),
    "window and sink_tokens": (TOKENS, lambda i, j: i - 5 <= j <= i or j <= min(i, 1)),
}


def patterns() -> Drawing:
    """What queries (down) see of keys (across), and the blocks that are listed for it."""
    side, cell = 192, 192 / TOKENS
    page = Drawing(3 * (side + 40) + 40, 2 * (side + 56) + 40)
    for index, (name, (rows, sees)) in enumerate(PATTERNS.items()):
        x, y = 40 + index % 3 * (side + 40), 44 + index // 3 * (side + 56)
        page.text(x, y - 10, name)
        page.box(x, y, side, rows * cell, HIDDEN)
        seen = [[sees(i, j) for j in range(TOKENS)] for i in range(rows)]
        for i in range(0, rows, TOKEN_BLOCK):
            for j in range(0, TOKENS, TOKEN_BLOCK):
                block = [row[j : j + TOKEN_BLOCK] for row in seen[i : i + TOKEN_BLOCK]]
                if any(map(any, block)):
                    size = TOKEN_BLOCK * cell
                    page.box(x + j * cell, y + i * cell, size, size, PARTIAL)
        shapes = "".join(
            f"M{x + j * cell:g} {y + i * cell:g}h{cell:g}v{cell:g}h-{cell:g}z"
            for i, row in enumerate(seen)
            for j, is_seen in enumerate(row)
            if is_seen
        )
        page.parts.append(f'<path d="{shapes}" fill="{WHOLE}"/>')
    y = page.height - 26
    for x, shade, text in [(40, WHOLE, "seen"), (130, PARTIAL, "hidden by bits of a listed block")]:
        page.box(x, y, 16, 16, shade)
        page.text(x + 24, y + 13, text)
    page.box(400, y, 16, 16, HIDDEN)
    page.text(424, y + 13, "not listed: never read")
    return page


if __name__ == "__main__":
    (DOCS / "patterns.svg").write_text(patterns().svg(), encoding="utf-8")
