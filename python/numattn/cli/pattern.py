"""The picture of a block mask: which blocks of keys the queries see, of `numattn attend --pattern`.

Blocks that are seen as a whole are darkest; of others, darker shades show more.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from numattn import BlockMask, patterns

from .picture import INK, SHADES

NAMES = ("longformer", "bigbird", "strided", "dilated", "tree")
BLOCK = 64
FAINTEST = 0.2  # of listed blocks, so that one key of 64 is seen


def read_pattern(words: str) -> BlockMask:
    """Return the mask of "longformer:4096,512,1", a maker of `numattn.patterns` and its numbers.

    Raises
    ------
    ValueError
        There is no such maker, what follows are no numbers, or it does not take them.
    """
    name, _, numbers = words.partition(":")
    if name not in NAMES:
        raise ValueError(f"--pattern must begin with one of {', '.join(NAMES)}, not {name!r}")
    try:
        given = [int(number) for number in numbers.split(",")]
    except ValueError:
        raise ValueError(
            f"--pattern must be {name}: and whole numbers with commas, not {words!r}"
        ) from None
    try:
        mask: BlockMask = (
            patterns.tree(given) if name == "tree" else getattr(patterns, name)(*given)
        )
    except TypeError as error:
        raise ValueError(f"--pattern {words}: {error}") from None
    return mask


def shares(mask: BlockMask) -> NDArray[np.float64]:
    """Return how much is seen of each block: (query blocks, key blocks) of the first head."""
    queries, keys = mask.shape[2:]
    seen = np.zeros((-(-queries // BLOCK), -(-keys // BLOCK)))
    shown = np.unpackbits(mask.words.view(np.uint8), axis=1).sum(axis=1) / BLOCK**2
    for row, begin, end in zip(seen, mask.starts, mask.starts[1:], strict=False):
        bits = mask.bits[begin:end]
        row[mask.blocks[begin:end]] = np.where(bits < 0, 1.0, np.append(shown, 1.0)[bits])
    return seen


def draw_pattern(mask: BlockMask, title: str, suffix: str) -> bytes:
    """Return the picture in the format of a suffix."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    shades = LinearSegmentedColormap.from_list("attention", SHADES)
    figure = Figure(figsize=(5.2, 5.4), dpi=160, facecolor="white")
    axes = figure.add_subplot(title=title, xlabel="keys", ylabel="queries")
    keys, queries = mask.shape[3], mask.shape[2]
    place = (0, -(-keys // BLOCK) * BLOCK, -(-queries // BLOCK) * BLOCK, 0)
    seen = shares(mask)
    shown = np.where(seen > 0, FAINTEST + (1 - FAINTEST) * seen, 0)
    axes.imshow(shown, cmap=shades, vmin=0, vmax=1, extent=place, interpolation="nearest")
    axes.set(xlim=(0, keys), ylim=(queries, 0))
    figure.text(0.5, 0.01, f"{1 - mask.sparsity:.1%} of pairs seen", ha="center", color=INK, size=9)
    file = BytesIO()
    figure.savefig(file, format=suffix.lower().removeprefix("."))
    return file.getvalue()
