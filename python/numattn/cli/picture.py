"""The picture of an attention map: the sentence shaded by what a word looks at, and the map itself.

    sentence      each word shaded by how much the chosen word looks at it
    map (S, S)    row i: how much token i looks at each token; the rows of the word are framed

Both are shaded by one scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .direction import LEFT_TO_RIGHT, first_strong, needs_shaping, visual_order
from .figure_file import file_of
from .fonts import advice, families_for
from .words import Word

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
INK, FAINT, ACCENT = "#1b2330", "#7d8798", "#d9480f"
# One hue from white on: darker is more, in grey print and for the colour-blind too.
SHADES = ("#ffffff", "#dcebf7", "#a3cbe6", "#559fcd", "#2171b0", "#0a3a73")
# Weights from here on are written into the framed cells.
WRITTEN = 0.1

# Inches. A map of many tokens stops growing at LARGEST, and its labels shrink instead.
CELL, SMALLEST, LARGEST = 0.38, 4.2, 16.0
LEFT, RIGHT, BOTTOM, EDGE, GAP = 1.2, 0.9, 1.15, 0.35, 0.25
HEADING, LINE = 0.98, 0.42
SPACE, SEAM = 0.1, 0.04
SENTENCE_SIZE = 13.0


@dataclass(frozen=True)
class AttentionMap:
    """What is drawn: one head's weights on one sentence."""

    sentence: str
    tokens: Sequence[str]
    parts: Sequence[Word]
    """The words, signs and special tokens of the sentence."""
    word: Word
    """The one whose rows are framed."""
    weights: NDArray[np.float32]
    """(S, S): row i holds how much token i looks at each token."""
    title: str
    subtitle: str

    @property
    def darkest(self) -> float:
        """The weight of the darkest shade: the next quarter above the largest weight."""
        return max(float(np.ceil(4 * self.weights.max())), 1.0) / 4

    def weight_at(self, part: Word) -> float:
        """Return how much the chosen word looks at a part of the sentence."""
        return float(self.weights[np.ix_(self.word.tokens, part.tokens)].mean(axis=0).sum())


@dataclass(frozen=True)
class Box:
    """A part of the sentence on the page: x and width in inches, line counted from 0."""

    part: Word
    text: str
    x: float
    width: float
    line: int


