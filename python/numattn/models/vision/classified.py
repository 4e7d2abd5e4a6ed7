"""Images through a classifier, some at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ..arrays import Float32Array
from .image_batches import image_batches
from .images import Image
from .labels import Guess, best, probabilities
from .processor import ImageProcessor


def classified(
    images: Iterable[Image],
    processor: ImageProcessor,
    logits_of: Callable[[Float32Array], Float32Array],
    labels: list[str],
    multi_label: bool,
    top: int,
    batch_size: int,
    progress: Callable[[int], object] | None,
) -> list[list[Guess]]:
    """Return for each image its `top` most probable labels, best first.

    `logits_of` gives the classifier's numbers (N, L) for numbers of images (N, C, H, W).
    """
    guesses: list[list[Guess]] = []
    best(np.zeros((0, 1), np.float32), labels, top)  # refuses before any work
    for numbers in image_batches(images, processor, batch_size):
        guesses += best(probabilities(logits_of(numbers), multi_label), labels, top)
        if progress is not None:
            progress(len(numbers))
    return guesses
