"""The picture of what is detected in an image: a box around each object, with its label."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .figure_file import file_of
from .fonts import advice, families_for
from .overlay import draw_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from numattn.models.vision.detr import Detection

# Inches of the longer side, and dots of an inch: 1,280 of them in a raster.
LONGER, DOTS = 8.0, 160
# Dark enough for white letters, at a contrast of 5 or more. The first four are of Paul Tol's scheme
# "muted", which the colour-blind tell apart.
COLOURS = ("#332288", "#882255", "#117733", "#aa4499", "#0f6a8b", "#8a5a00", "#b03a48", "#5b5b8f")
LETTERS, LINE = 9.0, 2.0


def draw_boxes(
    image: NDArray[np.uint8], found: Sequence[Detection], suffix: str
) -> tuple[bytes, list[str]]:
    """Return the file, in the format of a suffix of FORMATS, and what is not as it should be."""
    families, missing = families_for("".join(each.label for each in found))
    lacks = [advice(missing)] if missing else []
    return file_of(partial(figure_of, image, found), suffix, families), lacks


def figure_of(image: NDArray[np.uint8], found: Sequence[Detection]) -> Figure:
    """Draw the image (H, W, 3), and on it each object; the most probable lies on top."""
    from matplotlib.figure import Figure

    tall, wide = image.shape[:2]
    side = LONGER * np.array([wide, tall]) / max(tall, wide)
    figure = Figure(figsize=(side[0], side[1]), dpi=DOTS)
    axes = figure.add_axes((0, 0, 1, 1))
    draw_image(axes, image.astype(np.float32) / np.float32(255))
    labels = [*dict.fromkeys(each.label for each in found)]
    for each in reversed(found):
        draw_box(axes, each, COLOURS[labels.index(each.label) % len(COLOURS)], tall / side[1])
    return figure


def draw_box(axes: Axes, found: Detection, colour: str, pixels: float) -> None:
    """Draw an object's box and its label above it, or in it where there is no room.

    An inch of the figure has so many pixels of the image.
    """
    from matplotlib.patches import Rectangle

    left, top, right, bottom = found.box
    # A pixel's middle, not its edge, is where its number stands on the axes.
    place = (left - 0.5, top - 0.5)
    axes.add_patch(
        Rectangle(place, right - left, bottom - top, fill=False, edgecolor=colour, linewidth=LINE)
    )
    above = top >= 2 * LETTERS / 72 * pixels
    axes.text(
        max(place[0], -0.5),
        max(place[1], -0.5),
        f"{found.label} {found.probability:.0%}",
        size=LETTERS,
        color="white",
        va="bottom" if above else "top",
        ha="left",
        parse_math=False,
        clip_on=True,
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.5},
    )
