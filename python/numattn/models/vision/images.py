"""Images as callers give them → arrays of 8-bit numbers.

    path, bytes    a file of any kind that Pillow reads, upright as its EXIF orientation says
    PIL image      as it is: whoever opened it has turned it, or not
    uint8 array    (H, W, 3), or (H, W) of grey

What is no picture of three colours becomes one: grey is spread over the three, CMYK and palettes
are converted as Pillow does, transparent parts show white (as transformers' processors have it for
an opened image), and of an animation the first frame is taken. A picture of 16 or more bits a
channel is refused, since Pillow would cut its numbers off.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..texts import in_order

if TYPE_CHECKING:
    import PIL.Image

Pixels: TypeAlias = NDArray[np.uint8]
Image: TypeAlias = "str | Path | bytes | PIL.Image.Image | Pixels"

# Modes of Pillow's whose numbers have more than 8 bits.
WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def each_image(images: Iterable[Image]) -> Iterator[Image]:
    """Return an iterator over images; raise TypeError for a single one, or for what has no order.

    An array of several images has four dimensions.
    """
    single = isinstance(images, (str, bytes, bytearray, Path)) or hasattr(images, "getbands")
    if single or (isinstance(images, np.ndarray) and images.ndim != 4):
        raise TypeError("images must be a sequence of images; put a single one into a list")
    if isinstance(images, np.ndarray):
        return iter(images)
    return in_order("images", images, "images")


def pixels_of(image: Image, channels: int) -> Pixels:
    """Return an image as numbers (H, W, channels), for 1 or 3 channels.

    Raises
    ------
    FileNotFoundError, OSError
        If there is no such file, or it cannot be read.
    ImportError
        If Pillow is not installed.
    TypeError
        If it is something else than an image.
    ValueError
        If the file is no picture, is cut short, or is larger than Pillow's limit for what nobody
        means to open; if it has more than 8 bits a channel; if an array has another shape.

    Examples
    --------
    >>> pixels_of(np.array([[0, 255]], np.uint8), 3).tolist()
    [[[0, 0, 0], [255, 255, 255]]]
    """
    if isinstance(image, np.ndarray):
        return pixels_of_array(image, channels)
    if hasattr(image, "getbands"):
        return pixels_of_picture(image, channels, "the image")
    if isinstance(image, (str, Path)):
        path = Path(image)
        if path.is_dir():
            raise ValueError(f"{path} is a folder, not an image")
        with open(path, "rb") as file:  # which says best why it cannot be read
            return pixels_of_file(file, channels, str(path))
    if isinstance(image, (bytes, bytearray)):
        return pixels_of_file(BytesIO(image), channels, "the image")
    raise TypeError(
        "an image must be a path, bytes, a PIL image or a uint8 array (H, W, 3), "
        f"not a {type(image).__name__}"
    )


def pixels_of_array(array: NDArray[Any], channels: int) -> Pixels:
    """Return an array of an image as (H, W, channels)."""
    if array.dtype != np.uint8:
        raise TypeError(f"an image's array must be uint8, not {array.dtype}")
    shape = array.shape
    if array.ndim not in (2, 3) or array.ndim == 3 and shape[2] not in (1, 3) or array.size == 0:
        raise ValueError(f"an image's array must be (H, W, 3) or (H, W), not {shape}")
    pixels = array if array.ndim == 3 else array[..., np.newaxis]
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    return pixels_of_picture(picture_of(pixels), channels, "the image")


def picture_of(pixels: Pixels) -> PIL.Image.Image:
    """Return numbers (H, W, 1 or 3) as a picture of Pillow's."""
    from PIL import Image as library

    return library.fromarray(
        np.ascontiguousarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    )


def pixels_of_file(file: Any, channels: int, name: str) -> Pixels:
    """Return what an open file shows."""
    library = pillow()
    from PIL import ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Ours is the error for what is too large.
            warnings.simplefilter("ignore", library.DecompressionBombWarning)
            picture = library.open(file)
        most = library.MAX_IMAGE_PIXELS
        if most is not None and picture.width * picture.height > most:
            raise library.DecompressionBombError(
                f"{picture.width} × {picture.height} pixels are more than the {most} that Pillow "
                "takes (PIL.Image.MAX_IMAGE_PIXELS)"
            )
        picture.load()
        picture = ImageOps.exif_transpose(picture)
    except UnidentifiedImageError:
        raise ValueError(f"{name} is not an image that Pillow can read") from None
    except (
        *(OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError),
        library.DecompressionBombError,
    ) as error:
        raise ValueError(f"{name} cannot be read as an image: {error}") from None
    return pixels_of_picture(picture, channels, name)


def pixels_of_picture(picture: PIL.Image.Image | Any, channels: int, name: str) -> Pixels:
    """Return a picture of Pillow's as (H, W, channels)."""
    if picture.mode in WIDE_MODES:
        raise ValueError(
            f"{name} has more than 8 bits a channel (Pillow's mode {picture.mode!r}): "
            "scale it to 0 … 255 first"
        )
    if picture.width == 0 or picture.height == 0:
        raise ValueError(f"{name} has no pixels: {picture.width} × {picture.height}")
    try:
        if "A" in picture.getbands() or picture.info.get("transparency") is not None:
            picture = picture.convert("RGBA")
            white = pillow().new("RGBA", picture.size, (255, 255, 255, 255))
            picture = pillow().alpha_composite(white, picture)
        picture = picture.convert("RGB" if channels == 3 else "L")
    except (OSError, SyntaxError, ValueError) as error:  # it may be read only now
        raise ValueError(f"{name} cannot be read as an image: {error}") from None
    pixels = np.asarray(picture)
    return pixels if channels == 3 else pixels[..., np.newaxis]


def pillow() -> Any:
    """Return the module PIL.Image."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("reading an image needs Pillow: pip install 'numattn[vision]'") from None
    return Image
