"""`numattn attend --image`: which patches of an image a vision model looks at."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from .overlay import Overlay, draw_overlay
from .picture import check_format
from .whole_file import check_writable, is_stdout, whole_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from numattn.models import Clip, ImageClassifier, ViT

    Reader: TypeAlias = Clip | ImageClassifier | ViT

LISTED = 6


class Looked(NamedTuple):
    """How much is looked at each patch, and what looks."""

    weights: NDArray[np.float32]
    """(rows, columns): of all that is looked at, which adds up to 1."""
    who: str
    where: str


def attend_image(arguments: argparse.Namespace) -> None:
    """Print the patches that are looked at most, and draw them.

    Raises
    ------
    ValueError
        If arguments do not go together, or the model reads no images.
    """
    import numattn as na
    from numattn.models import Clip, ImageClassifier, ViT, load

    for name in ("sentence", "word", "at"):
        if getattr(arguments, name) is not None:
            raise ValueError(
                f"--image goes without {'SENTENCE' if name == 'sentence' else f'--{name}'}"
            )
    folder, out = arguments.model, arguments.out
    if folder is None:
        raise ValueError("--image needs --model FOLDER, of a vision model")
    if out is not None:
        check_writable(out, (arguments.image, *Path(folder).glob("*")))
        check_format(out)
    if arguments.threads is not None:
        na.set_num_threads(arguments.threads)
    model = load(folder, dtype=arguments.dtype)
    if not isinstance(model, (ViT, Clip, ImageClassifier)):
        raise ValueError(f"{folder} holds a {type(model).__name__}, which reads no images")
    numbers = model.preprocess([arguments.image])[0]
    looked = look(model, numbers, arguments)
    with redirect_stdout(sys.stderr if out is not None and is_stdout(out) else sys.stdout):
        report(looked)
    if out is None:
        return
    overlay = Overlay(
        shown(model, numbers), looked.weights, title_of(model, arguments), subtitle_of(looked)
    )
    with whole_file(out) as file:
        file.write(draw_overlay(overlay, out.suffix))
    if not is_stdout(out):
        print(f"{out}: what the model looks at")


def look(model: Reader, numbers: NDArray[np.float32], arguments: argparse.Namespace) -> Looked:
    """Return how much is looked at each patch: by [CLS], or by all patches if there is none."""
    from numattn.models import Clip, attention_rollout

    maps_of = model.image_attention_weights if isinstance(model, Clip) else model.attention_weights
    first = model.num_special > 0
    config = model.config.vision if isinstance(model, Clip) else model.config.tower
    layer, head = arguments.layer, arguments.head
    if arguments.rollout:
        table, where = attention_rollout(maps_of(numbers)), "through all layers (rollout)"
        row = table[0] if first else table.mean(axis=0)
    else:
        layer = config.num_layers - 1 if layer is None else layer
        maps = maps_of(numbers, layer, head, rows=[0] if first else None)
        row = maps.reshape(-1, maps.shape[-1]).mean(axis=0)
        heads = f"head {head}" if head is not None else f"the mean of {config.num_heads} heads"
        where = f"in layer {layer} (counted from 0), {heads}"
    weights = row[model.num_special :].reshape(model.grid(numbers))
    return Looked(weights, "[CLS]" if first else "the mean of all patches", where)


def report(looked: Looked) -> None:
    """Print the patches that are looked at most."""
    import numpy as np

    rows, columns = looked.weights.shape
    print(f"{looked.who}, {looked.where}, looks at")
    for place in np.argsort(-looked.weights, axis=None, kind="stable")[:LISTED]:
        row, column = divmod(int(place), columns)
        weight = looked.weights[row, column]
        print(f"  {weight:.3f}  row {row + 1} of {rows}, column {column + 1} of {columns}")
    rest = 1 - float(looked.weights.sum())
    if rest > 0.0005:
        print(f"  {rest:.3f}  no patch, but a token of the model's own")


def shown(model: Reader, numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the model reads as colours (H, W, C), 0 … 1."""
    import numpy as np

    colours = np.moveaxis(numbers, 0, 2)
    processor = model.processor
    if processor.mean is not None and processor.std is not None:
        colours = colours * processor.std + processor.mean
    if processor.factor is None:
        colours = colours / np.float32(255)
    elif processor.factor != 1 / 255:
        colours = colours / np.float32(processor.factor * 255)
    return np.clip(colours, 0, 1).astype(np.float32)


def title_of(model: Reader, arguments: argparse.Namespace) -> str:
    """Return the label that the model finds most probable, or the file's name."""
    from numattn.models import Clip

    if not isinstance(model, Clip) and model.has_classifier:
        ((guess,),) = model.classify([arguments.image], top=1)
        return f"“{guess.label}”, with a probability of {guess.probability:.0%}"
    return str(arguments.image.name)


def subtitle_of(looked: Looked) -> str:
    """Return what the veil shows."""
    return f"what {looked.who} looks at, {looked.where}"
