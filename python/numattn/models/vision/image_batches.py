"""Images that come one by one → batches of numbers that a model reads at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ..arrays import Float32Array
from ..files.settings import MOST
from .images import Image, each_image
from .processor import ImageProcessor


def image_batches(
    images: Iterable[Image], processor: ImageProcessor, batch_size: int
) -> Iterator[Float32Array]:
    """Yield the numbers (n, C, H, W) of images in their order, at most `batch_size` at once.

    Images that a processor does not bring to one size stand in batches of their own.

    Raises
    ------
    TypeError
        At once, if it is a single image, or has no order.
    ValueError
        If batch_size is less than 1; and as `ImageProcessor` for an image, whose number is named.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
    return batched(numbers_of(each_image(images), processor), batch_size)


def all_at_once(
    images: Iterable[Image], processor: ImageProcessor, empty: tuple[int, ...]
) -> Float32Array:
    """Return the numbers (N, C, H, W) of all images; `empty` is the (C, H, W) of none.

    Raises
    ------
    TypeError, ValueError
        As `image_batches`; and a ValueError if the processor leaves images of several sizes.
    """
    batches = [*image_batches(images, processor, MOST)]
    if len(batches) > 1:
        sizes = sorted({batch.shape[2:] for batch in batches})
        raise ValueError(f"the images have several sizes once processed: {sizes}")
    return batches[0] if batches else np.zeros((0, *empty), np.float32)


def numbers_of(images: Iterable[Image], processor: ImageProcessor) -> Iterator[Float32Array]:
    """Yield the numbers (C, H, W) of each image."""
    for number, image in enumerate(images):
        try:
            numbers = processor(image)
        except ValueError as error:
            raise ValueError(f"image {number}: {error}") from None
        yield numbers


def batched(each: Iterable[Float32Array], batch_size: int) -> Iterator[Float32Array]:
    """Yield arrays of one shape that follow one another, at most `batch_size` in one."""
    batch: list[Float32Array] = []
    for numbers in each:
        if batch and (len(batch) == batch_size or batch[0].shape != numbers.shape):
            yield np.stack(batch)
            batch = []
        batch.append(numbers)
    if batch:
        yield np.stack(batch)
