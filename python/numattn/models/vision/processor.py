"""What happens to an image before a model sees it, as preprocessor_config.json says.

    resize        by Pillow, to a height and width or by the shortest edge
    center crop   what is missing at the edges is 0
    rescale       numbers × rescale_factor
    normalize     (numbers − mean) / std, channel by channel

Bit by bit what transformers' processors do that work with Pillow. Those that work with torchvision
resize by other code: there, a number of the 0 … 255 may differ by 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Float32Array
from ..files.json_file import read_json_object
from ..files.settings import LIMIT, MOST, Settings, shown
from .images import Image, Pixels, picture_of, pillow, pixels_of

HALVES: dict[str, Any] = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
CLIP: dict[str, Any] = {
    "resample": 3,
    "size": {"shortest_edge": 224},
    "default_to_square": False,
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
# What transformers' classes take where the file is silent.
DEFAULTS: dict[str, dict[str, Any]] = {
    "ViT": {**HALVES, "resample": 2, "size": 224},
    "DeiT": {
        **HALVES,
        "resample": 3,
        "size": 256,
        "crop_size": 224,
        "do_center_crop": True,
    },
    "Bit": CLIP,
    "CLIP": CLIP,
    "Detr": {
        "resample": 2,
        "size": {"shortest_edge": 800, "longest_edge": 1333},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    },
    "Siglip": {**HALVES, "resample": 3, "size": {"height": 224, "width": 224}},
    "Siglip2": {**HALVES, "resample": 2, "patch_size": 16, "max_num_patches": 256},
}
# Which of them belongs to a model whose file names none.
OF_MODEL = {
    "vit": "ViT",
    "deit": "DeiT",
    "dinov2": "Bit",
    "dinov2_with_registers": "Bit",
    "clip": "CLIP",
    "siglip": "Siglip",
    "siglip2": "Siglip2",
    "detr": "Detr",
}
CLASS = re.compile(r"(\w+?)(?:ImageProcessor(?:Fast|Pil)?|FeatureExtractor)")
FILTERS = range(6)  # Pillow's numbers of its filters
SMALLEST = 1e-12  # a standard deviation by which float32 can be divided without a thought


@dataclass(frozen=True)
class ImageProcessor:
    """Images → what a model reads."""

    channels: int
    """1 or 3."""
    size: dict[str, int] | None
    """height and width, or shortest_edge, or patch_size and max_num_patches; None to leave an image
    as it is."""
    resample: int
    """Pillow's number of a filter."""
    crop: tuple[int, int] | None
    """Height and width that are cut out of the middle."""
    factor: float | None
    """What numbers are multiplied by."""
    mean: Float32Array | None
    std: Float32Array | None
    """(channels,); None for numbers that stay as they are."""

    @classmethod
    def from_folder(
        cls, folder: Path, model_type: str, channels: int, patch: int | None = None
    ) -> ImageProcessor:
        """Read a folder's preprocessor_config.json, or its part of processor_config.json.

        `patch` is the edge of the model's patches, if a processor is to know it.

        Raises
        ------
        FileNotFoundError
            If there is neither.
        ValueError
            If it is damaged, or asks for something that is not supported.
        """
        settings = read_settings(folder)
        kind = class_of(settings, model_type)
        defaults = DEFAULTS[kind]
        values = {**defaults, **{k: v for k, v in settings.values.items() if v is not None}}
        if kind == "Detr" and type(values["size"]) is int:  # so in folders of old
            most = values.get("max_size", 1333)
            values["size"] = {"shortest_edge": values["size"], "longest_edge": most}
        settings = Settings(values, settings.path)
        refuse_others(settings, pads=kind == "Detr")
        size = read_resize(settings, kind, patch)
        crop = None
        if settings.flag("do_center_crop", False):
            edges = read_size(settings, "crop_size", True)
            if "height" not in edges:
                raise ValueError(f"{settings.path}: crop_size {edges} has no height and width")
            crop = (edges["height"], edges["width"])
        normalize = settings.flag("do_normalize", True)
        rescale = settings.flag("do_rescale", True)
        return cls(
            channels=channels,
            size=size,
            resample=settings.one_of("resample", FILTERS),
            crop=crop,
            factor=settings.number("rescale_factor", 1 / 255) if rescale else None,
            mean=read_numbers(settings, "image_mean", channels) if normalize else None,
            std=read_numbers(settings, "image_std", channels) if normalize else None,
        )

    def __call__(self, image: Image) -> Float32Array:
        """Return what a model reads of an image (channels, height, width).

        Raises
        ------
        FileNotFoundError, OSError, ImportError, TypeError, ValueError
            As :func:`~numattn.models.vision.images.pixels_of`; and a ValueError if it would be
            larger, once resized, than Pillow takes.
        """
        pixels = pixels_of(image, self.channels)
        if self.size is not None:
            pixels = self._resized(pixels)
        if self.crop is not None:
            pixels = cropped(pixels, *self.crop)
        if self.factor is None:
            numbers = pixels.astype(np.float32)
        else:
            numbers = (pixels.astype(np.float64) * self.factor).astype(np.float32)
        if self.mean is not None and self.std is not None:
            numbers = (numbers - self.mean) / self.std
        return np.ascontiguousarray(np.moveaxis(numbers, 2, 0))

    def _resized(self, pixels: Pixels) -> Pixels:
        height, width = resized_size(pixels.shape[:2], self.size or {})
        if (height, width) == pixels.shape[:2]:
            return pixels  # so does Pillow
        most = pillow().MAX_IMAGE_PIXELS
        if most is not None and height * width > most:
            raise ValueError(
                f"an image of {pixels.shape[1]} × {pixels.shape[0]} pixels would be resized to "
                f"{width} × {height}, which is more than Pillow takes"
            )
        picture = picture_of(pixels).resize((width, height), resample=self.resample)
        resized: Pixels = np.asarray(picture)
        return resized if resized.ndim == 3 else resized[..., np.newaxis]


