"""`numattn detect`: the objects that a model sees in pictures, and where."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import add_compute_arguments
from .progress import add_quiet, progress_bar
from .streams import note
from .whole_file import check_writable, is_stdout, whole_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from numattn.models import Detr
    from numattn.models.vision.detr import Detection

    from .arguments import Commands

PROGRAM = "numattn detect"


def add_parser(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "detect",
        help="images to objects and boxes",
        description="Print the objects that a DETR sees in images, most probable first, each with "
        "its box in pixels; --out draws them.",
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="an image's file")
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="a Hugging Face folder of a DETR (config.json, model.safetensors, "
        "preprocessor_config.json)",
    )
    parser.add_argument(
        "--threshold",
        type=share,
        default=0.5,
        metavar="P",
        help="leave out what is not more probable than this (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object for each image")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PICTURE",
        help="draw the boxes of one image: .png, .svg or .pdf",
    )
    add_quiet(parser)
    add_compute_arguments(parser)
    parser.set_defaults(run=run)


def share(text: str) -> float:
    """Return a number of 0 … 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number of 0 … 1, not {text!r}")
    return value


def run(arguments: argparse.Namespace) -> None:
    """Look at each image, and print what is seen."""
    import numattn as na

    images, out = arguments.images, arguments.out
    if out is not None:
        check_picture(arguments)
    if arguments.threads is not None:
        na.set_num_threads(arguments.threads)
    model = load_detr(arguments)
    with progress_bar(arguments, len(images), "image", prints=True) as advance:
        for path in images:
            pixels, found = look(model, path, arguments.threshold)
            with redirect_stdout(sys.stderr if out is not None and is_stdout(out) else sys.stdout):
                text = as_json(path, found) if arguments.json else "\n".join(table(path, found))
                print(text, flush=True)
            if out is not None:
                draw(pixels, found, out)
            advance(1)


def check_picture(arguments: argparse.Namespace) -> None:
    """Raise unless --out can be drawn, before any work is spent on it."""
    from .picture import check_format

    if len(arguments.images) > 1:
        raise ValueError(f"--out draws one image, not {len(arguments.images)}")
    check_writable(arguments.out, (*arguments.images, *Path(arguments.model).glob("*")))
    check_format(arguments.out)


def load_detr(arguments: argparse.Namespace) -> Detr:
    """Return the model.

    Raises
    ------
    ValueError
        If it is no DETR.
    """
    from numattn.models import Detr, load

    model = load(arguments.model, dtype=arguments.dtype)
    if not isinstance(model, Detr):
        raise ValueError(f"{arguments.model} holds a {type(model).__name__}, which detects nothing")
    return model


def look(model: Detr, path: Path, threshold: float) -> tuple[NDArray[np.uint8], list[Detection]]:
    """Return an image and what is seen in it; a ValueError names the file."""
    from numattn.models.vision.images import pixels_of

    pixels = pixels_of(path, 3)
    try:
        (found,) = model.detect([pixels], threshold=threshold)
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).removeprefix('image 0: ')}") from None
    return pixels, found


def as_json(path: Path, found: Sequence[Detection]) -> str:
    """Return the line of an image."""
    objects = [each._asdict() for each in found]
    return json.dumps({"input": str(path), "objects": objects}, ensure_ascii=False)


def table(path: Path, found: Sequence[Detection]) -> list[str]:
    """Return the lines of an image: its name, and for each object probability, box and label."""
    if not found:
        return [str(path), "  nothing"]
    lines = [str(path), "         left     top   right  bottom"]
    for each in found:
        box = "".join(f"{place:8.0f}" for place in each.box)
        lines.append(f"  {each.probability:.3f}{box[2:]}  {each.label}")
    return lines


def draw(pixels: NDArray[np.uint8], found: Sequence[Detection], out: Path) -> None:
    """Draw the boxes into a file, and say where it is and what it lacks."""
    from .boxes import draw_boxes

    content, lacks = draw_boxes(pixels, found, out.suffix)
    for lack in lacks:
        note(PROGRAM, lack)
    with whole_file(out) as file:
        file.write(content)
    if not is_stdout(out):
        print(f"{out}: the boxes")
