"""Vision transformers with tokens in front of the patches: ViT, DeiT and DINOv2.

    x = tokens of an image                               patches.py
    for each layer: x = layer(x)                         tower_layer.py
    hidden states = norm(x)
    vector of an image = hidden states of [CLS]
    logits = classifier([CLS])                           ViT, DeiT
           = mean of both tokens' classifiers            DeiT trained with a teacher
           = classifier([CLS], mean of the patches)      DINOv2

(Dosovitskiy et al., An Image is Worth 16x16 Words, 2021; Touvron et al., DeiT, 2021; Oquab et al.,
DINOv2, 2023.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from numattn import Linear
from numattn._dtypes import storage_name

from ..arrays import Float32Array
from ..files.checkpoint import Checkpoint
from ..files.folder import model_folder
from ..files.storage import storage_dtype
from ..vectors import of_length_one
from .classified import classified
from .image_batches import all_at_once, image_batches
from .images import Image
from .labels import Guess
from .patches import PatchEmbedding
from .positions import antialiased_weights, plain_weights
from .processor import ImageProcessor
from .tower import Tower
from .tower_layer import Workspace, read_norm
from .vit_config import ViTConfig

ANCHOR = "embeddings.patch_embeddings.projection.weight"
# A layer over [CLS] that no vector here passes through, what stood for hidden patches in training,
# and what made those visible again.
IGNORED = r"(.*\.)?pooler\.dense\.(weight|bias)|(.*\.)?embeddings\.mask_token|decoder\..*"


class ViT:
    """A vision transformer: images → labels, vectors, hidden states and attention maps.

    Made by `ViT.from_folder`. Any number of threads may call one model at once.

    Attributes
    ----------
    config : ViTConfig
        Sizes and choices; `config.labels` are those of a classifier.
    processor : ImageProcessor
        Images → numbers.
    dtype : numpy.dtype
        What the weights of the layers are stored in: float32, bfloat16 or int8.
    storage : str
        The same by its name, which tells "w8a8" from "int8" (see :class:`numattn.Linear`).
    num_special : int
        Tokens before those of the patches.

    Examples
    --------
    >>> from numattn.models import ViT
    >>> model = ViT.from_folder("vit-base-patch16-224")  # doctest: +SKIP
    >>> model.classify(["cat.jpg"], top=1)  # doctest: +SKIP
    >>> pixels = model.preprocess(["cat.jpg"])  # doctest: +SKIP
    >>> model.attention_weights(pixels[0], layer=11, rows=[0])  # doctest: +SKIP
    """

    def __init__(
        self,
        config: ViTConfig,
        checkpoint: Checkpoint,
        processor: ImageProcessor,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.config, self.processor = config, processor
        self.storage = storage_name(dtype)
        self.dtype = storage_dtype(self.storage)
        self._patches = read_patch_embedding(checkpoint, config)
        self._tower = Tower(checkpoint, config.names, config.tower, self.storage)
        self._norm = read_norm(checkpoint, "layernorm", config.tower)
        self._heads = read_heads(checkpoint, config, self.storage)

    @classmethod
    def from_folder(cls, folder: str | Path, *, dtype: DTypeLike | None = None) -> ViT:
        """Load a Hugging Face folder: config.json, model.safetensors and preprocessor_config.json.

        Parameters
        ----------
        folder : path
            The folder, of model_type vit, deit, dinov2 or dinov2_with_registers.
        dtype : {None, float32, bfloat16, int8, "w8a8"}
            How the layers store their weights: float32 by default. Patches are projected by
            float32 weights; hidden states, sums and norms are float32, too.

        Raises
        ------
        FileNotFoundError
            If the folder or a file is missing. Nothing is downloaded.
        ImportError
            If safetensors is not installed, or ml_dtypes for bfloat16.
        ValueError
            If a file is damaged, a tensor is missing, unused or of another shape than the
            configuration says, or the folder or `dtype` asks for something that is not supported.
        """
        path = model_folder(folder)
        config = ViTConfig.from_file(path / "config.json")
        processor = ImageProcessor.from_folder(path, config.model_type, config.patches.channels)
        checkpoint = Checkpoint(path / "model.safetensors", ANCHOR)
        model = cls(config, checkpoint, processor, dtype)
        checkpoint.finish(IGNORED)
        return model

    @property
    def num_special(self) -> int:
        """Tokens before those of the patches: [CLS], DeiT's second, registers."""
        return self._patches.num_special

    @property
    def has_classifier(self) -> bool:
        """Whether the folder has weights of a classifier."""
        return bool(self._heads)

    def preprocess(self, images: Iterable[Image]) -> Float32Array:
        """Return what the model reads of images (N, C, H, W), float32.

        Parameters
        ----------
        images : iterable of images
            Paths, bytes of files, PIL images or uint8 arrays (H, W, 3).

        Raises
        ------
        FileNotFoundError, OSError, ImportError, TypeError
            If an image cannot be read.
        ValueError
            Likewise; or if the processor leaves images of several sizes.
        """
        cut = self.config.patches
        return all_at_once(images, self.processor, (cut.channels, *cut.image))

    def grid(self, pixel_values: Float32Array) -> tuple[int, int]:
        """Return the rows and columns of patches in numbers of images (..., H, W)."""
        return self._patches.grid(pixel_values.shape)

    def __call__(
        self,
        pixel_values: ArrayLike,
        *,
        resample_positions: bool | None = None,
        num_threads: int | None = None,
    ) -> Float32Array:
        """Return the hidden states of the last layer, normalised.

        Parameters
        ----------
        pixel_values : float array (N, C, H, W)
            What `preprocess` makes of images.
        resample_positions : bool, optional
            Whether images may have another size than the model's own: its positions are then
            resampled, bicubically. By default DINOv2 does that, and the others refuse.
        num_threads : int, optional
            Upper limit for this call.

        Returns
        -------
        float32 array (N, S, E)
            `num_special` tokens, and then one for each patch, row by row. Those of an image are
            bitwise what they are if it is alone, for any number of threads.

        Raises
        ------
        TypeError
            If pixel_values are no floats.
        ValueError
            If their shape is none of images, or not the model's size.
        """
        resample = self.config.is_dino if resample_positions is None else resample_positions
        numbers = self._patches.check(pixel_values, resample)
        if resample and len({*self.config.patches.grid}) > 1:
            raise ValueError(
                f"positions of {self.config.patches.grid} patches are not resampled: only those of "
                "a square are"
            )
        return self._hidden(numbers, num_threads)

    def encode(
        self,
        images: Iterable[Image],
        *,
        batch_size: int = 16,
        normalize: bool = True,
        progress: Callable[[int], object] | None = None,
        num_threads: int | None = None,
    ) -> Float32Array:
        """Return one vector per image: the hidden state of [CLS].

        Parameters
        ----------
        images : iterable of images
            Paths, bytes of files, PIL images or uint8 arrays (H, W, 3); gone through once.
        batch_size : int
            Images computed at once: bounds the memory.
        normalize : bool
            Whether vectors are scaled to length 1.
        progress : callable, optional
            Called with the number of images of each batch, once it is done.
        num_threads : int, optional
            Upper limit for this call.

        Returns
        -------
        float32 array (N, E)

        Raises
        ------
        FileNotFoundError, OSError, ImportError, TypeError, ValueError
            If an image cannot be read; a ValueError tells its number.
        """
        vectors = [np.zeros((0, self.config.hidden_size), np.float32)]
        for numbers in image_batches(images, self.processor, batch_size):
            vectors.append(self(numbers, num_threads=num_threads)[:, 0])
            if progress is not None:
                progress(len(numbers))
        result = np.concatenate(vectors)
        return of_length_one(result) if normalize else result

    def logits(self, pixel_values: ArrayLike, *, num_threads: int | None = None) -> Float32Array:
        """Return the classifier's numbers (N, L) for images (N, C, H, W).

        Raises
        ------
        TypeError, ValueError
            As a call; and a ValueError if the folder has no classifier.
        """
        if not self._heads:
            raise ValueError("the folder has no classifier's weights: `encode` gives vectors")
        hidden = self(pixel_values, num_threads=num_threads)
        if self.config.is_dino:
            patches = hidden[:, self.num_special :].mean(axis=1)
            parts = [np.concatenate([hidden[:, 0], patches], axis=1)]
        else:
            parts = [np.ascontiguousarray(hidden[:, place]) for place in range(len(self._heads))]
        sums = [
            head(part, num_threads=num_threads)
            for head, part in zip(self._heads, parts, strict=True)
        ]
        return sums[0] if len(sums) == 1 else np.divide(sums[0] + sums[1], np.float32(2))

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

        Parameters
        ----------
        images : iterable of images
            As for `encode`.
        top : int
            How many labels are wanted.
        batch_size, progress, num_threads
            As for `encode`.

        Returns
        -------
        list of lists of Guess
            ``(label, probability)``: the softmax of the classifier's numbers, or with a
            problem_type of multi_label_classification each one's own sigmoid.

        Raises
        ------
        FileNotFoundError, OSError, ImportError, TypeError, ValueError
            As `encode`; and a ValueError if the folder has no classifier, or top is less than 1.
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
        """Return the attention maps of one image, exact, and only those asked for.

        Parameters
        ----------
        pixel_values : float array (C, H, W)
            The image, as `preprocess` gives it.
        layer, head : int, optional
            Count from 0. Without one, the result has a dimension of all layers or of all heads.
        rows : int array (R,), optional
            The tokens whose rows are wanted; all by default. The first is [CLS].
        num_threads : int, optional
            Upper limit for this call.

        Returns
        -------
        float32 array (L, H, R, S), without L if layer is given and without H if head is given
            Entry [l, h, r, j]: how much head h of layer l weighs token j for token rows[r].

        Raises
        ------
        TypeError
            If pixel_values are no floats.
        ValueError
            If their shape is none of one image, or the layer, the head or a row is out of range.
        """
        one = np.asarray(pixel_values)[np.newaxis]
        numbers = self._patches.check(one, self.config.is_dino)
        work = self._embed(numbers, num_threads)
        return self._tower.attention_weights(work, layer, head, rows, num_threads)

    def _embed(self, numbers: Float32Array, num_threads: int | None) -> Workspace:
        """Return the activations of a call, with x holding the tokens of images (N, C, H, W)."""
        work = self._tower.workspace(self._patches.tokens(numbers.shape).count)
        self._patches(numbers, work.x, num_threads)
        return work

    def _hidden(self, numbers: Float32Array, num_threads: int | None) -> Float32Array:
        """Return the hidden states (N, S, E) for images (N, C, H, W), which are checked."""
        work = self._embed(numbers, num_threads)
        sequences = self._patches.tokens(numbers.shape)
        self._tower.run(work, sequences, num_threads)
        self._norm(work.x, num_threads, out=work.x)
        rows, columns = self._patches.grid(numbers.shape)
        tokens = self.num_special + rows * columns
        return work.x.reshape(len(numbers), tokens, self.config.hidden_size)


