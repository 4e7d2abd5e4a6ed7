"""Classifiers over the images of a CLIP or SigLIP.

    logits = classifier(mean of the patches' hidden states)

CLIP's hidden states are those of its last layer as they are, SigLIP's are normalised. Neither
reads what makes vectors of them (image_tower.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from numattn import Linear
from numattn._dtypes import storage_name

from ..arrays import Float32Array
from ..files.checkpoint import Checkpoint
from ..files.folder import model_folder
from ..files.settings import Settings
from ..files.storage import storage_dtype
from .classified import classified
from .clip_config import ANCHOR, ClipConfig
from .image_batches import all_at_once
from .image_tower import ImageTower
from .images import Image
from .labels import Guess, read_labels, read_problem
from .processor import ImageProcessor
from .tower_config import TowerConfig

# Indices that are counted anew, and what would make vectors.
IGNORED = r"(.*\.)?embeddings\.position_ids|vision_model\.head\..*"


@dataclass(frozen=True)
class ImageClassifierConfig:
    """Sizes and choices of a classifier over a CLIP's or SigLIP's images."""

    clip: ClipConfig
    labels: list[str]
    """What the classifier's numbers mean."""
    multi_label: bool
    """Whether each label has a probability of its own."""

    @property
    def tower(self) -> TowerConfig:
        """Return the sizes of the layers."""
        return self.clip.vision

    @classmethod
    def from_file(cls, path: Path) -> ImageClassifierConfig:
        """Read a config.json; errors are those of `ClipConfig.from_file`."""
        clip, settings = ClipConfig.from_file(path, pooled=False), Settings.from_file(path)
        return cls(clip, read_labels(settings), read_problem(settings))


class ImageClassifier:
    """A CLIP's or SigLIP's images → labels. Made by `ImageClassifier.from_folder`.

    Any number of threads may call one model at once.

    Attributes
    ----------
    config : ImageClassifierConfig
        Sizes and choices; `config.labels` are what the classifier's numbers mean.
    processor : ImageProcessor
        Images → numbers.
    dtype : numpy.dtype
        What the weights of the layers are stored in: float32, bfloat16 or int8.
    storage : str
        The same by its name, which tells "w8a8" from "int8" (see :class:`numattn.Linear`).

    Examples
    --------
    >>> from numattn.models import ImageClassifier
    >>> model = ImageClassifier.from_folder("siglip-finetuned-food101")  # doctest: +SKIP
    >>> model.classify(["soup.jpg"], top=1)  # doctest: +SKIP
    """

    def __init__(
        self, config: ImageClassifierConfig, checkpoint: Checkpoint, processor: ImageProcessor,
        dtype: DTypeLike | None = None,
    ) -> None:  # fmt: skip
        self.config, self.processor = config, processor
        self.storage = storage_name(dtype)
        self.dtype = storage_dtype(self.storage)
        self._images = ImageTower(checkpoint, config.clip, self.storage, pooled=False)
        count = len(config.labels)
        self._classifier = Linear(
            checkpoint.take("classifier.weight", (count, config.tower.hidden_size)),
            checkpoint.take("classifier.bias", (count,)),
            dtype=self.storage,
        )

    @classmethod
    def from_folder(cls, folder: str | Path, *, dtype: DTypeLike | None = None) -> ImageClassifier:
        """Load a Hugging Face folder: config.json, model.safetensors and preprocessor_config.json.

        Of model_type clip, siglip or siglip2, with a classifier. Arguments and errors are those of
        `Clip.from_folder`.
        """
        path = model_folder(folder)
        config = ImageClassifierConfig.from_file(path / "config.json")
        clip = config.clip
        processor = ImageProcessor.from_folder(
            path, clip.model_type, clip.patches.channels, clip.patches.patch[0]
        )
        checkpoint = Checkpoint(path / "model.safetensors", ANCHOR)
        model = cls(config, checkpoint, processor, dtype)
        checkpoint.finish(IGNORED)
        return model

    @property
    def num_special(self) -> int:
        """Tokens before those of the patches: [CLS], or none."""
        return self._images.patches.num_special

    @property
    def has_classifier(self) -> bool:
        """Return True: there is always one. (A `ViT` may have none.)"""
        return True

    def preprocess(self, images: Iterable[Image]) -> Float32Array:
        """Return what the model reads of images (N, C, H, W), float32, as `ViT.preprocess`."""
        cut = self.config.clip.patches
        return all_at_once(images, self.processor, (cut.channels, *cut.image))

    def grid(self, pixel_values: Float32Array) -> tuple[int, int]:
        """Return the rows and columns of patches in numbers of images (..., H, W)."""
        return self._images.patches.grid(pixel_values.shape)

    def __call__(self, pixel_values: ArrayLike, *, num_threads: int | None = None) -> Float32Array:
        """Return the hidden states (N, S, E) of images (N, C, H, W): transformers' last.

        Raises
        ------
        TypeError, ValueError
            If pixel_values are no floats, or of another shape than `preprocess` makes.
        """
        return self._images.states(self._checked(pixel_values), num_threads)

    def logits(self, pixel_values: ArrayLike, *, num_threads: int | None = None) -> Float32Array:
        """Return the classifier's numbers (N, L) for images (N, C, H, W); errors as of a call."""
        patches = self(pixel_values, num_threads=num_threads)[:, self.num_special :]
        result: Float32Array = self._classifier(patches.mean(axis=1), num_threads=num_threads)
        return result

    def classify(
        self,
        images: Iterable[Image],
        *,
        top: int = 5,
        batch_size: int = 16,
        progress: Callable[[int], object] | None = None,
        num_threads: int | None = None,
    ) -> list[list[Guess]]:
        """Return for each image its most probable labels, best first.

        Arguments, result and errors are those of `ViT.classify`.
        """
        return classified(
            images, self.processor, lambda numbers: self.logits(numbers, num_threads=num_threads),
            self.config.labels, self.config.multi_label, top, batch_size, progress,
        )  # fmt: skip

    def attention_weights(
        self,
        pixel_values: ArrayLike,
        layer: int | None = None,
        head: int | None = None,
        rows: ArrayLike | None = None,
        *,
        num_threads: int | None = None,
    ) -> Float32Array:
        """Return the attention maps of one image (C, H, W), as `ViT.attention_weights` does."""
        one = self._checked(np.asarray(pixel_values)[np.newaxis])
        work = self._images.embed(one, num_threads)
        return self._images.tower.attention_weights(work, layer, head, rows, num_threads)

    def _checked(self, pixel_values: ArrayLike) -> Float32Array:
        """Return numbers of images (N, C, H, W) of a size that the model reads, or raise."""
        return self._images.patches.check(pixel_values, self.config.clip.of_any_size)
