"""`numattn classify`: the labels that a model finds most probable for images, or for texts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import add_compute_arguments, positive
from .progress import add_quiet, progress_bar

if TYPE_CHECKING:
    from .arguments import Commands

BATCH = 16


def add_parser(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "classify",
        help="images or texts to labels",
        description="Print the labels that a model finds most probable. With a CLIP or SigLIP the "
        "labels are any words, given by --label.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="an image's file; or a text, if the model reads texts",
    )
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="a Hugging Face folder of a classifier, or of a CLIP or SigLIP",
    )
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="WORDS",
        help="one for each label to choose from",
    )
    parser.add_argument(
        "--template",
        metavar="TEXT",
        help='the text for a label, which takes the place of {}: "a photo of a {}" (default: {})',
    )
    parser.add_argument(
        "--top", type=positive, default=3, metavar="N", help="labels shown (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object for each input")
    add_quiet(parser)
    add_compute_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Classify the inputs, some at a time, and print what comes out."""
    import numattn as na
    from numattn.models import load

    if arguments.threads is not None:
        na.set_num_threads(arguments.threads)
    model = load(arguments.model, dtype=arguments.dtype)
    options = options_of(arguments, model)
    with progress_bar(arguments, len(arguments.inputs), "input", prints=True) as advance:
        for begin in range(0, len(arguments.inputs), BATCH):
            inputs = arguments.inputs[begin : begin + BATCH]
            for name, guesses in zip(inputs, guesses_of(model, inputs, options), strict=True):
                show(name, guesses, arguments.json)
            advance(len(inputs))


def guesses_of(
    model: Any, inputs: Sequence[str], options: dict[str, Any]
) -> list[list[tuple[str, float]]]:
    """Return for each input its most probable labels and their probabilities, best first.

    Classifiers of texts give all probabilities at once, those of images the best ones.
    """
    if not hasattr(model, "probabilities"):
        guesses: list[list[tuple[str, float]]] = model.classify(inputs, **options)
        return guesses
    found = []
    for row in model.probabilities(inputs):
        order = sorted(range(len(row)), key=lambda label: -float(row[label]))
        found.append([(model.labels[label], float(row[label])) for label in order])
    return [each[: options["top"]] for each in found]


def options_of(arguments: argparse.Namespace, model: Any) -> dict[str, Any]:
    """Return what a model's `classify` is given beside the inputs.

    Raises
    ------
    ValueError
        If the model classifies nothing, or needs labels and there are none, or has its own.
    """
    from numattn.models import Clip

    kind = type(model).__name__
    if not hasattr(model, "classify"):
        raise ValueError(f"{arguments.model} holds a {kind}, which classifies nothing")
    options: dict[str, Any] = {"top": arguments.top}
    if isinstance(model, Clip):
        if not arguments.label:
            raise ValueError(f"a {kind} needs --label, once for each label")
        options["labels"] = arguments.label
        if arguments.template is not None:
            options["template"] = arguments.template
    elif arguments.label or arguments.template is not None:
        raise ValueError(f"--label and --template are for a Clip; a {kind} has labels of its own")
    return options


def show(name: str, guesses: Sequence[tuple[str, float]], as_json: bool) -> None:
    """Print the labels of one input, most probable first."""
    if as_json:
        labels = [{"label": label, "probability": chance} for label, chance in guesses]
        print(json.dumps({"input": name, "labels": labels}, ensure_ascii=False))
        return
    print(name)
    for label, chance in guesses:
        print(f"  {chance:.3f}  {label}")