def read_settings(folder: Path) -> Settings:
    """Return the settings of a folder's processor of images."""
    path = folder / "preprocessor_config.json"
    whole = folder / "processor_config.json"
    if not path.exists() and whole.exists():
        part = read_json_object(whole).get("image_processor")
        if isinstance(part, dict):
            return Settings(part, whole)
    return Settings.from_file(path)


def class_of(settings: Settings, model_type: str) -> str:
    """Return the key of DEFAULTS for the class that a file names, or the model's own."""
    name = settings.get("image_processor_type", settings.get("feature_extractor_type"))
    if name is None:
        return OF_MODEL[model_type]
    match = CLASS.fullmatch(name) if isinstance(name, str) else None
    if match is None or match[1] not in DEFAULTS:
        raise ValueError(
            f"{settings.path}: image_processor_type {shown(name)} is not supported; supported: "
            f"{', '.join(f'{each}ImageProcessor' for each in DEFAULTS)}"
        )
    return match[1]


def refuse_others(settings: Settings, pads: bool) -> None:
    """Raise ValueError for what would make other numbers and is not carried out.

    Where images of a batch are padded to one size, there is a mask that hides it: here each is
    computed in its own.
    """
    for name in ("use_square_size",) if pads else ("do_pad", "use_square_size"):
        settings.one_of(name, (False,), False)
    settings.one_of("data_format", ("channels_first",), "channels_first")
    if settings.get("auto_map") is not None:
        raise ValueError(
            f"{settings.path}: auto_map {shown(settings.get('auto_map'))} names code of the "
            "folder's own, which is not run"
        )


def read_resize(settings: Settings, kind: str, patch: int | None) -> dict[str, int] | None:
    """Return the size that images are resized to, None to leave them as they are."""
    if kind == "Siglip2":
        settings.one_of("do_resize", (True,), True)
        edge = settings.size("patch_size")
        settings.one_of("patch_size", (edge if patch is None else patch,))
        return {"patch_size": edge, "max_num_patches": settings.size("max_num_patches")}
    square = settings.flag("default_to_square", True)
    return read_size(settings, "size", square) if settings.flag("do_resize", True) else None