def check_format(path: Path) -> None:
    """Raise ValueError if no picture can be written under this name, ImportError without means."""
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path} must end with one of {', '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError("drawing needs matplotlib: pip install 'numattn[plot]'") from None


def draw(picture: AttentionMap, suffix: str) -> tuple[bytes, list[str]]:
    """Return the file, in the format of a suffix of FORMATS, and what is not as it should be."""
    from matplotlib import ft2font

    families, missing = families_for(picture.title + picture.sentence + "".join(picture.tokens))
    lacks = [advice(missing)] if missing else []
    shaped = any(needs_shaping(sign) for sign in picture.title + picture.sentence)
    if shaped and not hasattr(ft2font, "__libraqm_version__"):
        lacks.append(
            "this matplotlib places letters side by side as they are stored, right-to-left ones "
            "backwards; from 3.11 on, it does not"
        )
    return file_of(partial(draw_figure, picture), suffix, families), lacks


def draw_figure(picture: AttentionMap) -> Figure:
    """Draw the title, the sentence and the map."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    shades = LinearSegmentedColormap.from_list("attention", SHADES)
    side = float(np.clip(CELL * len(picture.tokens), SMALLEST, LARGEST))
    width = LEFT + side + RIGHT
    boxes = lay_out(picture, width - 2 * EDGE)
    height = HEADING + LINE * (boxes[-1].line + 1) + GAP + side + BOTTOM
    figure = Figure(figsize=(width, height), dpi=160, facecolor="white")

    # A page whose units are inches lies under all else.
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    page.axis("off")
    style: dict[str, Any] = {"parse_math": False, "ha": "left", "va": "baseline"}
    # Bold letters are some 0.7 of their size wide.
    size = min(17.0, 72 * (width - 2 * EDGE) / (0.7 * len(picture.title)))
    # The title is English, even if its first letters are not.
    mark = LEFT_TO_RIGHT if first_strong(picture.title) == "R" else ""
    title = mark + picture.title
    page.text(EDGE, height - 0.5, title, size=size, weight="bold", color=INK, **style)
    page.text(EDGE, height - 0.78, picture.subtitle, size=10.5, color=FAINT, **style)
    draw_sentence(page, picture, boxes, shades, height - HEADING)

    place = (LEFT / width, BOTTOM / height, side / width, side / height)
    draw_weights(figure.add_axes(place), picture, shades, side)
    place = ((LEFT + side + 0.2) / width, BOTTOM / height, 0.14 / width, side / height)
    draw_scale(figure.add_axes(place), shades, picture.darkest)
    return figure


def lay_out(picture: AttentionMap, width: float) -> list[Box]:
    """Return where the tokens of the sentence stand, in lines of at most that many inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font = FontProperties(size=SENTENCE_SIZE)
    measure = TextToPath().get_text_width_height_descent

    def inches(text: str) -> float:
        return float(measure(text, font, ismath=False)[0]) / 72 if text else 0.0

    boxes: list[Box] = []
    x, line, last_end = 0.0, 0, 0
    for part in picture.parts:
        start, end = part.span
        if end <= start:
            continue
        apart, text = start > last_end, picture.sentence[start:end]
        x += SPACE if apart else SEAM
        if apart and x + inches(text) > width:
            x, line = 0.0, line + 1
        boxes.append(Box(part, text, x, inches(text), line))
        x, last_end = x + inches(text), end
    return in_reading_order(boxes, first_strong(picture.sentence) or "L", width)


def in_reading_order(boxes: Sequence[Box], base: str, width: float) -> list[Box]:
    """Return the boxes of lines from left to right, moved to where their scripts are read.

    A sentence that runs from right to left begins at the right end of `width`.
    """
    moved: list[Box] = []
    for line in range(boxes[-1].line + 1):
        row = [box for box in boxes if box.line == line]
        gaps = [0.0, *(box.x - left.x - left.width for left, box in pairwise(row))]
        order = visual_order([box.text for box in row], base)
        x, places = row[0].x, []
        for before, index in zip([None, *order], order, strict=False):
            if before is not None:
                x += gaps[max(before, index)] if abs(before - index) == 1 else SPACE
            places.append(x)
            x += row[index].width
        shift = width - x if base == "R" else 0.0
        moved += [
            replace(row[index], x=place + shift) for index, place in zip(order, places, strict=True)
        ]
    return moved


def draw_sentence(
    page: Axes, picture: AttentionMap, boxes: Sequence[Box], shades: Colormap, top: float
) -> None:
    """Draw the words, each on a ground as dark as the chosen one looks at it, that one framed."""
    from matplotlib.patches import FancyBboxPatch

    for box in boxes:
        chosen, shade = box.part is picture.word, picture.weight_at(box.part) / picture.darkest
        x, y = EDGE + box.x, top - LINE * (box.line + 1)
        page.add_patch(
            FancyBboxPatch(
                (x, y),
                box.width,
                0.27,
                boxstyle="round,pad=0.02,rounding_size=0.05",
                facecolor="white" if chosen else shades(shade),
                edgecolor=ACCENT if chosen else "none",
                linewidth=1.6,
            )
        )
        page.text(
            x + box.width / 2,
            y + 0.08,
            box.text,
            size=SENTENCE_SIZE,
            color=ACCENT if chosen else ink_on(shade),
            ha="center",
            va="baseline",
            parse_math=False,
        )


def draw_weights(axes: Axes, picture: AttentionMap, shades: Colormap, side: float) -> None:
    """Draw the map with its tokens on both axes, and frame the rows of the word."""
    from matplotlib.patches import Rectangle

    count = len(picture.tokens)
    size = min(10.5, 0.62 * 72 * side / count)
    axes.imshow(picture.weights, cmap=shades, vmin=0, vmax=picture.darkest, interpolation="nearest")
    axes.set_xticks(np.arange(count), picture.tokens, rotation=60, ha="right", size=size)
    axes.set_yticks(np.arange(count), picture.tokens, size=size)
    axes.set_xticks(np.arange(1, count) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, count) - 0.5, minor=True)
    axes.grid(which="minor", color="#e9edf3", linewidth=0.6)
    axes.tick_params(which="both", length=0, pad=4)
    axes.spines[:].set(color="#c8d0dc", linewidth=0.8)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(parse_math=False, color=INK, rotation_mode="anchor")
    for index in picture.word.tokens:
        axes.get_yticklabels()[index].set(color=ACCENT, weight="bold")
        for column in np.flatnonzero(picture.weights[index] >= WRITTEN):
            weight = float(picture.weights[index, column])
            axes.text(
                float(column),
                index,
                f"{weight:.2f}".removeprefix("0"),
                size=min(8.5, 0.8 * size),
                color=ink_on(weight / picture.darkest),
                ha="center",
                va="center_baseline",
            )
    axes.add_patch(
        Rectangle(
            (-0.5, picture.word.tokens[0] - 0.5),
            count,
            len(picture.word.tokens),
            fill=False,
            edgecolor=ACCENT,
            linewidth=1.8,
            clip_on=False,
            zorder=3,
        )
    )
    axes.set_xlabel("looked at (keys)", size=9.5, color=FAINT, labelpad=6)
    axes.set_ylabel("looking (queries)", size=9.5, color=FAINT, labelpad=6)


def draw_scale(axes: Axes, shades: Colormap, darkest: float) -> None:
    """Draw the colour bar: weights from 0 to the darkest."""
    column = np.linspace(0, darkest, 256)[:, np.newaxis]
    axes.imshow(column, cmap=shades, aspect="auto", origin="lower", extent=(0, 1, 0, darkest))
    axes.set_xticks([])
    axes.yaxis.tick_right()
    ticks = np.linspace(0, darkest, 6)
    axes.set_yticks(ticks, [f"{tick:.2g}" for tick in ticks], size=8.5, color=FAINT)
    axes.tick_params(length=0, pad=4)
    axes.spines[:].set(color="#c8d0dc", linewidth=0.8)


def ink_on(shade: float) -> str:
    """Return the colour in which text is read on a shade, 0 … 1."""
    return "white" if shade > 0.45 else INK
