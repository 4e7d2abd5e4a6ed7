"""The picture of what a vision model looks at: the image as it is read, and the same under a veil.

The more a patch is looked at, the more of the veil's colour lies on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .figure_file import file_of
from .picture import ACCENT, FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches.
SIDE, EDGE, GAP, SCALE, HEADING = 3.6, 0.35, 0.3, 0.14, 1.0
# The veil lies on a pale image, so that its colours are those of the scale, which lies on white.
THICKEST, PALE, GREY = 0.85, 0.6, (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Overlay:
    """What is drawn: an image, and how much is looked at each of its patches."""

    image: NDArray[np.float32]
    """(H, W, 1 or 3), 0 … 1: as the model reads it."""
    weights: NDArray[np.float32]
    """(rows, columns) of patches."""
    title: str
    subtitle: str


def draw_overlay(overlay: Overlay, suffix: str) -> bytes:
    """Return the file, in the format of a suffix that `picture.check_format` lets pass."""
    return file_of(partial(figure_of, overlay), suffix)


def figure_of(overlay: Overlay) -> Figure:
    """Draw the title, the image, and the image under the veil with its scale."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb
    from matplotlib.figure import Figure

    tall, wide = overlay.image.shape[:2]
    side = SIDE * np.array([wide, tall]) / max(tall, wide)
    width = 2 * EDGE + 2 * side[0] + GAP + 0.15 + SCALE + 0.45
    height = HEADING + side[1] + EDGE
    figure = Figure(figsize=(width, height), dpi=160, facecolor="white")
    style: dict[str, Any] = {"parse_math": False, "ha": "left", "va": "baseline"}
    # Bold letters are some 0.7 of their size wide.
    size = min(15.0, 72 * (width - 2 * EDGE) / (0.7 * len(overlay.title)))
    place = (EDGE / width, 1 - 0.45 / height)
    figure.text(*place, overlay.title, size=size, weight="bold", color=INK, **style)
    size = min(9.5, 72 * (width - 2 * EDGE) / (0.55 * len(overlay.subtitle)))
    place = (EDGE / width, 1 - 0.72 / height)
    figure.text(*place, overlay.subtitle, size=size, color=FAINT, **style)

    def axes_at(left: float, across: float) -> Axes:
        return figure.add_axes((left / width, EDGE / height, across / width, side[1] / height))

    shown = np.broadcast_to(overlay.image, (tall, wide, 3))
    darkest = float(overlay.weights.max()) or 1.0
    draw_image(axes_at(EDGE, side[0]), shown)
    veiled = axes_at(EDGE + side[0] + GAP, side[0])
    draw_image(veiled, under_veil(shown, overlay.weights / darkest, to_rgb(ACCENT)))
    draw_grid(veiled, overlay.weights.shape, (tall, wide))
    full = THICKEST * np.array(to_rgb(ACCENT)) + 1 - THICKEST
    paper = LinearSegmentedColormap.from_list("veil", ["#ffffff", tuple(full.tolist())])
    draw_scale(axes_at(EDGE + 2 * side[0] + GAP + 0.15, SCALE), paper, darkest)
    return figure


def under_veil(
    image: NDArray[np.float32], shades: NDArray[np.float32], colour: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Return an image (H, W, 3) in pale grey, under a veil as thick as shades say, 0 … 1.

    Shades are (rows, columns), of which each covers a part of the image.
    """
    tall, wide = image.shape[:2]
    rows = np.minimum(np.arange(tall) * shades.shape[0] // tall, shades.shape[0] - 1)
    columns = np.minimum(np.arange(wide) * shades.shape[1] // wide, shades.shape[1] - 1)
    thick = THICKEST * shades[rows][:, columns, np.newaxis]
    grey = PALE + (1 - PALE) * (image @ np.array(GREY, np.float32))[..., np.newaxis]
    result: NDArray[np.float32] = (grey * (1 - thick) + np.array(colour) * thick).astype(np.float32)
    return result


def draw_image(axes: Axes, image: NDArray[np.float32]) -> None:
    """Draw an image (H, W, 3) without ticks."""
    axes.imshow(np.clip(image, 0, 1), interpolation="nearest", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(color="#c8d0dc", linewidth=0.8)


def draw_grid(axes: Axes, patches: tuple[int, ...], size: tuple[int, int]) -> None:
    """Draw the borders of patches, if they are few enough to be told apart."""
    if max(patches) > 32:
        return
    for row in range(1, patches[0]):
        axes.axhline(row * size[0] / patches[0] - 0.5, color=FAINT, linewidth=0.5, alpha=0.5)
    for column in range(1, patches[1]):
        axes.axvline(column * size[1] / patches[1] - 0.5, color=FAINT, linewidth=0.5, alpha=0.5)


def draw_scale(axes: Axes, shades: Any, darkest: float) -> None:
    """Draw the colour bar: weights from 0 to the darkest."""
    column = np.linspace(0, darkest, 256)[:, np.newaxis]
    axes.imshow(column, cmap=shades, aspect="auto", origin="lower", extent=(0, 1, 0, darkest))
    axes.set_xticks([])
    axes.yaxis.tick_right()
    ticks = np.linspace(0, darkest, 5)
    axes.set_yticks(ticks, [f"{tick:.2g}" for tick in ticks], size=8.5, color=FAINT)
    axes.tick_params(length=0, pad=4)
    axes.spines[:].set(color="#c8d0dc", linewidth=0.8)
