"""Images as callers give them: what is read, by which rule, and what is refused by name."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tiny_vision
from numattn.models import ViT
from numattn.models.vision.images import pixels_of
from numattn.models.vision.processor import ImageProcessor
from tolerance import assert_same_bits

COLOURS = tiny_vision.pictures()[1]


def file_of(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, format=kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ViT:
    return ViT.from_folder(tiny_vision.write_folder(tmp_path_factory.mktemp("vit"), "vit"))


def test_every_way_to_give_an_image(tmp_path: Path, model: ViT) -> None:
    picture = Image.fromarray(COLOURS)
    path = tmp_path / "a.png"
    path.write_bytes(file_of(picture))
    given = [COLOURS, picture, path, str(path), path.read_bytes(), bytearray(path.read_bytes())]
    numbers = model.preprocess(given)
    for each in numbers:
        assert_same_bits(each, numbers[0])
    assert_same_bits(model.preprocess(np.stack([COLOURS, COLOURS])), numbers[:2])
    assert_same_bits(model.preprocess([np.asfortranarray(COLOURS)[::1]]), numbers[:1])


def test_grey_is_spread_and_colours_become_grey() -> None:
    grey = COLOURS[..., 0]
    expected = np.repeat(grey[..., np.newaxis], 3, axis=2)
    for image in (grey, grey[..., np.newaxis], Image.fromarray(grey)):
        assert_same_bits(pixels_of(image, 3), expected)
        assert_same_bits(pixels_of(image, 1), grey[..., np.newaxis])
    one = np.asarray(Image.fromarray(COLOURS).convert("L"))[..., np.newaxis]
    assert_same_bits(pixels_of(COLOURS, 1), one)


def test_what_is_transparent_shows_white() -> None:
    alpha = np.full((*COLOURS.shape[:2], 1), 255, np.uint8)
    alpha[:5] = 0
    picture = Image.fromarray(np.concatenate([COLOURS, alpha], axis=2))
    expected = COLOURS.copy()
    expected[:5] = 255
    assert_same_bits(pixels_of(file_of(picture), 3), expected)
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    shown = pixels_of(file_of(palette, transparency=1), 3)
    assert shown.tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_cmyk_is_converted_as_pillow_does() -> None:
    picture = Image.fromarray(COLOURS).convert("CMYK")
    expected = np.asarray(Image.open(BytesIO(file_of(picture, "TIFF"))).convert("RGB"))
    assert_same_bits(pixels_of(file_of(picture, "TIFF"), 3), expected)


def test_a_file_is_turned_as_its_orientation_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    data = file_of(Image.fromarray(COLOURS), exif=exif)
    assert_same_bits(pixels_of(data, 3), np.rot90(COLOURS, -1))
    # An opened picture is the caller's.
    assert_same_bits(pixels_of(Image.open(BytesIO(data)), 3), COLOURS)


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    data = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels_of(data, 3)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (b"", ValueError, "is not an image that Pillow can read"),
        (b"no image at all", ValueError, "is not an image that Pillow can read"),
        (3.5, TypeError, "an image must be a path, bytes, a PIL image or a uint8 array"),
        (None, TypeError, "not a NoneType"),
        (np.zeros((4, 4, 3)), TypeError, "must be uint8, not float64"),
        (np.zeros((3, 4, 4), np.uint8), ValueError, r"\(H, W, 3\) or \(H, W\), not \(3, 4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), ValueError, r"not \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"not \(0, 4, 3\)"),
        (np.zeros((4,), np.uint8), ValueError, r"not \(4,\)"),
        ("no/such/file.png", FileNotFoundError, "no/such/file.png"),
    ],
)
def test_what_is_no_image(image: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pixels_of(image, 3)


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder, not an image"):
        pixels_of(tmp_path, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"])
def test_a_file_cut_short(kind: str) -> None:
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    data = file_of(Image.fromarray(noise), kind)
    assert pixels_of(data, 3).shape == (64, 64, 3)
    for size in (len(data) // 2, 40):
        with pytest.raises(ValueError, match=r"^the image (cannot be read|is not an image)"):
            pixels_of(data[:size], 3)


@pytest.mark.parametrize("most", [9, 15])
def test_a_bomb_is_not_opened(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Pillow itself raises from twice its limit on, and warns below."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    with pytest.raises(ValueError, match="cannot be read as an image: .*pixels"):
        pixels_of(file_of(Image.new("RGB", (5, 4))), 3)


def test_what_would_become_a_bomb_is_not_resized(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = ImageProcessor(3, {"shortest_edge": 224}, 2, (224, 224), 1 / 255, None, None)
    with pytest.raises(ValueError, match="1 × 5000 pixels would be resized to 224 × 1120000"):
        processor(np.zeros((5000, 1, 3), np.uint8))
    with pytest.raises(ValueError, match="too narrow"):
        processor(np.zeros((200_000, 1, 3), np.uint8))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_more_than_8_bits_are_refused(dtype: type) -> None:
    picture = Image.fromarray(np.full((4, 4), 300, dtype))
    with pytest.raises(ValueError, match="more than 8 bits a channel"):
        pixels_of(picture, 3)
    with pytest.raises(ValueError, match="more than 8 bits a channel"):
        pixels_of(file_of(picture, "TIFF"), 1)


@pytest.mark.parametrize("single", ["a.png", Path("a.png"), b"", COLOURS, Image.new("L", (2, 2))])
def test_a_single_image_belongs_into_a_list(model: ViT, single: Any) -> None:
    with pytest.raises(TypeError, match="put a single one into a list"):
        model.encode(single)


@pytest.mark.parametrize("images", [{"a": COLOURS}, 3])
def test_what_has_no_order(model: ViT, images: Any) -> None:
    with pytest.raises(TypeError, match="images must be a sequence or another iterable of images"):
        model.classify(images)


def test_the_image_that_fails_is_told(model: ViT) -> None:
    with pytest.raises(ValueError, match="image 1: the image is not an image"):
        model.encode([COLOURS, b"nothing", COLOURS])


def test_arguments_out_of_range(model: ViT) -> None:
    with pytest.raises(ValueError, match="batch_size must be 1 or more, not 0"):
        model.encode([COLOURS], batch_size=0)
    with pytest.raises(ValueError, match="top must be 1 or more, not 0"):
        model.classify([b"not even looked at"], top=0)
    with pytest.raises(ValueError, match=r"must be \(N, 3, H, W\), not \(3, 16, 16\)"):
        model(np.zeros((3, 16, 16), np.float32))
    with pytest.raises(TypeError, match="must be floats, not uint8; `preprocess` makes them"):
        model(np.zeros((1, 3, 16, 16), np.uint8))
