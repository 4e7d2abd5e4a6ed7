"""Images → the tokens of a tower: patches, positions, and what stands before the patches.

    tokens of an image = prefix, registers, patches
    prefix             [CLS] and the like, with the first positions added; there may be none
    registers          tokens without a position (Darcet et al., 2023)
    patches            one product over the numbers of each patch, plus its position

A table of positions belongs to one grid of patches; for another one it is resampled, if the family
does that (positions.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numattn import Linear

from ..arrays import Float32Array
from ..files.settings import Settings, shown
from ..ragged import Ragged
from .positions import AxisWeights, plain_weights, resampled

Edges = tuple[int, int]


@dataclass(frozen=True)
class PatchConfig:
    """How images are cut into patches. Sizes are height and width."""

    channels: int
    image: Edges
    patch: Edges

    @property
    def grid(self) -> Edges:
        """Return the rows and columns of patches in an image of the model's own size."""
        return self.image[0] // self.patch[0], self.image[1] // self.patch[1]

    @property
    def patches(self) -> int:
        """Return the patches of an image of the model's own size."""
        return self.grid[0] * self.grid[1]


def read_patches(settings: Settings, image_size: int, patch_size: int) -> PatchConfig:
    """Return how images are cut, as an object of settings says; else by the sizes given.

    Raises
    ------
    ValueError
        If a size is none, or a patch larger than the image.
    """
    channels = settings.one_of("num_channels", (3, 1), 3)
    image = read_edges(settings, "image_size", image_size)
    patch = read_edges(settings, "patch_size", patch_size)
    if patch[0] > image[0] or patch[1] > image[1]:
        raise ValueError(
            f"{settings.path}: patch_size {patch[0]} × {patch[1]} is larger than "
            f"image_size {image[0]} × {image[1]}"
        )
    return PatchConfig(channels, image, patch)


def read_edges(settings: Settings, name: str, default: int) -> Edges:
    """Return a height and a width, which may be one number."""
    value = settings.get(name)
    if isinstance(value, list):
        if len(value) != 2:
            raise ValueError(
                f"{settings.path}: {name} must be one or two sizes, not {shown(value)}"
            )
        pair = Settings({"height": value[0], "width": value[1]}, settings.path)
        return pair.size("height"), pair.size("width")
    size = settings.size(name, default)
    return size, size


class PatchEmbedding:
    """Numbers of images (N, C, H, W) → tokens.

    Parameters
    ----------
    config : PatchConfig
    weight : float32 array (E, C, patch height, patch width)
        Stays float32, whatever the layers store: everything is read through it, and it is small.
    bias : float32 array (E,), optional
    positions : float32 array (P + patches, E)
    prefix : float32 array (P, E)
    registers : float32 array (R, E)
    weights : callable
        How positions are resampled (positions.py).
    """

    def __init__(
        self,
        config: PatchConfig,
        weight: Float32Array,
        bias: Float32Array | None,
        positions: Float32Array,
        prefix: Float32Array,
        registers: Float32Array,
        weights: AxisWeights = plain_weights,
    ) -> None:
        self.config = config
        self._linear = Linear(weight.reshape(len(weight), -1), bias)
        count = len(prefix)
        self._before = np.concatenate([prefix + positions[:count], registers])
        # Registers stand behind [CLS]; no family has more than that in front of them.
        self._positions = positions[count:]
        self._weights = weights

    @property
    def num_special(self) -> int:
        """Return how many tokens stand before those of the patches."""
        return len(self._before)

    def tokens(self, shape: tuple[int, ...]) -> Ragged:
        """Return where the tokens of images (N, C, H, W) stand."""
        grid = self.grid(shape)
        count = self.num_special + grid[0] * grid[1]
        return Ragged.of_rows((shape[0], count), None)

    def grid(self, shape: tuple[int, ...]) -> Edges:
        """Return the rows and columns of patches in images (..., H, W)."""
        return shape[-2] // self.config.patch[0], shape[-1] // self.config.patch[1]

    def check(self, values: ArrayLike, resample: bool) -> Float32Array:
        """Return the numbers of images as float32 (N, C, H, W), or raise.

        Raises
        ------
        TypeError
            If they are no floats.
        ValueError
            If the shape is none of images, or, without `resample`, not the model's own.
        """
        numbers: NDArray[Any] = np.asarray(values)
        config = self.config
        if numbers.ndim != 4 or numbers.shape[1] != config.channels:
            raise ValueError(
                f"pixel_values must be (N, {config.channels}, H, W), not {numbers.shape}"
            )
        if numbers.dtype.kind != "f":
            raise TypeError(
                f"pixel_values must be floats, not {numbers.dtype}; `preprocess` makes them"
            )
        size = numbers.shape[2:]
        if resample and min(self.grid(size)) < 1:
            raise ValueError(f"an image of {size} has no patch of {config.patch} (height, width)")
        if not resample and size != config.image:
            raise ValueError(
                f"pixel_values have the height and width {size}; the model reads {config.image}"
            )
        return numbers.astype(np.float32, copy=False)

    def __call__(self, numbers: Float32Array, out: Float32Array, num_threads: int | None) -> None:
        """Write the tokens (T, E) of images (N, C, H, W) into `out`."""
        count, channels = numbers.shape[:2]
        rows, columns = self.grid(numbers.shape)
        high, wide = self.config.patch
        whole = numbers[..., : rows * high, : columns * wide]
        cut = whole.reshape(count, channels, rows, high, columns, wide).transpose(0, 2, 4, 1, 3, 5)
        patches = self._linear(
            cut.reshape(count * rows * columns, channels * high * wide), num_threads=num_threads
        )
        each = out.reshape(count, self.num_special + rows * columns, out.shape[1])
        each[:, : self.num_special] = self._before
        positions = self._positions
        if (rows, columns) != self.config.grid:
            positions = resampled(positions, self.config.grid, (rows, columns), self._weights)
        np.add(
            patches.reshape(count, rows * columns, out.shape[1]),
            positions,
            out=each[:, self.num_special :],
        )
