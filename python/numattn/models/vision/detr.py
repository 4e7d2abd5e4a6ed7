"""DETR: images → objects, each with a label, a probability and a box.

    memory = encoder(project(ResNet(image)))             detr_layer.py, resnet.py
    x = decoder(object queries, memory)
    labels = softmax(x·Wᵀ + b), the last of which says "no object"
    boxes = sigmoid(three products with ReLU between)    centre, width and height, 0 … 1

(Carion et al., End-to-End Object Detection with Transformers, 2020.) The ResNet is computed by ONNX
Runtime, an extra; all else here. Each image is computed in its own size and alone: there is no
padding, which in a batch of transformers' changes results a little.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from numattn import Linear
from numattn._dtypes import storage_name

from ..arrays import Float32Array
from ..files.checkpoint import Checkpoint
from ..files.folder import model_folder
from ..files.storage import storage_dtype
from .detr_config import DetrConfig
from .detr_layer import Half, sine_positions
from .images import Image, each_image, pixels_of
from .labels import probabilities
from .processor import ImageProcessor
from .resnet import ResNet
from .tower_layer import read_norm

ANCHOR = "query_position_embeddings.weight"
# Counters of training.
IGNORED = r".*\.num_batches_tracked"


class Detection(NamedTuple):
    """An object that is seen."""

    label: str
    probability: float
    box: tuple[float, float, float, float]
    """Left, top, right and bottom, in pixels of the image that was given."""


class Detr:
    """A DETR: images → objects.

    Made by `Detr.from_folder`. Any number of threads may call one model at once.

    Attributes
    ----------
    config : DetrConfig
        Sizes and choices.
    processor : ImageProcessor
        Images → numbers.
    dtype : numpy.dtype
        What the weights of the layers are stored in: float32, bfloat16 or int8.
    storage : str
        The same by its name, which tells "w8a8" from "int8" (see :class:`numattn.Linear`).

    Examples
    --------
    >>> from numattn.models import Detr
    >>> model = Detr.from_folder("detr-resnet-50")  # doctest: +SKIP
    >>> model.detect(["cat.jpg"], threshold=0.9)  # doctest: +SKIP
    """

    def __init__(
        self,
        config: DetrConfig,
        checkpoint: Checkpoint,
        processor: ImageProcessor,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.config, self.processor = config, processor
        self.storage = storage_name(dtype)
        self.dtype = storage_dtype(self.storage)
        width, channels = config.width, config.backbone.widths[-1]
        self._backbone = ResNet(checkpoint, config.backbone)
        shape = (width, channels, 1, 1)
        weight = checkpoint.take("input_projection.weight", shape).reshape(width, channels)
        self._project = Linear(weight, checkpoint.take("input_projection.bias", (width,)))
        self._queries = checkpoint.take(ANCHOR, (config.num_queries, width))
        for half, tower in (("encoder", config.encoder), ("decoder", config.decoder)):
            checkpoint.check_layers(f"{half}.layers", tower.num_layers, f"{half}_layers")
        self._encoder, self._decoder = (
            [
                Half(checkpoint, f"{half}.layers.{number}", tower, self.storage, half == "decoder")
                for number in range(tower.num_layers)
            ]
            for half, tower in (("encoder", config.encoder), ("decoder", config.decoder))
        )
        self._norm = read_norm(checkpoint, "decoder.layernorm", config.decoder)
        self._classifier, *self._boxes = (
            Linear(
                checkpoint.take(f"{name}.weight", shape, from_root=True),
                checkpoint.take(f"{name}.bias", shape[:1], from_root=True),
            )
            for name, shape in (
                ("class_labels_classifier", (len(config.labels) + 1, width)),
                ("bbox_predictor.layers.0", (width, width)),
                ("bbox_predictor.layers.1", (width, width)),
                ("bbox_predictor.layers.2", (4, width)),
            )
        )

    @classmethod
    def from_folder(cls, folder: str | Path, *, dtype: DTypeLike | None = None) -> Detr:
        """Load a Hugging Face folder: config.json, model.safetensors and preprocessor_config.json.

        Parameters
        ----------
        folder : path
            The folder, of model_type detr, with a ResNet of timm's or transformers' names.
        dtype : {None, float32, bfloat16, int8, "w8a8"}
            How the layers store their weights: float32 by default. The ResNet and the heads are
            float32.

        Raises
        ------
        FileNotFoundError
            If the folder or a file is missing. Nothing is downloaded.
        ImportError
            If safetensors, onnx or onnxruntime is not installed, or ml_dtypes for bfloat16.
        ValueError
            If a file is damaged, a tensor is missing, unused or of another shape than the
            configuration says, or the folder or `dtype` asks for something that is not supported.
        """
        path = model_folder(folder)
        config = DetrConfig.from_file(path / "config.json")
        processor = ImageProcessor.from_folder(path, "detr", 3)
        checkpoint = Checkpoint(path / "model.safetensors", ANCHOR)
        model = cls(config, checkpoint, processor, dtype)
        checkpoint.finish(IGNORED)
        return model

    def __call__(
        self, pixel_values: ArrayLike, *, num_threads: int | None = None
    ) -> tuple[Float32Array, Float32Array]:
        """Return the labels' numbers (N, Q, L + 1) and the boxes (N, Q, 4) of Q object queries.

        Parameters
        ----------
        pixel_values : float array (N, 3, H, W)
            Images of one size, as the processor gives them.
        num_threads : int, optional
            Upper limit for this call. The ResNet keeps that of when the model was loaded.

        Raises
        ------
        TypeError
            If pixel_values are no floats.
        ValueError
            If their shape is none of images.
        """
        x = self._norm(self._decoded(pixel_values, num_threads), num_threads)
        logits = self._classifier(x, num_threads=num_threads)
        first, second, last = self._boxes
        inner = first(x, activation="relu", num_threads=num_threads)
        inner = second(inner, activation="relu", num_threads=num_threads)
        return logits, probabilities(last(inner, num_threads=num_threads), True)

    def detect(
        self,
        images: Iterable[Image],
        *,
        threshold: float = 0.5,
        num_threads: int | None = None,
    ) -> list[list[Detection]]:
        """Return the objects of each image, most probable first.

        Parameters
        ----------
        images : iterable of images
            Paths, bytes of files, PIL images or uint8 arrays (H, W, 3); gone through once.
        threshold : float
            Objects that are less probable are left out.
        num_threads : int, optional
            Upper limit for this call.

        Returns
        -------
        list of lists of Detection
            ``(label, probability, (left, top, right, bottom))``.

        Raises
        ------
        FileNotFoundError, OSError, ImportError, TypeError, ValueError
            If an image cannot be read; and a ValueError if the threshold is not in 0 … 1.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be in 0 … 1, not {threshold}")
        found = []
        for number, image in enumerate(each_image(images)):
            try:
                pixels = pixels_of(image, 3)
                numbers = self.processor(pixels)
            except ValueError as error:
                raise ValueError(f"image {number}: {error}") from None
            logits, boxes = self(numbers[np.newaxis], num_threads=num_threads)
            found.append(self._objects(logits[0], boxes[0], pixels.shape, threshold))
        return found

    def attention_weights(
        self, pixel_values: ArrayLike, *, num_threads: int | None = None
    ) -> Float32Array:
        """Return how much each object query weighs the places of an image's map of features.

        Parameters
        ----------
        pixel_values : float array (3, H, W)
            The image, as the processor gives it.
        num_threads : int, optional
            Upper limit for this call.

        Returns
        -------
        float32 array (L, H, Q, ⌈H / 32⌉ · ⌈W / 32⌉)
            Of the decoder's attention to the encoder, in all layers and heads.
        """
        maps: list[Float32Array] = []
        self._decoded(np.asarray(pixel_values)[np.newaxis], num_threads, maps)
        return np.stack(maps)

    def _decoded(
        self,
        pixel_values: ArrayLike,
        num_threads: int | None,
        maps: list[Float32Array] | None = None,
    ) -> Float32Array:
        """Return the states of object queries (N, Q, E); `maps` takes the first image's weights."""
        numbers = np.asarray(pixel_values)
        if numbers.ndim != 4 or numbers.shape[1] != 3 or 0 in numbers.shape:
            raise ValueError(f"pixel_values must be (N, 3, H, W), not {numbers.shape}")
        if numbers.dtype.kind != "f":
            raise TypeError(f"pixel_values must be floats, not {numbers.dtype}")
        features = self._backbone(numbers.astype(np.float32, copy=False))
        count, channels, rows, columns = features.shape
        tokens = np.ascontiguousarray(features.reshape(count, channels, -1).swapaxes(1, 2))
        memory: Float32Array = self._project(tokens, num_threads=num_threads)
        places = sine_positions(rows, columns, self.config.width)
        for layer in self._encoder:
            memory = layer.look_around(memory, places, num_threads)
            memory = layer.finish(memory, num_threads)
        x = np.zeros((count, *self._queries.shape), np.float32)
        for layer in self._decoder:
            x = layer.look_around(x, self._queries, num_threads)
            if maps is not None and layer.cross is not None:
                maps.append(layer.cross.weights(x, memory, self._queries, places, num_threads)[0])
            x = layer.look_at(x, memory, self._queries, places, num_threads)
            x = layer.finish(x, num_threads)
        return x

    def _objects(
        self, logits: Float32Array, boxes: Float32Array, shape: tuple[int, ...], threshold: float
    ) -> list[Detection]:
        """Return what the queries of one image (H, W, …) have found, most probable first."""
        chances = probabilities(logits, False)[:, :-1]  # the last is no object
        best, chance = chances.argmax(axis=1), chances.max(axis=1)
        centre, size = boxes[:, :2], boxes[:, 2:]
        corners = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
        corners *= np.array([shape[1], shape[0]] * 2, np.float32)
        order = [query for query in np.argsort(-chance, kind="stable") if chance[query] > threshold]
        return [
            Detection(
                self.config.labels[best[query]],
                float(chance[query]),
                (left, top, right, bottom),
            )
            for query in order
            for left, top, right, bottom in [corners[query].tolist()]
        ]