def read_patch_embedding(checkpoint: Checkpoint, config: ViTConfig) -> PatchEmbedding:
    """Return what makes the tokens of images."""
    width, cut = config.hidden_size, config.patches
    stem = "embeddings.patch_embeddings.projection"
    names = ["cls_token", *(["distillation_token"] if config.num_prefix == 2 else [])]
    prefix = [checkpoint.take(f"embeddings.{name}", (1, 1, width))[0] for name in names]
    registers = np.zeros((0, width), np.float32)
    if config.num_registers:
        shape = (1, config.num_registers, width)
        registers = checkpoint.take("embeddings.register_tokens", shape)[0]
    positions = checkpoint.take(
        "embeddings.position_embeddings", (1, config.num_prefix + cut.patches, width)
    )[0]
    return PatchEmbedding(
        cut,
        checkpoint.take(f"{stem}.weight", (width, cut.channels, *cut.patch)),
        checkpoint.take(f"{stem}.bias", (width,)),
        positions,
        np.concatenate(prefix),
        registers,
        weights=(
            antialiased_weights if config.model_type == "dinov2_with_registers" else plain_weights
        ),
    )


def read_heads(checkpoint: Checkpoint, config: ViTConfig, storage: str) -> list[Linear]:
    """Return the classifiers of a checkpoint, one for each token that is read; none if none."""
    count = len(config.labels)
    width = config.hidden_size * (2 if config.is_dino else 1)
    names = ["classifier"]
    if config.model_type == "deit" and checkpoint.has("cls_classifier.weight", from_root=True):
        names = ["cls_classifier", "distillation_classifier"]
    if not checkpoint.has(f"{names[0]}.weight", from_root=True):
        return []
    return [
        Linear(
            checkpoint.take(f"{name}.weight", (count, width), from_root=True),
            checkpoint.take(f"{name}.bias", (count,), from_root=True),
            dtype=storage,
        )
        for name in names
    ]