def read_size(settings: Settings, name: str, square: bool) -> dict[str, int]:
    """Return a size as height and width or as shortest_edge, with or without longest_edge."""
    value = settings.get(name)
    if type(value) is int:
        value = {"height": value, "width": value} if square else {"shortest_edge": value}
    elif isinstance(value, list) and len(value) == 2:
        value = {"height": value[0], "width": value[1]}
    kinds = ({"height", "width"}, {"shortest_edge"}, {"shortest_edge", "longest_edge"})
    if not isinstance(value, dict) or set(value) not in kinds:
        raise ValueError(
            f"{settings.path}: {name} {shown(value)} is not supported; supported: "
            "height and width, shortest_edge, and shortest_edge with longest_edge"
        )
    part = Settings(value, settings.path)
    return {edge: part.size(edge) for edge in value}


def read_numbers(settings: Settings, name: str, channels: int) -> Float32Array:
    """Return one number for each channel (channels,)."""
    value = settings.get(name)
    numbers = value if isinstance(value, list) else [value] * channels
    least = SMALLEST if name == "image_std" else -LIMIT
    if len(numbers) != channels or not all(
        type(each) in (int, float) and least < each < LIMIT for each in numbers
    ):
        kind = "positive numbers" if least > 0 else "numbers"
        raise ValueError(
            f"{settings.path}: {name} must be {channels} {kind}, one a channel, not {shown(value)}"
        )
    return np.array(numbers, dtype=np.float32)


def resized_size(size: tuple[int, ...], wanted: dict[str, int]) -> tuple[int, int]:
    """Return the height and width that an image of a size is resized to."""
    height, width = size
    if "height" in wanted:
        return wanted["height"], wanted["width"]
    if "max_num_patches" in wanted:
        return size_of_patches(height, width, wanted["patch_size"], wanted["max_num_patches"])
    short, long = min(size), max(size)
    edge: float = wanted["shortest_edge"]
    most = wanted.get("longest_edge")
    if most is not None and long / short * edge > most:
        edge = most * float(short) / float(long)
        rounded = round(edge)
        if rounded == short:
            return height, width
        other = int(edge * long / short)
        return (other, rounded) if width < height else (rounded, other)
    other = int(edge * long / short)
    if max(other, edge) > MOST:
        raise ValueError(f"an image of {width} × {height} pixels is too narrow to be resized")
    return (other, int(edge)) if width <= height else (int(edge), other)


def size_of_patches(height: int, width: int, patch: int, most: int) -> tuple[int, int]:
    """Return the largest whole patches, of `most` at most, in about an image's proportions.

    The scale is found by halving, with transformers' bounds, since it decides between sizes.

    >>> size_of_patches(100, 50, 16, 32)
    (128, 64)
    """

    def scaled(scale: float) -> tuple[int, int]:
        rows, columns = (max(1, ceil(edge * scale / patch)) for edge in (height, width))
        return rows * patch, columns * patch

    step = 1e-5
    low, high = step / 10, 100.0
    while high - low >= step:
        middle = (low + high) / 2
        tall, wide = scaled(middle)
        if (tall // patch) * (wide // patch) <= most:
            low = middle
        else:
            high = middle
    return scaled(low)


def cropped(pixels: Pixels, height: int, width: int) -> Pixels:
    """Return the middle (height, width, channels) of an image, in zeros where it is smaller."""
    tall, wide = pixels.shape[:2]
    top, left = (tall - height) // 2, (wide - width) // 2
    if top >= 0 and left >= 0:
        return pixels[top : top + height, left : left + width]
    full_height, full_width = max(height, tall), max(width, wide)
    above, before = ceil((full_height - tall) / 2), ceil((full_width - wide) / 2)
    full = np.zeros((full_height, full_width, pixels.shape[2]), np.uint8)
    full[above : above + tall, before : before + wide] = pixels
    top, left = max(0, top + above), max(0, left + before)
    return full[top : top + height, left : left + width]
